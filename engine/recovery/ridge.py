"""Ridge regression over a binary design, for responses that many examples share in: min_w,b ½‖y − b − Mw‖² + (α/2)‖w‖².

Solved among the measurements: w = M_cᵀ z with (M_c M_cᵀ + α1) z = y − ȳ, so that K × K is all that is held and one pass makes it.
Knows memberships; no store, no method.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from ...store.layout import Array
from .membership import Membership

_TILE = 8192


def overlaps(membership: Membership) -> Array:
    """M Mᵀ: (K, K) float64, how many examples two subsets share. A pass over all N."""
    found = np.zeros((membership.subsets + 1, membership.subsets + 1))
    for start in range(0, membership.rows, _TILE):
        rows = np.arange(start, min(start + _TILE, membership.rows))
        _count(membership.of(rows), found)
    shared: Array = found[:-1, :-1]
    return shared


@njit(cache=True, nogil=True)
def _count(ids: Any, found: Any) -> None:
    for i in range(len(ids)):
        for p in range(ids.shape[1]):
            for other in range(ids.shape[1]):
                found[ids[i, p], ids[i, other]] += 1


class Ridge:
    """Solves for the same measurements at one strength after another."""

    def __init__(self, shared: Array, y: Array) -> None:
        """shared (K, K) = M Mᵀ; y (Q, K) float64, NaN where a measurement does not count, the same for all queries."""
        self._counted = np.asarray(~np.isnan(y).all(0))
        kept = np.flatnonzero(self._counted)
        self._all = shared[:, kept] - shared[:, kept].mean(1, keepdims=True)  # of every subset with the centred ones
        inner = self._all[kept] - self._all[kept].mean(0, keepdims=True)
        self._values, self._vectors = np.linalg.eigh(inner)
        self._mean = y[:, kept].mean(1)
        self._turned = (y[:, kept] - self._mean[:, None]) @ self._vectors
        self._kept = kept

    @property
    def scale(self) -> float:
        """The mean eigenvalue, which strengths are multiples of."""
        return float(self._values.mean())

    def duals(self, strength: float) -> Array:
        """z (K, Q) at α = strength · scale, zero where a measurement does not count; weights are Mᵀz."""
        found = np.zeros((len(self._counted), len(self._mean)))
        found[self._kept] = self._solved(strength).T
        return found

    def predicted(self, strength: float) -> Array:
        """b + Mw: (Q, K), the measurements that do not count too."""
        z = self._solved(strength)
        told = z @ self._all.T
        return np.asarray(told + (self._mean - told[:, self._kept].mean(1))[:, None])

    def _solved(self, strength: float) -> Array:
        if self.scale <= 0:  # no subset differs from another
            return np.zeros_like(self._turned)
        damped = np.maximum(self._values, 0) + strength * self.scale
        z = (self._turned / damped) @ self._vectors.T
        return np.asarray(z - z.mean(1, keepdims=True))
