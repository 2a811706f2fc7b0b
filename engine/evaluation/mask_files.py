"""Reads masks of subsets, (subsets, examples) of 0 and 1, some subsets at a time. Knows no store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ...store.errors import DataError
from ...store.layout import Array
from ..data.stored_arrays import reading
from .matrices import read_array, require_array_file, rows_of_lists
from .truth_record import require_undamaged

MASK_READING_BYTES = 8 << 20
"""Memory of reading masks, besides the bits and :data:`MASK_ROW_COPIES` of one subset's row."""
MASK_ROW_COPIES = 4
_PART_BYTES = 1 << 20  # bytes of the masks that are read together, unless one row has more


def mask_file_shape(path: str) -> tuple[int, int, int] | None:
    """Subsets, examples, and bytes of a number in a file of masks, from its header; None if only reading it all tells.

    Raises:
        SettingsError: the file does not exist, or its format is unknown. DataError: it cannot be read.
    """
    require_array_file(path, "masks")
    if path.endswith(".npy"):
        with Path(path).open("rb") as file:
            header = _npy_header(file)
        return None if header is None else (*header[0], header[1].itemsize)
    if path.endswith(".zarr"):
        array = _zarr_rows(path)
        return None if array is None else (*array.shape, array.dtype.itemsize)
    if path.endswith(".parquet"):
        return _parquet_shape(path)
    return None


def read_packed_masks(path: str) -> tuple[Array, int]:
    """(S, ⌈N/8⌉) uint8: which examples each subset holds, as `numpy.packbits` packs it; and N.

    Raises:
        DataError: it is not a matrix of 0 and 1, or a subset has no example.
    """
    bits: list[Array] = []
    examples = 0
    for rows in _rows(path):
        if not rows.size or rows.ndim != 2 or not ((rows == 0) | (rows == 1)).all():
            _refuse(path, rows)
        if bits and rows.shape[1] != examples:
            raise DataError(f"{path}: subsets have masks of {examples} and of {rows.shape[1]} examples")
        masks, examples = rows.astype(bool), rows.shape[1]
        empty = np.flatnonzero(~masks.any(1))
        if len(empty):
            raise DataError(f"{path}: subset {sum(map(len, bits)) + empty[0]} holds no example")
        bits.append(np.packbits(masks, axis=1))
    return np.concatenate(bits), examples


def read_masks(path: str) -> Array:
    """(S, N) bool: which examples each subset holds.

    Raises:
        DataError: it is not a matrix of 0 and 1, or a subset has no example.
    """
    bits, examples = read_packed_masks(path)
    masks: Array = np.unpackbits(bits, axis=1, count=examples).view(bool)
    return masks


def _refuse(path: str, rows: Array) -> None:
    whole = read_array(path, "masks")  # says what is wrong with the numbers, if they are none
    raise DataError(f"{path}: masks are (subsets, examples) of 0 and 1, not {whole.dtype} {whole.shape}")


def _rows(path: str) -> Iterator[Array]:
    """Rows of the matrix, some at a time where the format allows."""
    shape = mask_file_shape(path)
    if shape is None:
        yield read_array(path, "masks")
        return
    if path.endswith(".npy"):
        require_undamaged(Path(path))
    count, width, itemsize = shape
    with reading(path, DataError):
        yield from _parts(path, count, width, max(1, _PART_BYTES // max(1, width * itemsize)))


def _parts(path: str, count: int, width: int, step: int) -> Iterator[Array]:
    """The `count` rows of `width` numbers, `step` at a time."""
    if path.endswith(".zarr"):
        array = _zarr_rows(path)
        assert array is not None
        for first in range(0, max(1, count), step):
            yield np.asarray(array[first : first + step])
        return
    if path.endswith(".parquet"):
        for batch in pq.ParquetFile(path).iter_batches(step):
            yield rows_of_lists(batch.column(0))
        return
    with Path(path).open("rb") as file:
        header = _npy_header(file)
        assert header is not None
        for first in range(0, max(1, count), step):
            part = np.fromfile(file, header[1], min(step, count - first) * width)
            if part.size != min(step, count - first) * width:
                raise DataError(f"{path} cannot be read: it ends too early")
            yield part.reshape(-1, width) if width else part.reshape(0, 0)


def _npy_header(file: IO[bytes]) -> tuple[tuple[int, int], np.dtype] | None:
    """Shape and dtype of a matrix in row order, whose numbers follow; None for another array."""
    try:
        version = np.lib.format.read_magic(file)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, fortran, dtype = read_header[version](file)
    except Exception:  # NumPy raises nearly every class for damaged bytes, and read_array says what is wrong
        return None
    plain = len(shape) == 2 and not fortran and dtype.kind in "biuf"
    return ((int(shape[0]), int(shape[1])), dtype) if plain else None


def _parquet_shape(path: str) -> tuple[int, int, int] | None:
    """Shape and largest size of a number in a file with one column of lists; None for another one."""
    try:
        file = pq.ParquetFile(path)
    except Exception:  # read_array says what is wrong
        return None
    types, rows = file.schema_arrow.types, file.metadata.num_rows
    if len(types) != 1 or not pa.types.is_list(types[0]) or not rows:
        return None
    values = sum(file.metadata.row_group(group).column(0).num_values for group in range(file.num_row_groups))
    return rows, values // rows, 8


def _zarr_rows(path: str) -> Any:
    """The array of a .zarr of masks; None if only reading it all tells."""
    import zarr

    try:
        node = zarr.open(path, mode="r")
    except Exception:  # read_array says what is wrong
        return None
    plain = isinstance(node, zarr.Array) and node.ndim == 2 and node.dtype.kind in "biuf"
    names = tuple(getattr(node.metadata, "dimension_names", None) or ())
    return node if plain and names != ("example", "query") else None
