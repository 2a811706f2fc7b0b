"""Committed rows, read: whole blocks with read-ahead, or single rows gathered. Knows nothing of what rows mean.

Plain chunk files are read straight into the caller's buffer, and their checksum is taken on the way (20 GB/s a core,
against some 5 GB/s for the copy). Every other codec, and every remote store, goes through zarr itself.
"""

from __future__ import annotations

import os
import queue
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .errors import StoreDamaged, StoreMissing
from .feature_store import ROOT, FeatureStore
from .files import checksum_bytes, crc32c
from .layout import CHECKSUM_BYTES, Array, Block, Column, column_from, is_plain


class ColumnReader(ABC):
    """Rows of one column."""

    def __init__(self, column: Column, rows: int, name: str) -> None:
        """`name` is the array's path below the root, for messages."""
        self.column, self.rows, self.name = column, rows, name

    @abstractmethod
    def read(self, start: int, stop: int, out: Array) -> None:
        """Fill `out` (stop-start, *row shape) with rows.

        Raises:
            StoreDamaged: bytes are missing or differ from their checksum.
        """

    @abstractmethod
    def gather(self, rows: Sequence[int] | Array) -> Array:
        """The named rows, in the order asked for: (len(rows), *row shape)."""

    def damaged(self, chunk: int, why: str) -> StoreDamaged:
        """The error for one bad chunk."""
        first, last = self.column.rows_of(chunk, self.rows)
        return StoreDamaged(f"{self.name} chunk {chunk} (rows {first} to {last - 1}) {why}: run headwater verify")


class FileColumn(ColumnReader):
    """A column of plain chunk files in a folder."""

    def __init__(self, column: Column, rows: int, name: str, folder: Path) -> None:
        super().__init__(column, rows, name)
        self.folder = folder
        self._sum = (-1, 0, 0)  # chunk, rows of it summed so far, their checksum

    def read(self, start: int, stop: int, out: Array) -> None:
        """As promised; a chunk read from its first row to its last, in one call or several, is checked."""
        size, done = self.column.chunk_rows, 0
        while start < stop:
            chunk, offset = divmod(start, size)
            count = min(stop - start, size - offset)
            self._read_part(chunk, offset, out[done : done + count])
            start, done = start + count, done + count

    def _read_part(self, chunk: int, offset: int, out: Array) -> None:
        path = self.folder / self.column.chunk_key(chunk)
        try:
            with path.open("rb", buffering=0) as file:
                file.seek(offset * self.column.row_bytes)
                self._fill(file, out, chunk)
                self._check(file, chunk, offset, out)
        except FileNotFoundError:
            raise self.damaged(chunk, "is missing") from None

    def _fill(self, file: Any, out: Array, chunk: int) -> None:
        view = memoryview(out.reshape(-1).view(np.uint8))
        while len(view):
            got = file.readinto(view)
            if not got:
                raise self.damaged(chunk, "is cut short")
            view = view[got:]

    def _check(self, file: Any, chunk: int, offset: int, out: Array) -> None:
        known, rows, crc = self._sum
        if offset == 0:
            rows, crc = 0, 0
        elif known != chunk or rows != offset:
            return  # read from its middle: nothing to compare
        rows, crc = rows + len(out), crc32c(out, crc)
        self._sum = (chunk, rows, crc)
        first, last = self.column.rows_of(chunk, self.rows)
        if rows == last - first:
            rest = file.read()
            while len(rest) < (self.column.chunk_rows - rows) * self.column.row_bytes + CHECKSUM_BYTES:
                more = file.read()
                if not more:
                    raise self.damaged(chunk, "is cut short")
                rest += more
            if checksum_bytes(crc32c(rest[:-CHECKSUM_BYTES], crc)) != rest[-CHECKSUM_BYTES:]:
                raise self.damaged(chunk, "differs from its checksum")

    def gather(self, rows: Sequence[int] | Array) -> Array:
        """As promised; one positioned read a row."""
        rows = np.asarray(rows, dtype=np.int64)
        out = np.empty((len(rows), *self.column.shape), self.column.dtype)
        order = np.argsort(rows, kind="stable")
        file, current = -1, -1
        try:
            for at in order:
                chunk, offset = divmod(int(rows[at]), self.column.chunk_rows)
                if chunk != current:
                    file, current = self._open_chunk(chunk, file), chunk
                view = memoryview(out[at : at + 1].reshape(-1).view(np.uint8))
                if os.preadv(file, [view], offset * self.column.row_bytes) != len(view):
                    raise self.damaged(chunk, "is cut short")
        finally:
            if file >= 0:
                os.close(file)
        return out

    def _open_chunk(self, chunk: int, previous: int) -> int:
        if previous >= 0:
            os.close(previous)
        try:
            return os.open(self.folder / self.column.chunk_key(chunk), os.O_RDONLY)
        except FileNotFoundError:
            raise self.damaged(chunk, "is missing") from None


class ZarrColumn(ColumnReader):
    """A column read through zarr: text, compressed or remote chunks."""

    def __init__(self, column: Column, rows: int, name: str, url: str) -> None:
        super().__init__(column, rows, name)
        import zarr

        self._array = zarr.open_array(url, mode="r")

    def read(self, start: int, stop: int, out: Array) -> None:
        """As promised; codecs that carry a checksum compare it."""
        out[:] = self._get(slice(start, stop))

    def gather(self, rows: Sequence[int] | Array) -> Array:
        """As promised; every chunk touched is decoded once."""
        rows = np.asarray(rows, dtype=np.int64)
        unique, back = np.unique(rows, return_inverse=True)
        parts = [self._get(part) for part in _runs(unique, self.column.chunk_rows)]
        return np.concatenate(parts)[back] if parts else np.empty((0, *self.column.shape), dtype=object)

    def _get(self, what: slice | Array) -> Array:
        try:
            if isinstance(what, slice):
                return np.asarray(self._array[what])
            first = int(what[0])
            return np.asarray(self._array[first : int(what[-1]) + 1])[what - first]
        except (ValueError, RuntimeError, OSError) as error:
            where = what.start if isinstance(what, slice) else int(what[0])
            raise self.damaged(where // self.column.chunk_rows, f"cannot be decoded ({error})") from None


def _runs(rows: Array, chunk_rows: int) -> list[Array]:
    """Ascending rows, cut where the chunk changes."""
    cuts = np.flatnonzero(np.diff(rows // chunk_rows)) + 1
    return [part for part in np.split(rows, cuts) if len(part)]


def open_column(store: FeatureStore, group: str, name: str) -> ColumnReader:
    """The reader for a column: plain files where they are plain, zarr otherwise.

    Raises:
        StoreMissing: the group or the column is not there.
    """
    if group not in store.groups or name not in [column.name for column in store.columns(group)]:
        raise StoreMissing(f"{store.url} holds no {group} column {name}")
    path, rows = store.folder(group, name), store.rows(group)
    if store.remote:
        import zarr

        metadata = zarr.open_array(f"{store.url}/{path}", mode="r").metadata.to_dict()
        return ZarrColumn(column_from(name, metadata), rows, path, f"{store.url}/{path}")
    metadata = store.array_metadata(group, name)
    column = column_from(name, metadata)
    if is_plain(metadata) and not column.is_text:
        return FileColumn(column, rows, path, store.path / path)
    if not (store.path / path / ROOT).exists():
        raise StoreMissing(f"{store.path / path} is missing")
    return ZarrColumn(column, rows, path, str(store.path / path))


def read_blocks(
    columns: Sequence[ColumnReader], block_rows: int, *, ahead: int = 1, start: int = 0, stop: int | None = None
) -> Iterator[Block]:
    """Rows `start` … `stop`-1 of columns of numbers in blocks of `block_rows`, read `ahead` blocks early by one thread.

    `ahead` + 1 sets of buffers are allocated once and reused: a block's arrays hold until the next one is asked for.
    """
    stop = columns[0].rows if stop is None else stop
    free: queue.Queue[list[Array] | None] = queue.Queue()
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
