"""The LASSO over a streamed binary design, for many responses, to a duality gap: min_w,b ½‖y − b − Mw‖² + λ‖w‖₁.

The intercept is not penalised: y and M's columns are centred over the valid measurements, which does not change
correlations with a centred residual. A working set of rows is solved by coordinate descent; then a pass over all N columns adds
those whose correlation with the residual exceeds λ, until the duality gap of the full problem is small (as Massias, Gramfort &
Salmon 2018, but without their extrapolation, which is not needed). Knows memberships; no store, no method.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numba import njit

from ...store.errors import DataError
from ...store.layout import Array
from .gpu_pass import DevicePass
from .membership import Membership, correlated

_JOIN = 64  # minimum cap on rows added to a working set per pass
_PASSES = 60
_EPOCHS = 20_000  # of coordinate descent on one working set


@dataclass(frozen=True, slots=True)
class Sparse:
    """Sparse weights of one query."""

    rows: Array
    """(s,) int64, ascending: rows with non-zero weight."""
    weights: Array
    """(s,) float64, signed."""


@dataclass(slots=True)
class LassoFit:
    """Solutions for Q queries."""

    weights: list[Sparse]
    intercept: Array
    """(Q,) float64."""
    objective: Array
    """(Q,) float64: ½‖y − b − Mw‖² + λ‖w‖₁."""
    gap: Array
    """(Q,) float64: duality gap over ½‖y − ȳ‖², an upper bound of the relative error; 0 if ½‖y − ȳ‖² is 0."""
    passes: int
    """Number of passes over all rows."""
    residual: Array = field(repr=False)
    """(K, Q) float64, zero at missing measurements."""


class WorkingSet(NamedTuple):
    """Centred columns of M that a solver works on."""

    ids: Array
    """(m, d): subset ids; K for subsets with missing measurements."""
    counts: Array
    """(m,) float64: number of subsets with valid measurements."""
    square: Array
    """(m,) float64: ‖centred column‖²."""


class LassoProblem(NamedTuple):
    """The LASSO of one query on a working set."""

    columns: WorkingSet
    y: Array
    """(K + 1,) float64: measurements, NaN where one is missing; the last entry is for padding and NaN."""
    penalty: float
    """λ."""


@njit(cache=True, nogil=True)
def _correlation(columns: WorkingSet, j: int, residual: Array, offset: float) -> float:
    """⟨column j, residual + offset⟩."""
    total = columns.counts[j] * offset
    for p in range(columns.ids.shape[1]):
        total += residual[columns.ids[j, p]]
    return float(total)


@njit(cache=True, nogil=True)
def _gap(problem: LassoProblem, residual: Array, offset: float, weights: Array) -> float:
    """Duality gap of the working set's problem."""
    columns, y, penalty = problem.columns, problem.y, problem.penalty
    top, norm, square, inner = penalty, 0.0, 0.0, 0.0
    for j in range(len(weights)):
        norm += abs(weights[j])
        top = max(top, abs(_correlation(columns, j, residual, offset)))
    for k in range(len(y) - 1):
        if y[k] == y[k]:
            solution = residual[k] + offset
            square += solution * solution
            inner += solution * y[k]
    scale = penalty / top
    return float(0.5 * square + penalty * norm - scale * inner + 0.5 * scale * scale * square)


@njit(cache=True, nogil=True)
def _descend(problem: LassoProblem, residual: Array, weights: Array, tolerance: float, epochs: int) -> float:
    """Coordinate descent on `weights` and `residual` (K + 1; its last is 0) in place, until the gap is small; returns the gap.

    Centring a column by its mean is an offset on the whole residual.
    """
    columns, y, penalty = problem.columns, problem.y, problem.penalty
    valid = 0.0
    for k in range(len(y) - 1):
        valid += y[k] == y[k]
    offset, gap = 0.0, np.inf
    for epoch in range(epochs):
        for j in range(len(weights)):
            if columns.square[j] <= 0:
                continue
            z = weights[j] * columns.square[j] + _correlation(columns, j, residual, offset)
            new = max(abs(z) - penalty, 0.0) / columns.square[j]
            step = (new if z > 0 else -new) - weights[j]
            if step != 0:
                weights[j] += step
                offset += step * columns.counts[j] / valid
                for p in range(columns.ids.shape[1]):
                    residual[columns.ids[j, p]] -= step
                residual[-1] = 0
        if epoch % 8 == 7 or epoch + 1 == epochs:
            gap = _gap(problem, residual, offset, weights)
            if gap <= tolerance:
                break
    for k in range(len(y) - 1):
        residual[k] = residual[k] + offset if y[k] == y[k] else 0.0
    return gap


class Lasso:
    """LASSO solver for fixed measurements at successive penalties, warm-started from the previous solution."""

    def __init__(self, membership: Membership, y: Array, workers: int = 1, device: DevicePass | None = None) -> None:
        """y (Q, K) float64: a column that is NaN for every query is a missing measurement. Passes
        over all rows run on the workers or the device.

        Raises:
            DataError: the number of measurements is not K, fewer than two are valid, or some are not finite.
        """
        self.valid = require_solvable(membership, y)
        self._of, self._workers, self._device = membership, workers, device
        measured = np.asarray(y[:, self.valid], np.float64)
        self._mean = measured.mean(1)
        centred = measured - self._mean[:, None]
        centred -= centred.mean(1, keepdims=True)  # remove the rounding error of the first mean
        spread = np.sqrt((centred**2).mean(1))
        flat = spread <= 8 * np.finfo(np.float64).eps * np.abs(measured).max(1, initial=0)
        self._spread = np.where(flat, 1.0, spread)  # the solver works on standardised measurements
        self._y = np.full((len(y), y.shape[1] + 1), np.nan)
        self._y[:, :-1][:, self.valid] = np.where(flat[:, None], 0, centred / self._spread[:, None])
        self._scale = np.where(flat, 1.0, 0.5 * np.nansum(self._y**2, 1))
        self._rows = [np.zeros(0, np.int64) for _ in y]
        self._weights = [np.zeros(0) for _ in y]
        self._residual = np.nan_to_num(self._y)
        rows, size = self._passed(1)
        self._largest = np.array([self._top(q, rows[q], size[q]) for q in range(len(y))]) * self._spread

    def largest(self) -> Array:
        """(Q,) float64: λ_max, the smallest penalty at which every weight is zero; 0 if a query's measurements are equal."""
        return self._largest.copy()

    def fit(self, penalties: Array, tolerance: float = 1e-4) -> LassoFit:
        """Solve at penalties (Q,) ≥ 0 to a gap of `tolerance` times ½‖y − ȳ‖²; if the pass limit is reached, `gap` exceeds it."""
        penalties = np.maximum(np.asarray(penalties, np.float64) / self._spread, 1e-12)
        queries, passes = len(self._y), 0
        gap = np.full(queries, np.inf)
        join = np.full(queries, _JOIN)
        while True:
            rows, size = self._passed(int(join.max(initial=1)))
            passes += 1
            for q in range(queries):
                gap[q] = self._whole_gap(q, penalties[q], self._top(q, rows[q], size[q]))
            unsure = np.flatnonzero(gap > tolerance)
            if not len(unsure) or passes == _PASSES:
                return self._result(penalties, gap, passes)
            for q in unsure.tolist():
                new = rows[q, : join[q]][size[q, : join[q]] > penalties[q]]
                new = np.setdiff1d(new[new >= 0], self._rows[q])
                self._solve(q, new, float(penalties[q]), min(gap[q], 1) * self._scale[q], tolerance * self._scale[q])
                join[q] = max(_JOIN, 2 * int((self._weights[q] != 0).sum()))

    def _passed(self, most: int) -> tuple[Array, Array]:
        residual, most = self._residual[:, :-1].T, min(most, self._of.rows)
        return (
            self._device.best(residual, most) if self._device else correlated(self._of, residual, most, self._workers)
        )

    def _top(self, q: int, rows: Array, size: Array) -> float:
        """max |Mᵀ residual|, or a slightly larger bound: float64 for the best rows, float32 plus its error for others."""
        ids = self._of.of(rows[rows >= 0]).astype(np.int64)
        exact = float(np.abs(np.append(self._residual[q, :-1], 0.0)[ids].sum(1)).max(initial=0))
        if int((rows >= 0).sum()) >= self._of.rows:
            return exact
        degree = int(ids.shape[1])
        rounding = (degree + 2) * 2.0**-24 * degree * float(np.abs(self._residual[q, :-1]).max(initial=0))
        return max(exact, float(size[-1]) + rounding)

    def _whole_gap(self, q: int, penalty: float, top: float) -> float:
        residual = self._residual[q, :-1]
        square, scale = float(residual @ residual), min(1.0, penalty / max(top, 1e-300))
        inner = float(residual @ np.nan_to_num(self._y[q, :-1]))
        primal = 0.5 * square + penalty * float(np.abs(self._weights[q]).sum())
        return float((primal - scale * inner + 0.5 * scale * scale * square) / self._scale[q])

    def _solve(self, q: int, new: Array, penalty: float, gap: float, target_gap: float) -> None:
        """Run coordinate descent on the working set plus `new`, to a gap of max(0.3 · target, 0.01 · current gap)."""
        support = self._weights[q] != 0
        rows = np.concatenate([self._rows[q][support], new])
        weights = np.concatenate([self._weights[q][support], np.zeros(len(new))])
        problem = LassoProblem(self._columns(rows), self._y[q], penalty)
        _descend(problem, self._residual[q], weights, max(0.3 * target_gap, 1e-2 * gap), _EPOCHS)
        self._rows[q], self._weights[q] = rows, weights

    def _columns(self, rows: Array) -> WorkingSet:
        ids = self._of.of(rows).astype(np.int64)
        counts = np.append(self.valid, False)[ids]
        ids = np.where(counts, ids, self._of.subsets)
        count = counts.sum(1).astype(np.float64)
        return WorkingSet(ids, count, count - count**2 / self.valid.sum())

    def _result(self, penalties: Array, gap: Array, passes: int) -> LassoFit:
        solutions, intercept, objective = [], self._mean.copy(), np.empty(len(self._y))
        for q in range(len(self._y)):
            order = np.argsort(self._rows[q])
            order = order[self._weights[q][order] != 0]
            solutions.append(Sparse(self._rows[q][order], self._weights[q][order]))
            columns = self._columns(solutions[-1].rows)
            residual, spread = self._residual[q, :-1], self._spread[q]
            objective[q] = 0.5 * float(residual @ residual) + penalties[q] * float(np.abs(solutions[-1].weights).sum())
            objective[q] *= spread**2
            solutions[-1].weights[:] *= spread
            intercept[q] -= float(columns.counts @ solutions[-1].weights) / self.valid.sum()
        return LassoFit(
            solutions, intercept, objective, gap, passes, (self._residual[:, :-1] * self._spread[:, None]).T
        )


def require_solvable(membership: Membership, y: Array) -> Array:
    """(K,) bool: the valid measurements. Raises DataError if the problem cannot be solved from them."""
    if y.ndim != 2 or y.shape[1] != membership.subsets:
        raise DataError(f"measurements must have shape (Q, {membership.subsets}); got {y.shape}")
    valid = np.asarray(~np.isnan(y).all(0))
    if not membership.rows:
        raise DataError("there are no examples to solve for")
    if valid.sum() < 2:
        raise DataError(f"{valid.sum()} valid measurements; at least two are needed")
    bad = np.argwhere(~np.isfinite(np.where(valid, y, 0)))
    if len(bad):
        query, subset = bad[0].tolist()
        raise DataError(f"subset {subset}: the measurement of query {query} is not finite")
    return valid


def predicted(membership: Membership, weights: Sequence[Sparse], intercept: Array) -> Array:
    """b + Mw: (Q, K) float64."""
    solutions = np.zeros((len(weights), membership.subsets + 1))
    for line, solution in zip(solutions, weights, strict=True):
        np.add.at(line, membership.of(solution.rows).astype(np.int64), solution.weights[:, None])
    return solutions[:, :-1] + intercept[:, None]
