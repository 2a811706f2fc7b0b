"""Ridge regression over a binary design, for responses with many contributing examples: min_w,b ½‖y − b − Mw‖² + (α/2)‖w‖².

Solved in the dual: w = M_cᵀ z with (M_c M_cᵀ + α1) z = y − ȳ, which needs one K × K matrix, computed in one pass.
Knows memberships; no store, no method.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from ...store.layout import Array
from .membership import Membership

_TILE = 8192


def overlaps(membership: Membership) -> Array:
    """M Mᵀ: (K, K) float64, number of examples shared by two subsets. One pass over all N rows."""
    result = np.zeros((membership.subsets + 1, membership.subsets + 1))
    for start in range(0, membership.rows, _TILE):
        rows = np.arange(start, min(start + _TILE, membership.rows))
        _count(membership.of(rows), result)
    shared: Array = result[:-1, :-1]
    return shared


@njit(cache=True, nogil=True)
def _count(ids: Array, result: Array) -> None:
    for i in range(len(ids)):
        for p in range(ids.shape[1]):
            for other in range(ids.shape[1]):
                result[ids[i, p], ids[i, other]] += 1


class Ridge:
    """Ridge solver for fixed measurements at several strengths."""

    def __init__(self, shared: Array, y: Array) -> None:
        """`shared`: M Mᵀ (K, K). `y`: (Q, K) float64, NaN where a measurement is missing, the same ones for all queries."""
        self._valid = np.asarray(~np.isnan(y).all(0))
        valid_ids = np.flatnonzero(self._valid)
        means = shared[:, valid_ids].mean(1, keepdims=True)
        self._all = shared[:, valid_ids] - means  # all subsets against the centred valid ones
        inner = self._all[valid_ids] - self._all[valid_ids].mean(0, keepdims=True)
        self._values, self._vectors = np.linalg.eigh(inner)
        self._mean = y[:, valid_ids].mean(1)
        self._rotated = (y[:, valid_ids] - self._mean[:, None]) @ self._vectors
        self._valid_ids = valid_ids

    @property
    def scale(self) -> float:
        """The mean eigenvalue; strengths are relative to it."""
        return float(self._values.mean())

    def duals(self, strength: float) -> Array:
        """z (K, Q) at α = strength · scale, zero where a measurement is missing; weights are Mᵀz."""
        result = np.zeros((len(self._valid), len(self._mean)))
        result[self._valid_ids] = self._solved(strength).T
        return result

    def predicted(self, strength: float) -> Array:
        """b + Mw: (Q, K) float64, including missing measurements."""
        z = self._solved(strength)
        predictions = z @ self._all.T
        return np.asarray(predictions + (self._mean - predictions[:, self._valid_ids].mean(1))[:, None])

    def _solved(self, strength: float) -> Array:
        if self.scale <= 0:  # all subsets are equal
            return np.zeros_like(self._rotated)
        damped = np.maximum(self._values, 0) + strength * self.scale
        z = (self._rotated / damped) @ self._vectors.T
        return np.asarray(z - z.mean(1, keepdims=True))
