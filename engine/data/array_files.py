"""Opens files of arrays (.npz, Zarr groups, other tools' indexes) and reads their rows by ranges. Rows are read by ranges,
never all at once.

Knows the arrays' names; knows nothing of what they mean.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import cast

import numpy as np

from ...store.errors import CorpusError
from .bergson_index import is_bergson_index, open_bergson_index
from .npz_files import open_npz
from .record_source import Data
from .sources import Source
from .stored_arrays import Arrays, StoredArray, reading
from .urls import is_url, name_in, shown


def is_array_path(path: Data) -> bool:
    """Whether data are a file or folder of arrays (.npz, Zarr group, bergson index) instead of text."""
    if not isinstance(path, str) or is_url(path):
        return isinstance(path, str) and name_in(path).endswith(".npz")
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


def open_arrays(path: str) -> tuple[Source, Arrays]:
    """Open a file or folder of arrays; returns its source and its arrays by name.

    Raises:
        CorpusError: the path does not exist, or it cannot be read as arrays.
        DataError: an array holds Python objects, or a bergson index holds per-token gradients.
    """
    if is_url(path):
        arrays, contents = open_npz(path)
        return Source(shown(path), name_in(path), "npz", 0, _digest(contents)), _with_head(arrays)
    if not Path(path).exists():
        raise CorpusError(f"{path} does not exist: give a .npz file, a Zarr group or a bergson index")
    if is_bergson_index(path):
        arrays, source = open_bergson_index(path)
        return source, _with_head(arrays)
    if path.endswith(".npz"):
        arrays, contents = open_npz(path)
        source = Source(path, Path(path).name, "npz", Path(path).stat().st_size, _digest(contents))
        return source, _with_head(arrays)
    import zarr

    with reading(path, CorpusError):
        arrays = cast(Arrays, dict(zarr.open_group(path, mode="r").arrays()))
        descriptions = sorted((name, array.shape, str(array.dtype), _ends(array)) for name, array in arrays.items())
    return Source(path, Path(path).name, "zarr", 0, _digest(repr(descriptions))), _with_head(arrays)


def _ends(array: StoredArray) -> list[object]:
    """First and last row of an array, for its digest: reading 100 GB to identify a file would take too long."""
    rows = array.shape[0] if array.shape else 0
    return [np.asarray(array[row : row + 1]).tolist() for row in (0, rows - 1)] if rows else []


def _digest(description: str) -> str:
    return hashlib.sha256(description.encode()).hexdigest()[:32]
