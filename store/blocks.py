"""Whole blocks of rows, read ahead by one thread for one or several takers. Knows nothing of what rows mean.

The reading thread fills a ring of buffers, made once, straight from the chunk files; takers use a buffer and give it back.
Checksums are taken by the takers: reading costs 0.1 CPU seconds a gigabyte from the page cache, summing half of that, and the
two run beside each other. Small blocks keep what is read in the processor's cache until it is used.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType

import numpy as np

from .columns import ColumnReader
from .errors import DataError
from .held import HeldColumn
from .layout import Array, Block

_Buffers = list[Array]


class BlockStream:
    """Rows `start` … `stop`-1 of columns of numbers, in blocks. Close it, or use it as a context."""

    def __init__(
        self,
        columns: Sequence[ColumnReader],
        block_rows: int,
        buffers: int,
        start: int = 0,
        stop: int | None = None,
        allocate: Callable[[tuple[int, ...], str], Array] = np.empty,
    ) -> None:
        """`buffers` sets of arrays of `block_rows` rows are allocated, of whatever memory; reading starts at once.

        Raises:
            DataError: rows that are not there, columns of text, or two of one name.
        """
        stop = columns[0].rows if stop is None else stop
        _check_request(columns, start, stop)
        self._columns, self._start, self._stop = columns, start, stop
        self._size = max(1, min(block_rows, stop - start))
        self._views = iter(range(start, stop, self._size)) if all(isinstance(c, HeldColumn) for c in columns) else None
        self._thread: threading.Thread | None = None
        if self._views is None:
            self._read_ahead(buffers, allocate)

    def _read_ahead(self, buffers: int, allocate: Callable[[tuple[int, ...], str], Array]) -> None:
        """Make the buffers and start the thread that fills them."""
        # last in, first out: a buffer just used is in the cache, and the None of `close` comes before all
        self._free: queue.LifoQueue[_Buffers | None] = queue.LifoQueue()
        self._full: queue.Queue[Block | BaseException | None] = queue.Queue()
        self._lent: dict[int, _Buffers] = {}
        for _ in range(buffers):
            self._free.put([allocate((self._size, *c.column.shape), c.column.dtype) for c in self._columns])
        self._thread = threading.Thread(target=self._fill, daemon=True)
        self._thread.start()

    def take(self) -> Block | None:
        """The next block, or None after the last one. Any number of threads may ask, each block comes once.

        Raises:
            StoreDamaged: a chunk is not what was written. Rows before its end may have been handed out.
        """
        if self._views is not None:
            return self._view(next(self._views, None))  # one step of a range's iterator is atomic
        item = self._full.get()
        if not isinstance(item, Block):
            self._full.put(item)  # for the next who asks
            if item is not None:
                raise item
            return None
        for column in self._columns:
            column.confirm(item.start, item.columns[column.column.name])
        return item

    def _view(self, first: int | None) -> Block | None:
        """A block of held columns, as it lies."""
        if first is None:
            return None
        stop = min(self._stop, first + self._size)
        held = (c for c in self._columns if isinstance(c, HeldColumn))
        return Block(first, {c.column.name: c.array[first:stop] for c in held})

    def give(self, block: Block) -> None:
        """Return a block: its arrays are about to be filled anew."""
        if self._views is not None:
            return
        self._free.put(self._lent.pop(block.start))

    def close(self) -> None:
        """Stop reading; whoever waits for a block gets None."""
        if self._thread is None:
            self._views = iter(range(0))
            return
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
                column.rest()


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
    """Rows `start` … `stop`-1 in blocks of `block_rows`, in order, read `ahead` blocks early.

    A block's arrays hold until the next one is asked for.

    Raises:
        DataError, StoreDamaged: see :class:`BlockStream`.
    """
    with BlockStream(columns, block_rows, ahead + 1, start, stop) as stream:
        while (block := stream.take()) is not None:
            yield block
            stream.give(block)
            del block
