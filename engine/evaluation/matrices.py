"""Reads scores, masks and outcomes from .npy, .parquet and .zarr files. Knows shapes; no method and no metric."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ...store.errors import DataError, SettingsError
from ...store.layout import Array
from ..data.bergson_index import is_bergson_scores, read_bergson_scores
from ..data.stored_arrays import reading
from .truth_record import require_undamaged

FORMATS = (".npy", ".parquet", ".zarr")


def read_array(path: str, what: str) -> Array:
    """Read a file's array, of any shape.

    .npy: the array. .parquet: one row per table row, from one column of lists or from all columns, which must be numbers. .zarr:
    the array, or the array `scores` of a group; if its dimensions are named example and query, as `attribute --all-scores`
    writes them, it is returned as (queries, examples). A folder of bergson's scores is read too.

    Raises:
        SettingsError: the file does not exist, or its format is unknown.
        DataError: it does not hold numbers, or a number is not finite; the row is named.
        StoreDamaged: it is a file of ground truth that differs from its digest.
    """
    file = Path(path)
    if is_bergson_scores(path):
        array = read_bergson_scores(path)
        require_finite(array, f"{path}: {what}")
        return array
    require_array_file(path, what)
    with reading(path, DataError):
        array = {".npy": _npy, ".parquet": _parquet, ".zarr": _zarr}[file.suffix](file)
    if array.dtype.kind not in "biuf" or not array.ndim:
        raise DataError(f"{path}: {what} are numbers in rows, not {array.dtype} {array.shape}")
    if not array.size:
        raise DataError(f"{path}: {what} are empty: {array.shape}")
    require_finite(array, f"{path}: {what}")
    return array


def require_array_file(path: str, what: str) -> None:
    """Raise SettingsError unless a path is a file that :func:`read_array` can read."""
    if is_bergson_scores(path):
        return
    if Path(path).suffix not in FORMATS:
        raise SettingsError(f"{path}: {what} are read from {', '.join(FORMATS)}")
    if not Path(path).exists():
        raise SettingsError(f"{path} does not exist", hint=f"give a file of {what}")


def array_file_bytes(path: str, what: str) -> int:
    """Upper bound of the bytes of a file's numbers as float64, from its header or its size.

    Raises:
        SettingsError: the file does not exist, or its format is unknown.
    """
    require_array_file(path, what)
    try:
        if path.endswith(".npy"):
            return 8 * int(np.load(path, mmap_mode="r", allow_pickle=False).size)
        if path.endswith(".parquet"):
            import pyarrow.parquet as pq

            metadata = pq.read_metadata(path)
            values = sum(
                metadata.row_group(group).column(column).num_values
                for group in range(metadata.num_row_groups)
                for column in range(metadata.num_columns)
            )
            return 8 * int(values)
        if path.endswith(".zarr"):
            import zarr

            node = zarr.open(path, mode="r")
            array = node["scores"] if isinstance(node, zarr.Group) else node
            return 8 * int(array.size) if isinstance(array, zarr.Array) else 0
    except Exception:  # reading it says what is wrong
        return 0
    return 8 * sum(file.stat().st_size for file in Path(path).rglob("*") if file.is_file())


def require_finite(values: Array, what: str) -> None:
    """Raise DataError, with the first bad row, if a number of values (n, …) is NaN or infinite."""
    bad_rows = np.flatnonzero(~np.isfinite(values.reshape(len(values), -1)).all(1))
    if len(bad_rows):
        more = f", and {len(bad_rows) - 1} more" if len(bad_rows) > 1 else ""
        raise DataError(f"{what}: row {bad_rows[0]}{more}: a number is not finite")


def _npy(file: Path) -> Array:
    require_undamaged(file)
    array: Array = np.load(file, allow_pickle=False)
    if not isinstance(array, np.ndarray):
        raise ValueError("it is an archive of arrays, not one array: save it with numpy.save")
    return array


def _parquet(file: Path) -> Array:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(file)
    if table.num_columns == 1 and pa.types.is_list(table.schema.types[0]):
        return rows_of_lists(table.column(0).combine_chunks())
    if {"query_id", "row", "score"} <= set(table.column_names):
        return _answers(table)
    return np.column_stack([column.to_numpy() for column in table.columns])


def rows_of_lists(lists: Any) -> Array:
    """A matrix from an Arrow array of lists of equal lengths."""
    values, lengths = lists.flatten(), lists.value_lengths()
    width = lengths[0].as_py() if len(lists) else 0
    if lists.null_count or values.null_count or not (lengths.to_numpy(zero_copy_only=False) == width).all():
        return np.array(lists.to_pylist())  # raises ValueError if lengths differ
    matrix: Array = values.to_numpy(zero_copy_only=False).reshape(len(lists), -1)
    return matrix


def _answers(table: object) -> Array:
    """(Q, N) scores from a table of answers that has every example for every query."""
    names, rows, scores = (table.column(name).to_numpy(zero_copy_only=False) for name in ("query_id", "row", "score"))  # type: ignore[attr-defined]
    queries, first_rows = np.unique(names, return_index=True)
    query_rows = {names[first]: number for number, first in enumerate(np.sort(first_rows))}
    matrix = np.full((len(queries), int(rows.max()) + 1), np.nan, np.float32)
    matrix[[query_rows[name] for name in names], rows] = scores
    missing = int(np.isnan(matrix).sum())
    if missing:
        raise ValueError(
            f"these are the best examples only ({missing} scores are not there): attribute --all-scores has all"
        )
    return matrix


def _zarr(file: Path) -> Array:
    import zarr

    node = zarr.open(str(file), mode="r")
    array = node["scores"] if isinstance(node, zarr.Group) else node
    if not isinstance(array, zarr.Array):
        raise ValueError("scores is not an array")
    values = np.asarray(array[...])
    names = getattr(array.metadata, "dimension_names", None) or ()
    return values.T if tuple(names) == ("example", "query") else values
