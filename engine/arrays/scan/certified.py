"""Certified search: an int8 scan whose answer is provably that of the finer column.

The scan's score s̃ of a row is off the finer one by at most

    b = ‖q − q̃‖ ‖x̃‖ + ‖q‖ ‖x − x̃‖ + rounding                                              (Cauchy and Schwarz, twice)

with x̃ the int8 row, ‖x − x̃‖ stored beside it, and q̃ the integer query (all turned alike, which keeps products and norms).
The k-th largest s̃ − b is a floor that k rows reach for sure; a row with s̃ + b below it is not among the best k. The others
are scored again from the finer column. Where they are too many for the room that was promised, the finer column is scanned
whole, which answers the same. Knows columns, forms, scorers.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from ....store.errors import StoreDamaged
from ....store.layout import Array, Block
from ..kernels.heaps import Heaps, merged
from ..kernels.product import DEPTH, PackedQueries, multiply, words
from ..precision.precisions import Int8
from ..precision.quantize import int8_queries
from ..precision.rotation import turn
from .scan_loop import OnProgress, Shape, scan
from .scorers import require_queries, scorer_of, tile_rows
from .stored_rows import StoredRows
from .top_k import tiles, top_k
from .two_stage import TwoStageResult, ranked, require_alike, rescored

ROOM = 64
"""Candidates of a query that are kept, in multiples of k."""
_UNIT = 2.0**-24  # of float32's rounding
_SLACK = 1.0 + 1e-5  # of bounds that are themselves computed in float32


def certified(
    small: StoredRows, fine: StoredRows, column: str, matrix: Array, k: int, shape: Shape, on_progress: OnProgress
) -> TwoStageResult:
    """The k best rows of the finer column, exactly; `small` is an int8 form of it.

    Raises:
        StoreDamaged: a chunk of the small form, or a gathered row of the finer column, is not what was written.
    """
    require_alike(small, fine)
    form, k = small.forms[column], min(k, fine.rows)
    if not isinstance(form, Int8):
        raise StoreDamaged(f"{small.group} is not stored as int8")
    require_queries(form, matrix)
    bounds = _ScoreBounds(form, matrix)
    columns = small.open(stored.name for stored in form.columns)
    room = room_for(fine.rows, k)
    workers = scan(columns, shape, lambda: _BoundKeeper(bounds, k, room), on_progress)
    floor = merged([worker.heaps for worker in workers])[0][:, -1]
    scorer = scorer_of(fine.forms[column], matrix)
    if any(worker.full for worker in workers):
        return TwoStageResult(top_k(fine.scanned(column), scorer, k, shape, on_progress), True, 1.0)
    rows = _candidates(workers, floor)
    if 4 * len(np.unique(rows)) > fine.rows:  # a scan reads no more than gathering would, and in order
        return TwoStageResult(top_k(fine.scanned(column), scorer, k, shape, on_progress), True, 1.0)
    return TwoStageResult(ranked(rescored(small, fine, column, scorer, rows), rows, k), True, 1.0)


def keeper_bytes(queries: int, k: int, rows: int) -> int:
    """Memory of one worker's candidates, of their merging, and of its bounds."""
    return 40 * queries * room_for(rows, k) + 8 * queries * tile_rows(queries)


def room_for(rows: int, k: int) -> int:
    """Candidates of a query that one worker keeps."""
    return min(rows, max(ROOM * k, 1024))


def _candidates(workers: list[_BoundKeeper], floor: Array) -> Array:
    """(Q, c) int64: every query's rows that may reach its floor; -1 fills up."""
    lists = [
        np.concatenate([worker.rows[q, : worker.count[q]][worker.upper[q, : worker.count[q]] >= floor[q]]
                        for worker in workers])
        for q in range(len(floor))
    ]  # fmt: skip
    found = np.full((len(lists), max(map(len, lists))), -1, np.int64)
    for line, rows in zip(found, lists, strict=True):
        line[: len(rows)] = rows
    return found


class RowErrors(NamedTuple):
    """What a tile's rows lost."""

    scale: Array
    """(n,) float32: of the integers."""
    error: Array
    """(n,) float32: ‖x − x̃‖ at most."""
    longest: np.float32
    """The norm of integers at most."""


class QueryErrors(NamedTuple):
    """What queries lost, (Q,) float32."""

    scale: Array
    """Of the integers."""
    of_row: Array
    """Error of a score for a row of norm 1."""
    of_error: Array
    """Error of a score for a row whose own error is 1."""


class _ScoreBounds:
    """Queries as integers, and what is known of their scores' errors."""

    def __init__(self, form: Int8, matrix: Array) -> None:
        values, scale = int8_queries(matrix)
        self.name, self.packed, self.queries = form.declared.name, PackedQueries(values, "int8"), len(matrix)
        exact = turn(form.depth).apply(np.asarray(matrix, np.float64))
        norms = np.linalg.norm(exact, axis=1)
        lost = np.linalg.norm(exact - values * scale[:, None].astype(np.float64), axis=1)
        # a finer score is a sum of DEPTH-long parts, each of eight lanes: no number is rounded more often than this
        roundings = DEPTH // 8 + 8 + form.depth // DEPTH + 4
        of_row = (lost + (roundings + 4) * _UNIT * norms).astype(np.float32) * np.float32(_SLACK)
        of_error = (norms * (1 + roundings * _UNIT)).astype(np.float32) * np.float32(_SLACK)
        self.errors, self.longest = QueryErrors(scale, of_row, of_error), np.float32(np.sqrt(form.depth) * 127)


class _BoundKeeper:
    """A worker that keeps the k best lower bounds, and the rows whose upper bound may reach them."""

    def __init__(self, bounds: _ScoreBounds, k: int, room: int) -> None:
        self._bounds, self.heaps, self.full = bounds, Heaps(bounds.queries, k), False
        self.rows = np.empty((bounds.queries, room), np.int64)
        self.upper = np.empty((bounds.queries, room), np.float32)
        self.count = np.zeros(bounds.queries, np.int64)
        self._tile = max(
            1, min(room // 2, tile_rows(bounds.queries))
        )  # a tile must not fill the room before floors rise
        self._sums = np.empty((bounds.queries, self._tile), np.int32)
        self._lower = np.empty((bounds.queries, self._tile), np.float32)
        self._upper = np.empty((bounds.queries, self._tile), np.float32)

    def __call__(self, block: Block) -> None:
        if self.full:
            return
        b, name = self._bounds, self._bounds.name
        for tile in tiles(block, self._tile):
            multiply(words(tile.columns[name]), b.packed, self._sums)
            rows = RowErrors(tile.columns[f"{name}.scale"], tile.columns[f"{name}.error"], b.longest)
            _bound(self._sums, rows, b.errors, self._lower, self._upper)
            self.heaps.push(self._lower, tile.rows, tile.start)
            floors = self.heaps.scores[:, 0].copy()
            if _collect(self._upper, tile.rows, tile.start, floors, self.rows, self.upper, self.count):
                self.full = True
                return


@njit(cache=True, nogil=True)
def _bound(sums: Array, rows: RowErrors, queries: QueryErrors, lower: Array, upper: Array) -> None:
    """Bounds of a tile's scores: (Q, n) from integer sums."""
    for q in range(len(queries.scale)):
        for i in range(len(rows.scale)):
            estimate = (np.float32(sums[q, i]) * rows.scale[i]) * queries.scale[q]
            slack = queries.of_row[q] * (rows.scale[i] * rows.longest) + queries.of_error[q] * rows.error[i]
            lower[q, i], upper[q, i] = estimate - slack, estimate + slack


@njit(cache=True, nogil=True)
def _collect(bounds: Array, n: int, start: int, floors: Array, rows: Array, upper: Array, count: Array) -> bool:
    """Add the rows whose upper bound reaches the floor so far. True if they found no room, even after those below it left."""
    room = rows.shape[1]
    for q in range(len(floors)):
        for i in range(n):
            if bounds[q, i] < floors[q]:
                continue
            if count[q] == room:
                kept = 0
                for at in range(room):
                    if upper[q, at] >= floors[q]:
                        rows[q, kept], upper[q, kept] = rows[q, at], upper[q, at]
                        kept += 1
                count[q] = kept
                if kept == room:
                    return True
            rows[q, count[q]], upper[q, count[q]] = start + i, bounds[q, i]
            count[q] += 1
    return False
