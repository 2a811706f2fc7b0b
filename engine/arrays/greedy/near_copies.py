"""Near copies of chosen rows: rows whose cosine with a chosen row reaches a threshold. Knows arrays and stored rows; no gain.

Chosen rows are in memory up to a capacity, and are read from the store again beyond it. Cosines are float32 products; those
within their rounding of the threshold are computed again in float64, so that the result is that of float64.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ....store.layout import Array
from .problem import COMPARED
from .row_cache import RowCache

_ROUNDING = 2e-5
"""Far above the rounding of a float32 cosine of a few thousand numbers."""


class NearCopies:
    """The chosen rows, and which other rows are near copies of them."""

    def __init__(self, similarity: float, cache: RowCache, capacity: int, depth: int) -> None:
        """`similarity`: the least cosine of near copies; `capacity`: chosen rows in memory, each of `depth` numbers."""
        self._similarity, self._cache = similarity, cache
        self._features, self._norms = np.empty((capacity, depth), np.float32), np.empty(capacity)
        self._count, self._others = 0, list[int]()

    @property
    def count(self) -> int:
        """Number of chosen rows in memory, which are the first."""
        return self._count

    def add(self, row: int, feature: Array) -> None:
        """Note a chosen row (D,) float32."""
        if self._count == len(self._features):
            self._others.append(row)
            return
        self._features[self._count], self._norms[self._count] = feature, _norms(feature[None])[0]
        self._count += 1

    def of_any(self, feature: Array) -> bool:
        """Whether a row (D,) float32 is a near copy of a chosen row."""
        return bool(self.in_memory(feature[None])[0]) or any(
            self._near(feature[None], part, _norms(part))[0] for part in self._read_again()
        )

    def in_memory(self, features: Array, first: int = 0) -> Array:
        """(n,) bool: whether rows (n, D) float32 are near copies of one of the chosen rows in memory, from number `first` on."""
        result = np.zeros(len(features), bool)
        for start in range(first, self._count, COMPARED):
            part = slice(start, min(start + COMPARED, self._count))
            rest = np.flatnonzero(~result)
            result[rest] = self._near(features[rest], self._features[part], self._norms[part])
        return result

    def _read_again(self) -> Iterator[Array]:
        for start in range(0, len(self._others), COMPARED):
            yield self._cache.gathered(np.array(self._others[start : start + COMPARED]))

    def _near(self, features: Array, others: Array, norms: Array) -> Array:
        """(n,) bool: whether the cosine of rows (n, D) with any of the others (m, D), of these norms (m,), reaches the
        threshold; that of a row of zeros does not.
        """
        own = _norms(features)
        scale = np.outer(own, norms)
        with np.errstate(divide="ignore", invalid="ignore"):
            cosines = np.where(scale > 0, (features @ others.T) / scale, -np.inf)
        result = np.asarray((cosines >= self._similarity + _ROUNDING).any(1))
        unsure = np.argwhere((np.abs(cosines - self._similarity) < _ROUNDING) & ~result[:, None])
        for row, other in unsure.tolist():
            exact = float(features[row].astype(np.float64) @ others[other].astype(np.float64))
            result[row] |= exact >= self._similarity * scale[row, other]
        return result


def _norms(features: Array) -> Array:
    """(n,) float64."""
    return np.asarray(np.sqrt(np.einsum("nd,nd->n", features, features, dtype=np.float64)))
