"""The one loop over stored rows: blocks shared out among threads that each read their own.

Each worker has scratch and results of its own, so that nothing is locked while it computes, and the results are merged once
at the end. Two workers of one thread beat one product of two threads: nobody waits at a barrier, and on a busy machine the
slower of the two simply takes fewer blocks. Knows columns and blocks; not what is computed from them.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from ....store.blocks import BlockStream, SharedBlocks
from ....store.cached import CachedColumn
from ....store.columns import ColumnReader
from ....store.layout import Block

AHEAD = 2
"""Buffers besides those that workers hold: one being filled, one full."""
BLOCK_BYTES = 2 << 20
"""Bytes of a block where the budget allows: read, summed and multiplied while they stay in the third-level cache. From the
page cache, one thread read 11.5 GB/s in requests of 1 MB, 8.6 of 4 MB and 1.8 of 32 MB (two cores, 32 MB of
shared cache; files just written, and the largest buffers touched for the first time).
"""
ROWS = 64
"""Rows of a block are a multiple of this where the budget allows."""
SILENCE = 0.05
"""Seconds that a worker says nothing of its progress."""

OnProgress = Callable[[int], None]


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class Shape:
    """How a scan is cut."""

    block_rows: int
    """Rows that are read at once."""
    workers: int
    """Threads that compute."""

    @property
    def buffers(self) -> int:
        """Blocks in memory."""
        return self.workers + AHEAD


class Worker(Protocol):
    """What one thread does with its blocks."""

    def __call__(self, block: Block) -> None:
        """Use a block; its arrays are gone afterwards."""


W = TypeVar("W", bound=Worker)


def row_bytes(columns: Sequence[ColumnReader]) -> int:
    """Bytes of a row over all columns."""
    return max(1, sum(c.column.row_bytes for c in columns))


def blocks_bytes(columns: Sequence[ColumnReader], shape: Shape) -> int:
    """Memory of a scan's blocks."""
    return shape.buffers * min(shape.block_rows, max(1, columns[0].rows)) * row_bytes(columns)


def shapes(columns: Sequence[ColumnReader], workers: int) -> list[Shape]:
    """The ways to cut a scan, the fastest first: blocks of `BLOCK_BYTES`, halved down to a row; all workers, then one."""
    rows = max(1, BLOCK_BYTES // row_bytes(columns))
    rows = rows // ROWS * ROWS or rows
    found = []
    while rows:
        found += [Shape(rows, count) for count in sorted({workers, 1}, reverse=True)]
        rows //= 2
    return found


def scan(
    columns: Sequence[ColumnReader],
    shape: Shape,
    make: Callable[[], W],
    on_progress: OnProgress,
    stop: int | None = None,
) -> list[W]:
    """Show every row (before `stop`) to one of `shape.workers` workers; those are returned. `on_progress` gets how many
    are done.

    Raises:
        StoreDamaged: a chunk differs from its checksum. Whatever a worker raises.
    """
    workers = [make() for _ in range(shape.workers)]
    heard: queue.Queue[int | BaseException | None] = queue.Queue()
    source = _source(columns, shape, stop)
    threads = [threading.Thread(target=_work, args=(source, worker, heard), daemon=True) for worker in workers]
    for thread in threads:
        thread.start()
    try:
        _listen(heard, len(threads), on_progress)
    finally:
        source.close()
        for thread in threads:
            thread.join()
    return workers


def _source(columns: Sequence[ColumnReader], shape: Shape, stop: int | None) -> SharedBlocks | BlockStream:
    """Blocks that workers read themselves; for a single worker, and where only one thread may read, blocks read ahead."""
    held = all(isinstance(column, CachedColumn) for column in columns)
    if held or (shape.workers > 1 and all(column.shared for column in columns)):
        return SharedBlocks(columns, shape.block_rows, stop=stop)
    return BlockStream(columns, shape.block_rows, shape.buffers, stop=stop)


def _work(source: SharedBlocks | BlockStream, worker: Worker, heard: queue.Queue[int | BaseException | None]) -> None:
    """One worker's thread. It speaks now and then: each word wakes a thread, for which it waits."""
    done, spoke = 0, time.monotonic()
    try:
        for block in source.blocks():
            worker(block)
            done += block.rows
            if time.monotonic() - spoke > SILENCE:
                heard.put(done)
                done, spoke = 0, time.monotonic()
        heard.put(done)
        heard.put(None)
    except BaseException as error:
        heard.put(error)


def _listen(heard: queue.Queue[int | BaseException | None], workers: int, on_progress: OnProgress) -> None:
    """Pass on what the workers say, until all are done or one has failed."""
    done = 0
    while workers:
        item = heard.get()
        if isinstance(item, BaseException):
            raise item
        if item is None:
            workers -= 1
        else:
            done += item
            on_progress(done)
