"""Certified search: an int8 scan whose answer is provably that of the finer column.

The int8 score s̃ of a row differs from the finer score by at most

    b = ‖q − q̃‖ ‖x̃‖ + ‖q‖ ‖x − x̃‖ + rounding                                              (Cauchy and Schwarz, twice)

with x̃ the int8 row, ‖x − x̃‖ stored beside it, and q̃ the integer query (all are rotated in the same way, which preserves
products and norms). The k-th largest s̃ − b is a floor: at least k rows score this or more, so a row with s̃ + b below it is
not among the best k. All other rows are scored again from the finer column. If they exceed the planned memory, the whole finer
column is scanned, with the same result. Knows columns, precisions and scorers.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from ....store.errors import StoreDamaged
from ....store.layout import Array, Block
from ...runtime.run import Stage
from ..kernels.heaps import Heaps, merged
from ..kernels.packing import PackedQueries, kernel_rows
from ..kernels.product import DEPTH, multiply
from ..precision.precisions import Int8
from ..precision.quantize import int8_queries
from ..precision.rotation import hadamard_rotation
from .scan_loop import ScanShape, scan
from .scorers import require_queries, scorer_of, tile_rows
from .top_k import tiles, top_k
from .two_stage import CompressedColumn, TwoStageResult, ranked, require_same_rows, rescored

CANDIDATES_PER_K = 64
"""Candidates that a worker can keep for a query, as a multiple of k."""
_UNIT = 2.0**-24  # unit roundoff of float32
_SLACK = 1.0 + 1e-5  # covers rounding of the bounds, which are computed in float32


def certified(column: CompressedColumn, matrix: Array, k: int, shape: ScanShape, stage: Stage) -> TwoStageResult:
    """The k best rows of the finer column, exactly; its copy must be int8.

    Raises:
        StoreDamaged: a chunk of the small column, or a gathered row of the finer column, differs from its checksum.
    """
    small, fine = column.small, column.fine
    require_same_rows(small, fine)
    precision, k = small.precisions[column.name], min(k, fine.rows)
    if not isinstance(precision, Int8):
        raise StoreDamaged(f"{small.group} is not stored as int8")
    require_queries(precision, matrix)
    bounds = _ScoreBounds(precision, matrix)
    columns = small.open(stored.name for stored in precision.columns)
    room = room_for(fine.rows, k)
    workers = scan(columns, shape, lambda: _BoundWorker(bounds, k, room), stage)
    floor = merged([worker.heaps for worker in workers])[0][:, -1]
    scorer = scorer_of(fine.precisions[column.name], matrix)
    rows = None if any(worker.full for worker in workers) else _candidates(workers, floor)
    # with many candidates, a scan is cheaper than reading single rows, because it reads in order
    if rows is None or 4 * len(np.unique(rows)) > fine.rows:
        return TwoStageResult(top_k(fine.scanned(column.name), scorer, k, shape, stage), True, 1.0)
    return TwoStageResult(ranked(rescored(column, scorer, rows), rows, k), True, 1.0)


def bound_worker_bytes(queries: int, k: int, rows: int) -> int:
    """Memory of one worker's candidates, their merging and its bounds, in bytes."""
    return 40 * queries * room_for(rows, k) + 8 * queries * tile_rows(queries)


def room_for(rows: int, k: int) -> int:
    """Capacity of one worker for candidates of a query."""
    return min(rows, max(CANDIDATES_PER_K * k, 1024))


def _candidates(workers: list[_BoundWorker], floor: Array) -> Array:
    """(Q, c) int64: each query's rows whose upper bound reaches its floor, padded with -1."""
    lists = [
        np.concatenate([_reaching(worker.candidates, q, floor[q]) for worker in workers]) for q in range(len(floor))
    ]
    candidates = np.full((len(lists), max(map(len, lists))), -1, np.int64)
    for line, rows in zip(candidates, lists, strict=True):
        line[: len(rows)] = rows
    return candidates


def _reaching(candidates: CandidateBuffer, query: int, floor: float) -> Array:
    """(c,) int64: a query's rows whose upper bound reaches its floor."""
    count = candidates.used[query]
    rows: Array = candidates.rows[query, :count][candidates.upper[query, :count] >= floor]
    return rows


class CandidateBuffer(NamedTuple):
    """Candidates of Q queries, with equal room for each."""

    rows: Array
    """(Q, room) int64."""
    upper: Array
    """(Q, room) float32: upper bounds of their scores."""
    used: Array
    """(Q,) int64: number of used slots."""


class RowErrors(NamedTuple):
    """Quantization errors of a tile's rows."""

    scale: Array
    """(n,) float32: scale of the integers."""
    error: Array
    """(n,) float32: upper bound of ‖x − x̃‖."""
    longest: np.float32
    """Upper bound of the norm of a row's integers."""


class QueryErrors(NamedTuple):
    """Quantization errors of queries, each (Q,) float32."""

    scale: Array
    """Scale of the integers."""
    of_row: Array
    """Error of a score for a row of norm 1."""
    of_error: Array
    """Error of a score for a row whose own error is 1."""


class _ScoreBounds:
    """Quantized queries and the error bounds of their scores."""

    def __init__(self, precision: Int8, matrix: Array) -> None:
        values, scale = int8_queries(matrix)
        self.name, self.packed, self.queries = precision.declared.name, PackedQueries(values, "int8"), len(matrix)
        exact = hadamard_rotation(precision.depth).apply(np.asarray(matrix, np.float64))
        norms = np.linalg.norm(exact, axis=1)
        lost = np.linalg.norm(exact - values * scale[:, None].astype(np.float64), axis=1)
        # a finer score is summed in parts of DEPTH numbers in eight lanes: this bounds the roundings of one term
        roundings = DEPTH // 8 + 8 + precision.depth // DEPTH + 4
        of_row = (lost + (roundings + 4) * _UNIT * norms).astype(np.float32) * np.float32(_SLACK)
        of_error = (norms * (1 + roundings * _UNIT)).astype(np.float32) * np.float32(_SLACK)
        self.errors, self.longest = QueryErrors(scale, of_row, of_error), np.float32(np.sqrt(precision.depth) * 127)


class _BoundWorker:
    """A worker that collects the k best lower bounds and the rows whose upper bound reaches them."""

    def __init__(self, bounds: _ScoreBounds, k: int, room: int) -> None:
        self._bounds, self.heaps, self.full = bounds, Heaps(bounds.queries, k), False
        rows, upper = np.empty((bounds.queries, room), np.int64), np.empty((bounds.queries, room), np.float32)
        self.candidates = CandidateBuffer(rows, upper, np.zeros(bounds.queries, np.int64))
        # floors rise after each tile, so a tile must be too small to fill the buffer
        self._tile = max(1, min(room // 2, tile_rows(bounds.queries)))
        self._sums = np.empty((bounds.queries, self._tile), np.int32)
        self._lower = np.empty((bounds.queries, self._tile), np.float32)
        self._upper = np.empty((bounds.queries, self._tile), np.float32)

    def __call__(self, block: Block) -> None:
        if self.full:
            return
        b, name = self._bounds, self._bounds.name
        for tile in tiles(block, self._tile):
            multiply(kernel_rows(tile.columns[name]), b.packed, self._sums)
            rows = RowErrors(tile.columns[f"{name}.scale"], tile.columns[f"{name}.error"], b.longest)
            _bound(self._sums, rows, b.errors, self._lower, self._upper)
            self.heaps.push(self._lower, tile.rows, tile.start)
            floors = self.heaps.scores[:, 0].copy()
            if _collect(self._upper, tile.rows, tile.start, floors, self.candidates):
                self.full = True
                return


@njit(cache=True, nogil=True)
def _bound(sums: Array, rows: RowErrors, queries: QueryErrors, lower: Array, upper: Array) -> None:
    """Lower and upper bounds (Q, n) of a tile's scores, from integer sums."""
    for q in range(len(queries.scale)):
        for i in range(len(rows.scale)):
            estimate = (np.float32(sums[q, i]) * rows.scale[i]) * queries.scale[q]
            slack = queries.of_row[q] * (rows.scale[i] * rows.longest) + queries.of_error[q] * rows.error[i]
            lower[q, i], upper[q, i] = estimate - slack, estimate + slack


@njit(cache=True, nogil=True)
def _collect(bounds: Array, n: int, start: int, floors: Array, candidates: CandidateBuffer) -> bool:
    """Add the rows whose upper bound reaches the current floor. Returns True if the buffer is full even after removing rows below
    the floor."""
    rows, upper, count = candidates.rows, candidates.upper, candidates.used
    room = rows.shape[1]
    for q in range(len(floors)):
        for i in range(n):
            if bounds[q, i] < floors[q]:
                continue
            if count[q] == room:
                remaining = 0
                for at in range(room):
                    if upper[q, at] >= floors[q]:
                        rows[q, remaining], upper[q, remaining] = rows[q, at], upper[q, at]
                        remaining += 1
                count[q] = remaining
                if remaining == room:
                    return True
            rows[q, count[q]], upper[q, count[q]] = start + i, bounds[q, i]
            count[q] += 1
    return False
