"""Opens files of arrays (.npz, Zarr groups, other tools' indexes) and reads their rows by ranges. Rows are read by ranges,
never all at once.

Knows what an array is called, nothing of what it means.
"""

from __future__ import annotations

import hashlib
import weakref
import zipfile
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import numpy as np

from ...store.errors import CorpusError, DataError
from ...store.files import JsonObject
from ...store.layout import Array
from .bergson_index import is_index, open_index
from .sources import Source


def is_features(path: str) -> bool:
    """Whether a path holds arrays rather than text."""
    return (
        path.endswith(".npz")
        or is_index(path)
        or (Path(path) / "zarr.json").is_file()
        or (Path(path) / ".zgroup").is_file()
    )


def _with_head(arrays: Any) -> Any:
    """Vectors made elsewhere are what a head of one class reads, which is always right."""
    vectors = arrays.get("vectors")
    if vectors is None or "hidden" in arrays or len(vectors.shape) != 2:
        return arrays
    labels = np.broadcast_to(np.int8(0), vectors.shape[:1])
    return {**arrays, "hidden": vectors, "labels": labels, "weight": np.zeros((1, vectors.shape[1]), np.float32)}


class _Arrays(JsonObject):
    """A dictionary that can be watched as it goes."""


class _NpzArray:
    """One member of an .npz, read by row ranges without loading it; in Fortran order (a fitted model's weight) only whole."""

    def __init__(self, file: IO[bytes], name: str) -> None:
        self._file = file
        version = np.lib.format.read_magic(self._file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        self.shape, fortran, self.dtype = read(self._file)
        if self.dtype.hasobject:
            raise DataError(f"{name} holds Python objects; save plain arrays")
        self.fortran = fortran and len(self.shape) > 1
        self._start = self._file.tell()

    def __getitem__(self, rows: slice) -> Array:
        begin, end, _ = rows.indices(self.shape[0])
        row = int(np.prod(self.shape[1:], dtype=np.int64)) * self.dtype.itemsize
        self._file.seek(self._start + begin * row)
        data = self._file.read((end - begin) * row)
        values = np.frombuffer(data, self.dtype)
        return values.reshape(self.shape, order="F") if self.fortran else values.reshape(end - begin, *self.shape[1:])


def open_arrays(path: str) -> tuple[Source, JsonObject]:
    """The file as a source, and its arrays by name.

    Raises:
        CorpusError: it is not there, or no such file.
    """
    try:
        if is_index(path):
            arrays, source = open_index(path)
            return source, _with_head(arrays)
        if path.endswith(".npz"):
            return _open_npz(path)
        import zarr

        arrays = dict(zarr.open_group(path, mode="r").arrays())
        told = sorted((name, array.shape, str(array.dtype), _ends(array)) for name, array in arrays.items())
        return Source(path, Path(path).name, "zarr", 0, _digest(repr(told))), _with_head(arrays)
    except FileNotFoundError:
        raise CorpusError(f"{path} does not exist") from None
    except (OSError, ValueError, zipfile.BadZipFile, KeyError) as error:
        if isinstance(error, DataError):
            raise
        raise CorpusError(f"{path} cannot be read as arrays: {error}") from None


def _open_npz(path: str) -> tuple[Source, JsonObject]:
    with ExitStack() as stack:
        archive = stack.enter_context(zipfile.ZipFile(path))
        crc = "".join(f"{info.filename}{info.CRC:x}{info.file_size}" for info in archive.infolist())
        arrays = {name.removesuffix(".npy"): _NpzArray(stack.enter_context(archive.open(name)), f"{path}: {name}")
                  for name in archive.namelist()}  # fmt: skip
        given = _Arrays(_with_head(arrays))
        weakref.finalize(given, stack.pop_all().close)  # all stay open as long as they are in use
        return Source(path, Path(path).name, "npz", Path(path).stat().st_size, _digest(crc)), given


def _ends(array: Any) -> list[Any]:
    """First and last row of an array: what identity may cost on 100 GB."""
    rows = array.shape[0] if array.shape else 0
    return [np.asarray(array[row : row + 1]).tolist() for row in (0, rows - 1)] if rows else []


def _digest(told: str) -> str:
    return hashlib.sha256(told.encode()).hexdigest()[:32]
