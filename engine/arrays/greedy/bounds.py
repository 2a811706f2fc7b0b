"""Upper bounds of the gains of rows that are not in memory: exact along a few directions, bounded across them. Knows arrays
alone.

A gain is ⟨w, φ_j⟩ plus a term independent of w. For row j we store: its gain (key) for some earlier w_e, ⟨d, φ_j⟩ (along) for
each direction d, and the norm of the rest of φ_j (across) after the first directions, after more of them, and after all. The gain
for w is at most key + Σ_d ⟨d, w − w_e⟩·along + ‖rest of w − w_e‖·across (Cauchy–Schwarz), wherever the sum over d stops: most
rows are excluded after the first directions. With costs, all of these are divided by the row's cost.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numba import njit

from ....store.layout import Array

PAST = 512
"""Number of stored earlier vectors; when full, every other one is dropped."""
LEVELS = (16, 32, 64)
"""Numbers of directions after which the bound is tested; it is also tested after all of them."""
_SHARE = 1 << 16  # fewest rows for which starting a thread pays


class RowState(NamedTuple):
    """Stored state of every row, divided by its cost."""

    key: Array
    """(N,) float32: its gain for the earlier vector `since`."""
    first: Array
    """(N, F) float32: ⟨d, φ⟩ along the first directions, stored contiguously because most rows need no others."""
    others: Array
    """(N, K − F) float32: ⟨d, φ⟩ along the other directions."""
    across: Array
    """(N, L) float32: norm of the rest of φ after each level."""
    loose: Array
    """(N,) float32: by how much `key` may be too low."""
    since: Array
    """(N,) uint16: index of the earlier vector."""


class VectorShifts(NamedTuple):
    """Differences between a vector and each stored one."""

    along: Array
    """(past, K) float32."""
    aside: Array
    """(past, L) float32: norm of the rest after each level."""
    levels: Array
    """(L,) int64: numbers of directions."""


class BoundRequest(NamedTuple):
    """Criteria for the rows that are searched."""

    least: np.float32
    """Minimum gain."""
    slack: np.float32
    """Error bound of a gain for a row of norm 1."""
    eligible: Array
    """(N,) bool: rows that may be chosen."""
    pool_slot: Array
    """(N,) int32: pool slot of a row; -1 if outside the pool. Only rows outside are searched."""
    length: Array
    """(N,) float32: ‖φ‖ over the cost."""


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz", "arcp"})
def _dot(a: Array, b: Array) -> float:
    result = np.float32(0)
    for k in range(len(a)):
        result += a[k] * b[k]
    return float(result)


@njit(cache=True, nogil=True)
def _shift(row: int, state: RowState, shifts: VectorShifts, at: int) -> float:
    split = state.first.shape[1]
    first = _dot(state.first[row], shifts.along[at, :split])
    return float(first + _dot(state.others[row], shifts.along[at, split:]))


@njit(cache=True, nogil=True)
def _highest(rows: Array, state: RowState, shifts: VectorShifts, result: Array) -> None:
    """Write the upper bounds of these rows' gains to `result`."""
    for place in range(len(rows)):
        row = rows[place]
        at = state.since[row]
        grown = state.loose[row] + shifts.aside[at, -1] * state.across[row, -1]
        result[place] = state.key[row] + _shift(row, state, shifts, at) + grown


@njit(cache=True, nogil=True)
def _reaching(
    request: BoundRequest, part: Array, state: RowState, shifts: VectorShifts, result: Array
) -> tuple[int, int]:
    """Rows of [part[0], part[1]) whose bound reaches the minimum, into `result`; returns their number, and how many rows were
    tested beyond the first level."""
    levels = shifts.levels
    split, count, beyond = levels[0], 0, 0
    for row in range(part[0], part[1]):
        if not request.eligible[row] or request.pool_slot[row] >= 0:
            continue
        at = state.since[row]
        most = state.key[row] + state.loose[row] + request.slack * request.length[row]
        most += _dot(state.first[row], shifts.along[at, :split])
        for level in range(len(levels)):
            if level:
                start, stop = levels[level - 1], levels[level]
                most += _dot(state.others[row, start - split : stop - split], shifts.along[at, start:stop])
                beyond += level == 1
            if most + shifts.aside[at, level] * state.across[row, level] < request.least:
                break
        else:
            result[count] = row
            count += 1
    return count, beyond


@njit(cache=True, nogil=True)
def _thin(state: RowState, steps: VectorShifts) -> None:
    """Convert rows that refer to an odd vector to the vector before it, and renumber the even vectors."""
    for row in range(len(state.key)):
        at = state.since[row]
        if at % 2:
            state.key[row] -= _shift(row, state, steps, at)
            state.loose[row] += steps.aside[at, -1] * state.across[row, -1]
        state.since[row] = at // 2


def principal(features: Array, count: int) -> Array:
    """(D, count) float64: principal directions of rows (n, D) float64 about 0; zeros if a row is not finite."""
    if not np.isfinite(features).all():
        return np.zeros((features.shape[1], count))
    if len(features) >= features.shape[1]:
        _, vectors = np.linalg.eigh(features.T @ features)
        return np.ascontiguousarray(vectors[:, ::-1][:, :count])
    squares, mixed = np.linalg.eigh(features @ features.T)  # the smaller of the two
    result, _ = np.linalg.qr(features.T @ mixed[:, np.argsort(-squares)[:count]])
    return np.asarray(result)


class Bounds:
    """Upper bounds of every row's gain, for any vector."""

    def __init__(self, rows: int, directions: Array, workers: int) -> None:
        """directions (D, K) float64, orthonormal columns or zeros; no row has been added yet."""
        self._directions, self._thin = directions, directions.astype(np.float32)
        count = directions.shape[1]
        self._levels = np.array([*(level for level in LEVELS if level < count), count], np.int64)
        split, levels = int(self._levels[0]), len(self._levels)
        shapes = ((rows,), (rows, split), (rows, count - split), (rows, levels), (rows,))
        key, first, others, across, loose = (np.zeros(shape, np.float32) for shape in shapes)
        self._state = RowState(key, first, others, across, loose, np.zeros(rows, np.uint16))
        self._count, self._workers = 0, workers
        self.length = np.zeros(rows, np.float32)
        """(N,): ‖φ‖ over the cost."""
        self._past, self._squares = np.zeros((PAST, len(directions))), np.zeros(PAST)
        self._projected = np.zeros((PAST, count))

    def add(self, part: slice, tile: Array, keys: Array, cost: Array | None) -> None:
        """Store rows (n, D) float32, in any order, and their gains over the cost for the vector given to `restart`."""
        along, split = tile @ self._thin, self._state.first.shape[1]
        rest = tile - along @ self._thin.T  # subtracting squares instead would cancel
        over = np.ones(len(tile), np.float32) if cost is None else 1 / cost
        self.length[part] = np.sqrt(np.einsum("nd,nd->n", tile, tile)) * over
        square, level_part = np.einsum("nd,nd->n", rest, rest), along[:, :0]
        for level in reversed(range(len(self._levels))):
            square = square + np.einsum("nd,nd->n", level_part, level_part)
            self._state.across[part, level] = np.sqrt(square) * over
            level_part = along[:, self._levels[level - 1] : self._levels[level]]
        along *= over[:, None]
        self._state.first[part], self._state.others[part], self._state.key[part] = (
            along[:, :split],
            along[:, split:],
            keys,
        )

    def restart(self, w: Array, keys: Array | None = None) -> None:
        """Restart from vector w: all rows must be added again, unless `keys` (N,) gives the gains of added rows for w."""
        self._state.since[:], self._state.loose[:], self._count = 0, 0, 0
        if keys is not None:
            self._state.key[:] = keys
        self._remember(w)

    def note(self, rows: Array, keys: Array, w: Array) -> None:
        """Store the gains over the cost of some rows for this vector."""
        if not self._is_last(w):
            if self._count == PAST:
                self._forget_half()
            self._remember(w)
        self._state.key[rows], self._state.since[rows], self._state.loose[rows] = keys, self._count - 1, 0

    def certain(self, rows: Array, w: Array) -> Array:
        """(n,) bool: whether the row's exact gain for this vector is stored."""
        result: Array = (self._state.since[rows] == self._count - 1) & (self._state.loose[rows] == 0)
        return result & self._is_last(w)

    def highest(self, rows: Array, w: Array) -> Array:
        """(n,) float32: upper bounds of these rows' gains."""
        result = np.empty(len(rows), np.float32)
        _highest(rows, self._state, self._shifts(w), result)
        return result

    def reaching(self, request: BoundRequest, w: Array) -> tuple[Array, int]:
        """Rows (n,) int64, ascending, whose bound reaches the minimum; and how many needed more than the first directions."""
        shifts, count = self._shifts(w), len(self.length)
        workers = max(1, min(self._workers, count // _SHARE))
        ends = np.linspace(0, count, workers + 1).astype(np.int64)

        def result(at: int) -> tuple[Array, int]:
            rows = np.empty(ends[at + 1] - ends[at], np.int64)
            reached, beyond = _reaching(request, ends[at : at + 2], self._state, shifts, rows)
            return rows[:reached].copy(), beyond

        if workers == 1:
            return result(0)
        with ThreadPoolExecutor(workers) as threads:
            parts = list(threads.map(result, range(workers)))
        return np.concatenate([rows for rows, _ in parts]), sum(beyond for _, beyond in parts)

    @property
    def farthest(self) -> float:
        """The largest norm of the stored vectors."""
        return float(np.sqrt(self._squares[: self._count].max(initial=0)))

    def _shifts(self, w: Array) -> VectorShifts:
        """Differences between w and each stored vector."""
        past = self._past[: self._count]
        along = w @ self._directions - self._projected[: self._count]
        squares = w @ w - 2 * (past @ w) + self._squares[: self._count]
        return self._moved(along, squares)

    def _moved(self, along: Array, squares: Array) -> VectorShifts:
        """Shifts from the differences along each direction and the squared norms of the whole differences."""
        within = np.cumsum(along * along, axis=1)[:, self._levels - 1]
        aside = np.sqrt(np.maximum(squares[:, None] - within, 0))
        return VectorShifts(along.astype(np.float32), aside.astype(np.float32), self._levels)

    def _forget_half(self) -> None:
        """Drop every other vector, starting with the second; the possible growth of gains is added to the bounds."""
        moved = np.diff(self._projected, axis=0, prepend=self._projected[:1])
        steps = np.diff(self._past, axis=0, prepend=self._past[:1])
        _thin(self._state, self._moved(moved, np.einsum("ed,ed->e", steps, steps)))
        self._count = (self._count + 1) // 2
        for array in (self._past, self._projected, self._squares):
            array[: self._count] = array[::2].copy()

    def _remember(self, w: Array) -> None:
        at = self._count
        self._past[at], self._projected[at], self._squares[at] = w, w @ self._directions, w @ w
        self._count += 1

    def _is_last(self, w: Array) -> bool:
        return self._count > 0 and np.array_equal(self._past[self._count - 1], w)
