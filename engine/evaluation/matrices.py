"""Reads scores, masks and outcomes from .npy, .parquet and .zarr files. Knows shapes; no method and no metric."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ...store.errors import DataError, SettingsError
from ...store.layout import Array
from ..data.bergson_index import is_scores, read_scores

FORMATS = (".npy", ".parquet", ".zarr")


def read_array(path: str, what: str) -> Array:
    """A file's numbers, of whatever shape.

    .npy: the array; .parquet: a row of the table a row, from one column of lists or from all columns, which are numbers;
    .zarr: the array, or the group's array `scores`. Where a Zarr array names its dimensions example and query, as
    `attribute --all-scores` does, it comes as (queries, examples). A folder of bergson's scores likewise.

    Raises:
        SettingsError: no such file, or none of these formats.
        DataError: not numbers, or one is not finite; the row is named.
    """
    file = Path(path)
    if is_scores(path):
        found = read_scores(path)
        require_finite(found, f"{path}: {what}")
        return found
    if file.suffix not in FORMATS:
        raise SettingsError(f"{path}: {what} are read from {', '.join(FORMATS)}")
    if not file.exists():
        raise SettingsError(f"{path} does not exist")
    try:
        found = {".npy": _npy, ".parquet": _parquet, ".zarr": _zarr}[file.suffix](file)
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise DataError(f"{path} cannot be read: {' '.join(str(error).split())}") from None
    if found.dtype.kind not in "biuf" or not found.ndim:
        raise DataError(f"{path}: {what} are numbers in rows, not {found.dtype} {found.shape}")
    if not found.size:
        raise DataError(f"{path}: {what} are empty: {found.shape}")
    require_finite(found, f"{path}: {what}")
    return found


def require_finite(values: Array, what: str) -> None:
    """Raise DataError, naming the first bad row, where a number is NaN or infinite. values (n, …)."""
    bad = np.flatnonzero(~np.isfinite(values.reshape(len(values), -1)).all(1))
    if len(bad):
        more = f", and {len(bad) - 1} more" if len(bad) > 1 else ""
        raise DataError(f"{what}: row {bad[0]}{more}: a number is not finite")


def read_masks(path: str) -> Array:
    """(S, N) boolean: which examples each subset holds.

    Raises:
        DataError: not a matrix of 0 and 1, or a subset without an example.
    """
    found = read_array(path, "masks")
    if found.ndim != 2 or not np.isin(found, (0, 1)).all():
        raise DataError(f"{path}: masks are (subsets, examples) of 0 and 1, not {found.dtype} {found.shape}")
    masks: Array = found.astype(bool)
    empty = np.flatnonzero(~masks.any(1))
    if len(empty):
        raise DataError(f"{path}: subset {empty[0]} holds no example")
    return masks


def _npy(file: Path) -> Array:
    found: Array = np.load(file, allow_pickle=False)
    if not isinstance(found, np.ndarray):
        raise ValueError("it is an archive of arrays, not one array")
    return found


def _parquet(file: Path) -> Array:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(file)
    if table.num_columns == 1 and pa.types.is_list(table.schema.types[0]):
        return np.array(table.column(0).to_pylist())
    if {"query_id", "row", "score"} <= set(table.column_names):
        return _answers(table)
    return np.column_stack([column.to_numpy() for column in table.columns])


def _answers(table: object) -> Array:
    """(Q, N) from a file of answers that holds every example for every query."""
    names, rows, scores = (table.column(name).to_numpy(zero_copy_only=False) for name in ("query_id", "row", "score"))  # type: ignore[attr-defined]
    queries, at = np.unique(names, return_index=True)
    order = {names[first]: place for place, first in enumerate(np.sort(at))}
    found = np.full((len(queries), int(rows.max()) + 1), np.nan, np.float32)
    found[[order[name] for name in names], rows] = scores
    missing = int(np.isnan(found).sum())
    if missing:
        raise ValueError(
            f"these are the best examples only ({missing} scores are not there): attribute --all-scores has all"
        )
    return found


def _zarr(file: Path) -> Array:
    import zarr

    opened = zarr.open(str(file), mode="r")
    array: Any = opened["scores"] if isinstance(opened, zarr.Group) else opened
    found = np.asarray(array[...])
    names = getattr(array.metadata, "dimension_names", None) or ()
    return found.T if tuple(names) == ("example", "query") else found
