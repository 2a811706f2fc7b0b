"""Chooses the reader of a column: a fast one, for local chunks as headwater writes them, or the one that uses zarr. Knows nothing
of what rows mean.
"""

from __future__ import annotations

from .columns import ColumnReader
from .errors import DataError, StoreDamaged, StoreMissing
from .feature_store import ROOT, FeatureStore
from .file_column import FileColumn
from .layout import Column, column_from, is_native, is_plain
from .text_column import TextColumn
from .zarr_column import ZarrColumn

__all__ = ["ColumnReader", "FileColumn", "TextColumn", "ZarrColumn", "declared_column", "open_array", "open_column"]


def open_column(store: FeatureStore, group: str, name: str) -> ColumnReader:
    """The reader for a column: `FileColumn` for local, plain chunk files, `TextColumn` for local text, else `ZarrColumn`.

    Raises:
        StoreMissing: the group or the column is not there.
        StoreDamaged: the array is not the one that the root declares. DataError: the column is ragged.
    """
    declared = declared_column(store, group, name)
    if declared.ragged:
        raise DataError(f"{group} column {name} is ragged: its rows are not one array")
    return open_array(store, group, name, declared, store.rows(group))


def declared_column(store: FeatureStore, group: str, name: str) -> Column:
    """A column as the root declares it.

    Raises:
        StoreMissing: the group or the column is not there.
    """
    declared = {column.name: column for column in store.columns(group)}.get(name)
    if declared is None:
        raise StoreMissing(f"{store.url} holds no {group} column {name}")
    return declared


def open_array(store: FeatureStore, group: str, name: str, declared: Column, rows: int) -> ColumnReader:
    """The reader for an array of a group. `name`: its path below the group's columns; `rows`: how many of its rows are committed.

    Its chunks are compared with the manifest's checksums, unless another tool rewrote the array with other chunks or codecs.

    Raises:
        StoreDamaged: it is not the one declared, or has fewer rows.
    """
    path = store.folder(group, name)
    column, stored, plain, native = described_array(store, path, declared.name)
    if (column.shape, column.dtype) != (declared.shape, declared.dtype) or stored < rows:
        raise StoreDamaged(f"{store.url}/{path}/{ROOT} describes {stored} rows of {column.dtype} {column.shape}, "
                           f"not the {rows} rows of {declared.dtype} {declared.shape} written")  # fmt: skip
    as_written = native and column.chunk_rows == declared.chunk_rows  # the same test as in `is_as_written`
    checksums = store.checksums(group, name, column, rows) if as_written else None
    if plain and not store.remote:
        return FileColumn(column, rows, path, store.path / path, checksums)
    if native and column.is_text and not store.remote:
        return TextColumn(column, rows, path, store.path / path, checksums)
    return ZarrColumn(column, rows, path, f"{store.url}/{path}", checksums, native=native)


def is_as_written(store: FeatureStore, group: str, declared: Column) -> bool:
    """Whether a column's array has the chunks and codecs that headwater gives it: otherwise the manifest does not apply."""
    column, _, _, native = described_array(store, store.folder(group, declared.name), declared.name)
    return native and column.chunk_rows == declared.chunk_rows


def described_array(store: FeatureStore, path: str, name: str) -> tuple[Column, int, bool, bool]:
    """The column that the metadata of the array at a path below the store describe, its rows, and whether it is plain and native.

    Raises:
        StoreDamaged: they describe no array.
    """
    metadata = store.shard.array_metadata(path)
    try:
        column, stored = column_from(name, metadata), metadata["shape"][0]
        if type(stored) is not int or type(column.chunk_rows) is not int or not 0 < column.chunk_rows < 1 << 63:
            raise ValueError(stored)
        return column, stored, is_plain(metadata), is_native(metadata)
    except (LookupError, TypeError, ValueError, AttributeError):
        raise StoreDamaged(f"{store.url}/{path}/{ROOT} describes no array") from None
