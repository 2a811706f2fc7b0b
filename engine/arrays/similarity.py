"""Blocked similarity: a streamed column against a matrix of queries, with a running top-k. No N × Q array is ever whole.

Scores are computed in tiles of a fixed number of rows, counted from row 0. A product's rounding depends on its shape, so with
the tile fixed, the answer does not depend on the block, which is only a unit of reading. Knows columns and blocks; no model,
no text, no method.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numba import njit

from ...store.blocks import read_blocks
from ...store.errors import DataError
from ...store.layout import Array, Block
from ...store.reader import ColumnReader
from ..memory import Plan, plan

TILE = 128
"""Rows scored at once: with wide rows their float32 copy stays near the second-level cache."""
AHEAD = 1
"""Blocks read while one is scored."""
BLOCK_BYTES = 64 << 20
"""Bytes of a block where the budget allows: the largest request that file systems reward."""

Score = Callable[[Block], Array]


@dataclass(frozen=True, slots=True)
class TopK:
    """The best rows of each query, best first; ties go to the lower row."""

    scores: Array
    """(Q, k) float32."""
    rows: Array
    """(Q, k) int64."""


class Dot:
    """Inner products of a column's rows with queries: tiles (rows, Q) float32, in float32 whatever the column's dtype."""

    def __init__(self, column: str, matrix: Array) -> None:
        """`matrix` is (Q, D)."""
        self.column = column
        self._matrix = torch.from_numpy(np.ascontiguousarray(matrix, np.float32))
        self._tile = torch.empty(TILE, matrix.shape[1])

    def __call__(self, block: Block) -> Array:
        """Scores of at most `TILE` rows."""
        rows = block.columns[self.column].reshape(block.rows, -1)
        tile = self._tile[: len(rows)]
        tile.copy_(torch.from_numpy(rows))  # torch converts float16 ten times faster than NumPy
        return (tile @ self._matrix.T).numpy()


def scan_plan(columns: Sequence[ColumnReader], queries: int, width: int, k: int, block_rows: int) -> Plan:
    """What a scan holds: blocks in flight, a tile in float32, its scores twice, the queries, the heaps."""
    row = sum(c.column.row_bytes for c in columns)
    block, k = min(block_rows, max(1, columns[0].rows)), min(k, columns[0].rows)
    return plan(
        [
            ("blocks in flight", (AHEAD + 1) * block * row),
            ("decoding", sum(c.scratch_bytes for c in columns)),
            ("tile", TILE * width * 4),
            ("scores of a tile", 2 * TILE * queries * 4),
            ("queries", 2 * queries * width * 4),
            ("results", queries * k * 12 * 3),
        ]
    )


def block_rows(columns: Sequence[ColumnReader], room: int | None) -> int:
    """Rows of a block, in whole tiles: as many as `BLOCK_BYTES` and the room left in the budget hold, one tile at least."""
    row = max(1, sum(c.column.row_bytes for c in columns))
    each = BLOCK_BYTES if room is None else min(BLOCK_BYTES, room // (AHEAD + 1))
    return max(1, each // row // TILE) * TILE


def tiles(columns: Sequence[ColumnReader], rows: int) -> Iterator[Block]:
    """The columns' rows in tiles, read in blocks of `rows` rows (a multiple of TILE)."""
    if rows % TILE:
        raise DataError(f"a block of {rows} rows is not a whole number of tiles of {TILE}")
    for block in read_blocks(columns, rows, ahead=AHEAD):
        for start in range(0, block.rows, TILE):
            yield block.part(start, min(block.rows, start + TILE))
        del block  # else it would live on while the next one is fetched


def top_k(
    columns: Sequence[ColumnReader], score: Score, queries: int, k: int, rows: int, tell: Callable[[int], None]
) -> TopK:
    """The k best rows for each query, in one pass. `tell` hears how many rows are done.

    Raises:
        StoreDamaged: a chunk differs from its checksum.
        DataError: a score is NaN.
    """
    k = min(k, columns[0].rows)
    best, where = np.full((queries, k), -np.inf, np.float32), np.full((queries, k), np.iinfo(np.int64).max, np.int64)
    for tile in tiles(columns, rows):
        scores = np.ascontiguousarray(score(tile), np.float32)
        if _push(scores, tile.start, best, where):
            raise DataError(f"a score between rows {tile.start} and {tile.start + tile.rows - 1} is not a number")
        tell(tile.start + tile.rows)
    order = np.lexsort((where, -best), axis=1) if k else np.zeros((queries, 0), np.int64)
    return TopK(np.take_along_axis(best, order, 1), np.take_along_axis(where, order, 1))


def all_scores(
    columns: Sequence[ColumnReader], score: Score, rows: int, tell: Callable[[int], None]
) -> Iterator[tuple[int, Array]]:
    """(first row, (rows, Q) float32 scores), tile after tile, in the order of rows."""
    for tile in tiles(columns, rows):
        yield tile.start, score(tile)
        tell(tile.start + tile.rows)


@njit(cache=True)
def _worse(s: float, r: int, t: float, u: int) -> bool:
    """Whether (score s, row r) ranks behind (t, u)."""
    return s < t or (s == t and r > u)


@njit(cache=True)
def _push(scores: Array, first: int, best: Array, where: Array) -> bool:
    """Offer a tile's scores (rows, Q) to the heaps (Q, k), whose root is the worst kept. True if a score is NaN.

    Nearly every score fails the first comparison, so the cost is one load and one compare a score.
    """
    count, queries = scores.shape
    k = best.shape[1]
    if k == 0:
        return False
    bad = False
    for i in range(count):
        for q in range(queries):
            s = scores[i, q]
            if not (s <= best[q, 0]):
                if s != s:
                    bad = True
                    continue
                _replace_root(best[q], where[q], s, first + i)
            elif s == best[q, 0] and first + i < where[q, 0]:
                _replace_root(best[q], where[q], s, first + i)
    return bad


@njit(cache=True)
def _replace_root(best: Array, where: Array, score: float, row: int) -> None:
    """Put (score, row) in the root's place and let it sink."""
    k, at = len(best), 0
    while True:
        child = 2 * at + 1
        if child >= k:
            break
        if child + 1 < k and _worse(best[child + 1], where[child + 1], best[child], where[child]):
            child += 1
        if not _worse(best[child], where[child], score, row):
            break
        best[at], where[at] = best[child], where[child]
        at = child
    best[at], where[at] = score, row
