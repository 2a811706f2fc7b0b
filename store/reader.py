"""Committed rows, read: the columns of a store, and whole blocks of them with read-ahead. Knows nothing of what rows mean."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from .columns import ColumnReader, FileColumn, ZarrColumn
from .errors import DataError, StoreDamaged, StoreMissing
from .feature_store import ROOT, FeatureStore
from .layout import Array, Block, column_from, is_own, is_plain

__all__ = ["ColumnReader", "FileColumn", "ZarrColumn", "open_column", "read_blocks"]


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


def _check_request(columns: Sequence[ColumnReader], start: int, stop: int) -> None:
    names = [c.column.name for c in columns]
    if len(set(names)) < len(names) or any(c.column.is_text for c in columns):
        raise DataError(f"blocks are of columns of numbers with names of their own, not {[c.name for c in columns]}")
    for column in columns:
        if not 0 <= start <= stop <= column.rows:
            raise DataError(f"rows {start} to {stop} asked for, but {column.name} has {column.rows} rows")


def read_blocks(
    columns: Sequence[ColumnReader], block_rows: int, *, ahead: int = 1, start: int = 0, stop: int | None = None
) -> Iterator[Block]:
    """Rows `start` … `stop`-1 of columns of numbers in blocks of `block_rows`, read `ahead` blocks early by one thread.

    `ahead` + 1 sets of buffers are allocated once and reused: a block's arrays hold until the next one is asked for.

    Raises:
        DataError: rows that are not there, columns of text, or two of one name.
        StoreDamaged: a chunk is not what was written. Rows before its end may have been handed out.
    """
    stop = columns[0].rows if stop is None else stop
    _check_request(columns, start, stop)
    free: queue.Queue[list[Array] | None] = (
        queue.LifoQueue()
    )  # so that the None of a reader that stops early comes first
    full: queue.Queue[Block | BaseException | None] = queue.Queue()
    size = max(1, min(block_rows, stop - start))
    for _ in range(ahead + 1):
        free.put([np.empty((size, *c.column.shape), c.column.dtype) for c in columns])
    reader = threading.Thread(target=_fill_blocks, args=(columns, start, stop, size, free, full), daemon=True)
    reader.start()
    try:
        yield from _drain(full, free, columns)
    finally:
        free.put(None)
        reader.join()


def _fill_blocks(
    columns: Sequence[ColumnReader], start: int, stop: int, size: int, free: queue.Queue[Any], full: queue.Queue[Any]
) -> None:
    """The reading thread: free buffers in, full blocks out; `None` ends it, from either side."""
    try:
        for first in range(start, stop, size):
            buffers = free.get()
            if buffers is None:
                return
            count = min(size, stop - first)
            for column, buffer in zip(columns, buffers, strict=True):
                column.read(first, first + count, buffer[:count])
            full.put((Block(first, {c.column.name: b[:count] for c, b in zip(columns, buffers, strict=True)}), buffers))
        full.put(None)
    except BaseException as error:
        full.put(error)


def _drain(full: queue.Queue[Any], free: queue.Queue[Any], columns: Sequence[ColumnReader]) -> Iterator[Block]:
    while (item := full.get()) is not None:
        if isinstance(item, BaseException):
            raise item
        block, buffers = item
        yield block
        del item, block
        free.put(buffers)
