"""Sparse solvers with a given number of nonzeros: iterative hard thresholding (iht), matching pursuit (ssmp).

`iht`: normalised iterative hard thresholding (Blumensath & Davies 2010), gradient steps along Mᵀ(y − b − Mw), keeping
the s largest weights, then least squares on the final support. `ssmp`: sequential sparse matching pursuit (Berinde & Indyk
2009), for expanders: at each step the weight whose change, by the median of its row's d residuals, lowers ‖y − b − Mw‖₁ most is
changed, and after every 2s changes all but the s largest weights are dropped. Both scan all N columns at every step. Knows
memberships; no store.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from ...store.layout import Array
from .lasso import Sparse
from .membership import Membership, correlated

_TILE = 8192
_STEPS = 100  # most steps of thresholding
_ROUNDS = 4  # rounds of pursuit


def thresholded(membership: Membership, y: Array, causes: int, workers: int = 1) -> tuple[list[Sparse], Array]:
    """Weights with at most `causes` non-zeros, and intercepts (Q,), by `iht`. y (Q, K) float64, NaN where missing."""
    results = [_thresholded(membership, line, causes, workers) for line in y]
    return [sparse for sparse, _ in results], np.array([intercept for _, intercept in results])


def pursued(membership: Membership, y: Array, causes: int) -> tuple[list[Sparse], Array]:
    """Weights with at most `causes` non-zeros, and intercepts (Q,), by `ssmp`."""
    results = [_pursued(membership, line, causes) for line in y]
    return [sparse for sparse, _ in results], np.array([intercept for _, intercept in results])


def _columns(membership: Membership, rows: Array, valid: Array) -> Array:
    """M's centred columns (valid measurements, rows)."""
    ids = membership.of(rows).astype(np.int64)
    whole = np.zeros((membership.subsets + 1, len(rows)))
    whole[ids.T, np.arange(len(rows))] = 1
    columns = whole[:-1][valid]
    centred: Array = columns - columns.mean(0)
    return centred


def _thresholded(membership: Membership, y: Array, causes: int, workers: int) -> tuple[Sparse, float]:
    valid = np.asarray(~np.isnan(y))
    centred = y[valid] - y[valid].mean()
    rows, weights = np.zeros(0, np.int64), np.zeros(0)
    causes = min(causes, membership.rows)
    for _ in range(_STEPS):
        residual = np.zeros((len(y), 1))
        residual[valid, 0] = centred - _columns(membership, rows, valid) @ weights
        best, _ = correlated(membership, residual, min(2 * causes, membership.rows), workers)
        support = np.union1d(rows, best[0][best[0] >= 0])
        columns = _columns(membership, support, valid)
        slope = columns.T @ residual[valid, 0]
        start = np.zeros(len(support))
        start[np.searchsorted(support, rows)] = weights
        along = slope if not len(rows) else np.where(np.isin(support, rows), slope, 0)
        along = along if len(rows) else np.where(_largest(slope, causes), slope, 0)
        length = float(((columns @ along) ** 2).sum())
        if length <= 1e-24 * max(float(centred @ centred), 1e-300):
            break
        moved = start + float(along @ along) / length * slope
        keep = _largest(moved, causes)
        if np.array_equal(support[keep], rows) and np.allclose(moved[keep], weights, rtol=1e-6):
            break
        rows, weights = support[keep], moved[keep]
    columns = _columns(membership, rows, valid)
    weights = np.linalg.lstsq(columns, centred, rcond=None)[0] if len(rows) else weights
    return _without_zeros(membership, rows, weights, y, valid)


def _pursued(membership: Membership, y: Array, causes: int) -> tuple[Sparse, float]:
    valid = np.asarray(~np.isnan(y))
    residual = np.zeros(len(y) + 1)
    residual[:-1][valid] = y[valid] - np.median(y[valid])
    is_valid = np.append(valid, False)  # K, the padding, is not
    weights: dict[int, float] = {}
    for _ in range(_ROUNDS):
        for _ in range(2 * causes):
            row, change = _best_change(membership, residual, is_valid)
            if row < 0:
                break
            weights[row] = weights.get(row, 0.0) + change
            _subtract(membership, row, change, residual, is_valid)
        for row in sorted(weights, key=lambda row: -abs(weights[row]))[causes:]:
            _subtract(membership, row, -weights.pop(row), residual, is_valid)
    rows = np.array(sorted(weights), np.int64)
    return _without_zeros(membership, rows, np.array([weights[row] for row in rows.tolist()]), y, valid)


def _best_change(membership: Membership, residual: Array, valid: Array) -> tuple[int, float]:
    """The row and weight change that reduce Σ|residual| most; row -1 if none does."""
    best, row, change = 1e-12 * float(np.abs(residual).sum()), -1, 0.0
    for start in range(0, membership.rows, _TILE):
        ids = membership.of(np.arange(start, min(start + _TILE, membership.rows)))
        at, gain, by = _gains(ids, residual, valid)
        if gain > best:
            best, row, change = gain, start + at, by
    return row, change


def _subtract(membership: Membership, row: int, change: float, residual: Array, valid: Array) -> None:
    ids = membership.of(np.array([row]))[0].astype(np.int64)
    residual[ids[valid[ids]]] -= change


def _largest(values: Array, count: int) -> Array:
    """(n,) bool: the `count` largest by magnitude, zeros excluded."""
    results = np.zeros(len(values), bool)
    results[np.argsort(-np.abs(values), kind="stable")[:count]] = True
    return np.asarray(results & (values != 0))


def _without_zeros(membership: Membership, rows: Array, weights: Array, y: Array, valid: Array) -> tuple[Sparse, float]:
    """Drop zero weights, and compute the intercept that makes the mean residual 0."""
    support = weights != 0
    rows, weights = rows[support], weights[support]
    ids = membership.of(rows).astype(np.int64)
    inside = (np.append(valid, False)[ids] * weights[:, None]).sum()
    return Sparse(rows, weights), float(y[valid].mean() - inside / valid.sum())


@njit(cache=True, nogil=True)
def _gains(ids: Array, residual: Array, valid: Array) -> tuple[int, float, float]:
    """The row of a tile whose best weight change reduces Σ|residual| most; the reduction; the change."""
    best, at, by = 0.0, 0, 0.0
    values = np.empty(ids.shape[1])
    for i in range(len(ids)):
        count, total = 0, 0.0
        for p in range(ids.shape[1]):
            if valid[ids[i, p]]:
                values[count] = residual[ids[i, p]]
                total += abs(values[count])
                count += 1
        if total <= best:
            continue
        middle = np.median(values[:count])
        left = 0.0
        for p in range(count):
            left += abs(values[p] - middle)
        if total - left > best:
            best, at, by = total - left, i, middle
    return at, best, by
