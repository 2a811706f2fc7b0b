"""The one loop over stored rows: blocks shared out among threads that each read their own.

Each worker has its own scratch memory and results, so that no locks are needed, and results are merged at the end. Two workers
of one thread each are faster than one product on two threads: neither waits for the other, and on a busy machine the slower one
processes fewer blocks. Knows columns and blocks; not what is computed from them.
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
from ...runtime.run import Stage

AHEAD = 2
"""Buffers besides one per worker: one is being filled, one waits full."""
BLOCK_BYTES = 2 << 20
"""Block size where the budget allows: small enough to stay in the L3 cache while it is checksummed and multiplied. One thread
read 11.5 GB/s from the page cache in requests of 1 MB, 8.6 in requests of 4 MB, 1.8 in requests of 32 MB (two cores with 32 MB of
shared cache; files just written; buffers of 32 MB were newly allocated).
"""
ROWS_MULTIPLE = 64
"""Block rows are a multiple of this where the budget allows."""
PROGRESS_SECONDS = 0.05
"""Minimum seconds between two progress reports of a worker."""


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class ScanShape:
    """Block size and number of workers of a scan."""

    block_rows: int
    """Rows per block."""
    workers: int
    """Computing threads."""

    @property
    def buffers(self) -> int:
        """Number of blocks that are in memory at one time."""
        return self.workers + AHEAD


class Worker(Protocol):
    """Processes the blocks of one thread."""

    def __call__(self, block: Block) -> None:
        """Process a block; its arrays are invalid after the call."""


W = TypeVar("W", bound=Worker)


def row_bytes(columns: Sequence[ColumnReader]) -> int:
    """Bytes of a row over all columns."""
    return max(1, sum(c.column.row_bytes for c in columns))


def blocks_bytes(columns: Sequence[ColumnReader], shape: ScanShape) -> int:
    """Memory of a scan's blocks."""
    return shape.buffers * min(shape.block_rows, max(1, columns[0].rows)) * row_bytes(columns)


def shapes(columns: Sequence[ColumnReader], workers: int) -> list[ScanShape]:
    """Candidate shapes of a scan, fastest first: blocks of `BLOCK_BYTES`, halved down to one row; of each
    size with all workers, then with one.
    """
    rows = max(1, BLOCK_BYTES // row_bytes(columns))
    rows = rows // ROWS_MULTIPLE * ROWS_MULTIPLE or rows
    candidates = []
    while rows:
        candidates += [ScanShape(rows, count) for count in sorted({workers, 1}, reverse=True)]
        rows //= 2
    return candidates


def scan(
    columns: Sequence[ColumnReader],
    shape: ScanShape,
    make_worker: Callable[[], W],
    stage: Stage,
    stop: int | None = None,
) -> list[W]:
    """Pass every row (before `stop`) to one of `shape.workers` workers, and return the workers. `stage` gets the number of
    processed rows.

    Raises:
        StoreDamaged: a chunk differs from its checksum. Exceptions of a worker are re-raised.
    """
    workers = [make_worker() for _ in range(shape.workers)]
    messages: queue.Queue[int | BaseException | None] = queue.Queue()
    source = _source(columns, shape, stop)
    threads = [threading.Thread(target=_work, args=(source, worker, messages), daemon=True) for worker in workers]
    for thread in threads:
        thread.start()
    try:
        _forward_progress(messages, len(threads), stage)
    finally:
        source.close()
        for thread in threads:
            thread.join()
    return workers


def _source(columns: Sequence[ColumnReader], shape: ScanShape, stop: int | None) -> SharedBlocks | BlockStream:
    """Blocks that each worker reads itself; or, for one worker or columns that only one thread may read, blocks read ahead."""
    in_memory = all(isinstance(column, CachedColumn) for column in columns)
    if in_memory or (shape.workers > 1 and all(column.shared for column in columns)):
        return SharedBlocks(columns, shape.block_rows, stop=stop)
    return BlockStream(columns, shape.block_rows, shape.buffers, stop=stop)


def _work(
    source: SharedBlocks | BlockStream, worker: Worker, messages: queue.Queue[int | BaseException | None]
) -> None:
    """Run one worker. It reports progress at most every `PROGRESS_SECONDS`, because each report wakes the main thread."""
    done, last_report = 0, time.monotonic()
    try:
        for block in source.blocks():
            worker(block)
            done += block.rows
            if time.monotonic() - last_report > PROGRESS_SECONDS:
                messages.put(done)
                done, last_report = 0, time.monotonic()
        messages.put(done)
        messages.put(None)
    except BaseException as error:
        messages.put(error)


def _forward_progress(messages: queue.Queue[int | BaseException | None], workers: int, stage: Stage) -> None:
    """Forward progress until all workers are done; re-raise the exception of a worker."""
    done = 0
    while workers:
        item = messages.get()
        if isinstance(item, BaseException):
            raise item
        if item is None:
            workers -= 1
        else:
            done += item
            stage.report(done)
