"""Opens files of arrays (.npz, Zarr groups, other tools' indexes) and reads their rows by ranges. Rows are read by ranges,
never all at once.

Knows the arrays' names; knows nothing of what they mean.
"""

from __future__ import annotations

import hashlib
import weakref
import zipfile
import zlib
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import IO, cast

import numpy as np

from ...store.errors import CorpusError, DataError
from ...store.layout import Array
from .bergson_index import is_bergson_index, open_bergson_index
from .sources import Source
from .stored_arrays import Arrays, StoredArray


def is_array_path(path: str) -> bool:
    """Whether a path is a file or folder of arrays (.npz, Zarr group, bergson index) instead of text."""
    return (
        path.endswith(".npz")
        or is_bergson_index(path)
        or (Path(path) / "zarr.json").is_file()
        or (Path(path) / ".zgroup").is_file()
    )


def _with_head(arrays: Arrays) -> Arrays:
    """Add what a model with one class needs to `vectors` alone: `hidden`, `labels` of zeros, and a zero head `weight`."""
    vectors = arrays.get("vectors")
    if vectors is None or "hidden" in arrays or len(vectors.shape) != 2:
        return arrays
    labels = np.broadcast_to(np.int8(0), vectors.shape[:1])
    return {**arrays, "hidden": vectors, "labels": labels, "weight": np.zeros((1, vectors.shape[1]), np.float32)}


class _Arrays(dict[str, StoredArray]):
    """A dictionary that weak references can point to, so that its files are closed when it is collected."""


_DAMAGE = (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError)
"""What the libraries raise for a damaged, encrypted or unknown member of a .zip."""


class _NpzArray:
    """One member of an .npz. Rows are read by ranges; an array in Fortran order (a fitted weight) is read whole."""

    def __init__(self, file: IO[bytes], name: str) -> None:
        self._file, self._name = file, name
        version = np.lib.format.read_magic(self._file)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        self.shape, fortran_order, self.dtype = read_header(self._file)
        if self.dtype.hasobject:
            raise DataError(f"{name} holds Python objects; expected a numeric array: save it with numpy.savez")
        self.fortran = fortran_order and len(self.shape) > 1
        self._start = self._file.tell()

    def __getitem__(self, rows: slice) -> Array:
        begin, end, _ = rows.indices(self.shape[0])
        row_bytes = int(np.prod(self.shape[1:], dtype=np.int64)) * self.dtype.itemsize
        try:
            self._file.seek(self._start + begin * row_bytes)
            data = self._file.read((end - begin) * row_bytes)
        except _DAMAGE as error:
            raise CorpusError(f"{self._name} is damaged ({error}): write the file again") from None
        if len(data) < (end - begin) * row_bytes:
            raise CorpusError(
                f"{self._name} ends before row {end}, but its header says {self.shape[0]}: write the file again"
            )
        values = np.frombuffer(data, self.dtype)
        return values.reshape(self.shape, order="F") if self.fortran else values.reshape(end - begin, *self.shape[1:])


def open_arrays(path: str) -> tuple[Source, Arrays]:
    """Open a file or folder of arrays; returns its source and its arrays by name.

    Raises:
        CorpusError: the path does not exist, or it cannot be read as arrays.
        DataError: an array holds Python objects, or a bergson index holds per-token gradients.
    """
    try:
        if is_bergson_index(path):
            arrays, source = open_bergson_index(path)
            return source, _with_head(arrays)
        if path.endswith(".npz"):
            return _open_npz(path)
        import zarr

        arrays = cast(Arrays, dict(zarr.open_group(path, mode="r").arrays()))
        descriptions = sorted((name, array.shape, str(array.dtype), _ends(array)) for name, array in arrays.items())
        return Source(path, Path(path).name, "zarr", 0, _digest(repr(descriptions))), _with_head(arrays)
    except FileNotFoundError:
        raise CorpusError(f"{path} does not exist: give a .npz file, a Zarr group or a bergson index") from None
    except (*_DAMAGE, KeyError, TypeError) as error:
        if isinstance(error, DataError):
            raise
        raise CorpusError(f"{path} cannot be read as arrays: {error}") from None


def _open_npz(path: str) -> tuple[Source, Arrays]:
    with ExitStack() as stack:
        archive = stack.enter_context(zipfile.ZipFile(path))
        crc = "".join(f"{info.filename}{info.CRC:x}{info.file_size}" for info in archive.infolist())
        members = Counter(name.removesuffix(".npy") for name in archive.namelist())
        if duplicate := next((name for name, count in members.items() if count > 1), None):
            raise DataError(f"{path}: array {duplicate} appears twice: rename one of them")
        arrays: Arrays = {name.removesuffix(".npy"): _NpzArray(stack.enter_context(archive.open(name)), f"{path}: {name}")
                  for name in archive.namelist()}  # fmt: skip
        named = _Arrays(_with_head(arrays))
        weakref.finalize(named, stack.pop_all().close)  # the members stay open while the dictionary is in use
        return Source(path, Path(path).name, "npz", Path(path).stat().st_size, _digest(crc)), named


def _ends(array: StoredArray) -> list[object]:
    """First and last row of an array, for its digest: reading 100 GB to identify a file would take too long."""
    rows = array.shape[0] if array.shape else 0
    return [np.asarray(array[row : row + 1]).tolist() for row in (0, rows - 1)] if rows else []


def _digest(description: str) -> str:
    return hashlib.sha256(description.encode()).hexdigest()[:32]
