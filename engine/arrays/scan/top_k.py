"""Search for the best k: rows are streamed, and only the best k of each query are kept, never an N × Q array.

A score depends on its row and its query alone, to the last bit, and of equal scores the smaller row number ranks first; so a
result depends neither on the budget nor on blocks, tiles, workers, or the other queries. Knows columns, blocks and scorers; no
method.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ....store.blocks import BlockStream
from ....store.columns import ColumnReader
from ....store.errors import DataError
from ....store.layout import Array, Block
from ...runtime.memory import Part, Plan
from ...runtime.run import Stage
from ..kernels.heaps import Heaps, heap_bytes, merged
from .scan_loop import ScanShape, blocks_bytes, scan
from .scorers import Scorer


@dataclass(frozen=True, slots=True)
class TopK:
    """The best rows of each query, best first; of equal scores the smaller row number first."""

    scores: Array
    """(Q, k) float32."""
    rows: Array
    """(Q, k) int64."""


class TopKWorker:
    """A worker that collects the best rows of its blocks."""

    def __init__(self, scorer: Scorer, k: int) -> None:
        """`scorer` may be shared by workers."""
        self._scorer, self.heaps = scorer, Heaps(scorer.queries, k)
        self._scores = np.empty((scorer.queries, scorer.tile_rows), np.float32)

    def __call__(self, block: Block) -> None:
        """Score a block's rows. Raises DataError for a score that is NaN."""
        for tile in tiles(block, self._scorer.tile_rows):
            self._scorer.score(tile, self._scores)
            if self.heaps.push(self._scores, tile.rows, tile.start):
                raise DataError(
                    f"the score of one of the rows {tile.start} to {tile.start + tile.rows - 1} is not a number"
                )


def tiles(block: Block, rows: int) -> Iterator[Block]:
    """Split a block into parts of at most `rows` rows."""
    for start in range(0, block.rows, rows):
        yield block.part(start, min(block.rows, start + rows))


def top_k(columns: Sequence[ColumnReader], scorer: Scorer, k: int, shape: ScanShape, stage: Stage) -> TopK:
    """The k best rows for each query, in one pass. `stage` gets the number of processed rows.

    Raises:
        StoreDamaged: a chunk differs from its checksum.
        DataError: a score is NaN.
    """
    k = min(k, columns[0].rows)
    workers = scan(columns, shape, lambda: TopKWorker(scorer, k), stage)
    return TopK(*merged([worker.heaps for worker in workers]))


def all_scores(
    columns: Sequence[ColumnReader], scorer: Scorer, shape: ScanShape, stage: Stage
) -> Iterator[tuple[int, Array]]:
    """(first row, (rows, Q) float32 scores), for each tile, in row order. An array is valid until the next iteration."""
    scores = np.empty((scorer.queries, scorer.tile_rows), np.float32)
    with BlockStream(columns, shape.block_rows, shape.buffers) as stream:
        while (block := stream.take()) is not None:
            for tile in tiles(block, scorer.tile_rows):
                scorer.score(tile, scores)
                yield tile.start, scores[:, : tile.rows].T
            stage.report(block.start + block.rows)
            stream.give(block)


def scan_parts(columns: Sequence[ColumnReader], queries: int, k: int, shape: ScanShape, tile: int) -> Plan:
    """Memory of a scan in tiles of `tile` rows: blocks, scores, heaps and their merging. A precision adds its own memory."""
    rows = columns[0].rows
    return Plan.of(
        Part("blocks in flight", blocks_bytes(columns, shape)),
        Part("decoding", sum(c.scratch_bytes for c in columns)),
        Part("scores of a tile", shape.workers * queries * tile * 4),
        Part("results", (shape.workers * 4 + 2) * heap_bytes(queries, min(k, rows))),
    )
