"""Chooses the reader of a column: the fast one of local uncompressed chunks, or the one through zarr. Knows nothing of what
rows mean.
"""

from __future__ import annotations

from .columns import ColumnReader, FileColumn
from .errors import StoreDamaged, StoreMissing
from .feature_store import ROOT, FeatureStore
from .layout import column_from, is_own, is_plain
from .zarr_column import ZarrColumn

__all__ = ["ColumnReader", "FileColumn", "ZarrColumn", "open_column"]


def open_column(store: FeatureStore, group: str, name: str) -> ColumnReader:
    """The reader for a column: plain files where they are plain, zarr otherwise.

    Raises:
        StoreMissing: the group or the column is not there.
        StoreDamaged: the array is not the one that the root declares.
    """
    declared = {column.name: column for column in store.columns(group)}.get(name)
    if declared is None:
        raise StoreMissing(f"{store.url} holds no {group} column {name}")
    path, rows = store.folder(group, name), store.rows(group)
    metadata = store.array_metadata(group, name)
    try:
        column, stored = column_from(name, metadata), metadata["shape"][0]
        plain, own = is_plain(metadata), is_own(metadata)
    except (LookupError, TypeError, ValueError, AttributeError):
        raise StoreDamaged(f"{store.url}/{path}/{ROOT} describes no array") from None
    if (column.shape, column.dtype) != (declared.shape, declared.dtype) or stored < rows or column.chunk_rows < 1:
        raise StoreDamaged(f"{store.url}/{path}/{ROOT} describes {stored} rows of {column.dtype} {column.shape}, "
                           f"not the {rows} rows of {declared.dtype} {declared.shape} written")  # fmt: skip
    if plain and not store.remote:
        return FileColumn(column, rows, path, store.path / path)
    return ZarrColumn(column, rows, path, f"{store.url}/{path}", own=own)
