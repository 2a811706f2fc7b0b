"""Reads blocks of whole rows: shared out among threads that each read their own, or read ahead by one thread for one consumer.

Where several threads compute (:class:`SharedBlocks`), each reads the next block into a buffer of its own; while one
computes, the others read. Nothing passes from one processor's cache to another's: from the page cache this reads 8 to 10 GB/s, as
fast as `readinto`; one reading thread for two workers gave 2.6. Where one thread takes all blocks (:class:`BlockStream`), a
second one reads ahead for it. Knows nothing of what rows mean.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType

import numpy as np

from .cached import CachedColumn
from .columns import ColumnReader
from .errors import DataError
from .layout import Array, Block

_Buffers = list[Array]
STRIDE = 4
"""Blocks that a thread is given at once."""
NARROW = 64
"""Columns whose rows are at most a 64th of the widest one's are read a stride at a time."""


class SharedBlocks:
    """Rows `start` … `stop`-1 of columns that several threads may load, in blocks; each block goes to one thread.

    A thread is given `STRIDE` blocks in a row. Columns whose rows are a small part of the widest one's are read a stride at a
    time: a call that releases the GIL costs about 100 µs if another thread takes it.
    """

    def __init__(
        self, columns: Sequence[ColumnReader], block_rows: int, start: int = 0, stop: int | None = None
    ) -> None:
        """Nothing is read yet.

        Raises:
            DataError: rows that are not there, columns of text, or two of one name.
        """
        self._stop = columns[0].rows if stop is None else stop
        _check_request(columns, start, self._stop)
        self._columns = columns
        self._size = max(1, min(block_rows, self._stop - start))
        self._span, self._closed = STRIDE * self._size, False
        self._firsts = iter(range(start, self._stop, self._span))  # one step of a range's iterator is atomic

    def blocks(self) -> Iterator[Block]:
        """One thread's share; a block's arrays are valid until the next one is taken. Cached columns are views.

        Raises:
            StoreDamaged: a chunk is not what was written. Some of its rows may have been handed out: it is verified once all are
            read.
        """
        widest = max(c.column.row_bytes for c in self._columns)
        parts = [
            _ColumnPart(c, self._span if NARROW * c.column.row_bytes <= widest else self._size) for c in self._columns
        ]
        try:
            while (first := next(self._firsts, None)) is not None:
                end = min(self._stop, first + self._span)
                for at in range(first, end, self._size):
                    if self._closed:
                        return
                    stop = min(end, at + self._size)
                    yield Block(at, {part.name: part.rows(at, stop, end) for part in parts})
        finally:
            for column in self._columns:
                column.close_file()

    def close(self) -> None:
        """Hand out no more blocks."""
        self._closed = True


class _ColumnPart:
    """One column's rows in one thread, read `size` rows at a time."""

    def __init__(self, column: ColumnReader, size: int) -> None:
        self.name, self._column, self._size = column.column.name, column, size
        cached = isinstance(column, CachedColumn)
        self._buffer = None if cached else np.empty((size, *column.column.shape), column.column.dtype)
        self._first, self._stop = 0, 0

    def rows(self, first: int, stop: int, end: int) -> Array:
        """Rows `first` … `stop`-1, read and confirmed: from the buffer, which is filled up to `end` at most, or from the
        cache.
        """
        if isinstance(self._column, CachedColumn):
            return self._column.array[first:stop]
        assert self._buffer is not None
        if not self._first <= first < self._stop:
            self._first, self._stop = first, min(end, first + self._size)
            self._column.read(self._first, self._stop, self._buffer[: self._stop - self._first])
        return self._buffer[first - self._first : stop - self._first]


class BlockStream:
    """Rows `start` … `stop`-1 of columns of numbers, in blocks that a thread reads ahead. Close it, or use it as a context."""

    def __init__(
        self,
        columns: Sequence[ColumnReader],
        block_rows: int,
        buffers: int,
        start: int = 0,
        stop: int | None = None,
        allocate: Callable[[tuple[int, ...], str], Array] = np.empty,
    ) -> None:
        """`allocate` makes `buffers` sets of arrays of `block_rows` rows, in the memory that the caller wants; reading starts at
        once.

        Raises:
            DataError: rows that are not there, columns of text, or two of one name.
        """
        stop = columns[0].rows if stop is None else stop
        _check_request(columns, start, stop)
        self._columns, self._start, self._stop = columns, start, stop
        self._size = max(1, min(block_rows, stop - start))
        # last in, first out: a buffer just used is in the cache, and the None that `close` puts in is taken before all buffers
        self._free: queue.LifoQueue[_Buffers | None] = queue.LifoQueue()
        self._full: queue.Queue[Block | BaseException | None] = queue.Queue()
        self._lent: dict[int, _Buffers] = {}
        for _ in range(buffers):
            self._free.put([allocate((self._size, *c.column.shape), c.column.dtype) for c in columns])
        self._thread = threading.Thread(target=self._fill, daemon=True)
        self._thread.start()

    def take(self) -> Block | None:
        """The next block, or None after the last one. Any number of threads may ask; each block is returned once.

        Raises:
            StoreDamaged: a chunk is not what was written. Some of its rows may have been handed out: it is verified once all are
            read.
        """
        item = self._full.get()
        if not isinstance(item, Block):
            self._full.put(item)  # for the next thread that asks
            if item is not None:
                raise item
            return None
        for column in self._columns:
            column.confirm(item.start, item.columns[column.column.name])
        return item

    def give(self, block: Block) -> None:
        """Return a block: its arrays will be filled again."""
        self._free.put(self._lent.pop(block.start))

    def blocks(self) -> Iterator[Block]:
        """The remaining blocks, in order; a block's arrays are valid until the next one is taken."""
        while (block := self.take()) is not None:
            yield block
            self.give(block)

    def close(self) -> None:
        """Stop reading; a thread that waits for a block gets None."""
        self._free.put(None)
        self._thread.join()
        self._full.put(None)

    def __enter__(self) -> BlockStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _fill(self) -> None:
        """The reading thread."""
        try:
            for first in range(self._start, self._stop, self._size):
                buffers = self._free.get()
                if buffers is None:
                    return
                count = min(self._size, self._stop - first)
                for column, buffer in zip(self._columns, buffers, strict=True):
                    column.load(first, first + count, buffer[:count])
                self._lent[first] = buffers
                rows = {c.column.name: b[:count] for c, b in zip(self._columns, buffers, strict=True)}
                self._full.put(Block(first, rows))
            self._full.put(None)
        except BaseException as error:
            self._full.put(error)
        finally:
            for column in self._columns:
                column.close_file()


def _check_request(columns: Sequence[ColumnReader], start: int, stop: int) -> None:
    names = [c.column.name for c in columns]
    if len(set(names)) < len(names) or any(c.column.is_text for c in columns):
        raise DataError(f"blocks need columns of numbers with different names, not {[c.name for c in columns]}")
    for column in columns:
        if not 0 <= start <= stop <= column.rows:
            raise DataError(f"rows {start} to {stop} asked for, but {column.name} has {column.rows} rows")


def read_blocks(
    columns: Sequence[ColumnReader], block_rows: int, *, ahead: int = 1, start: int = 0, stop: int | None = None
) -> Iterator[Block]:
    """Rows `start` … `stop`-1 in blocks of `block_rows`, in order, read `ahead` blocks early.

    A block's arrays are valid until the next one is taken.

    Raises:
        DataError, StoreDamaged: see :class:`BlockStream`.
    """
    with BlockStream(columns, block_rows, ahead + 1, start, stop) as stream:
        yield from stream.blocks()
