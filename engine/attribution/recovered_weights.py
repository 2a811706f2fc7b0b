"""A recovered answer: weights of all examples, averaged over base models, with ties in a fixed order.

Most weights of a sparse answer are zero. Examples of weight zero are ordered by back-projection, Mᵀ(y − ȳ), scaled to be smaller
than any weight: they rank below examples with positive weights and above those with negative ones. Knows memberships and weights;
no model, no store.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ...store.layout import Array
from ..recovery.membership import Membership, multiplied
from ..recovery.recover import RecoveryResult

BLOCK = 8192
"""Number of examples whose weights are in memory at a time."""
_TIE = 1e-4  # largest score of a tie, relative to the smallest weight


@dataclass(frozen=True, slots=True)
class BaseWeights:
    """One base model's weights."""

    membership: Membership
    centred: Array
    """(K, Q) float64: y − ȳ."""
    weights: RecoveryResult
    unit: Array
    """(Q,) scale of the weights, which are divided by it so that all base models count equally; 1 for a single base model."""
    reliability: Array
    """(Q,) rank correlation of the measurements between two fits; NaN where it is not known."""

    def tile(self, start: int, stop: int) -> Array:
        """(Q, n) float32 weights."""
        weights = self.weights.dense(self.membership, start, stop)
        weights /= self.unit[:, None].astype(np.float32)
        return weights

    def projected(self, start: int, stop: int) -> Array:
        """(Q, n) float32: Mᵀ(y − ȳ)."""
        return multiplied(self.membership, self.centred / self.unit, start, stop)


class RecoveredWeights:
    """Weights of N examples for Q queries, means over base models."""

    def __init__(self, bases: Sequence[BaseWeights], rows: int, degree: int) -> None:
        """`degree`: d of the design."""
        self.bases, self._rows, self._degree = bases, rows, degree

    def scores(self) -> Iterator[tuple[int, Array]]:
        """First row and (n, Q) float32 weights, in order."""
        for start, stop, weights in self._weights():
            ties = self._projected(start, stop) * (self.spans / self._reach)[:, None].astype(np.float32)
            yield start, np.ascontiguousarray(np.where(weights == 0, ties, weights).T)

    def means(self) -> Iterator[tuple[int, Array]]:
        """First row and (n,) float32 means over queries, in order."""
        for start, stop, weights in self._weights():
            means, ties = weights.mean(0, dtype=np.float64), self._projected(start, stop).mean(0)
            yield start, np.where(means == 0, ties * (self.mean_span / self._reach.mean()), means).astype(np.float32)

    @cached_property
    def spans(self) -> Array:
        """(Q,) float64: largest score of a query's ties, below its smallest weight; 0 for dense weights, which have no ties."""
        least = np.full(len(self.bases[0].unit), np.inf)
        for base in self.bases:
            for query, sparse in enumerate(base.weights.sparse or ()):
                size = np.abs(sparse.weights).min(initial=np.inf) / base.unit[query] / len(self.bases)
                least[query] = min(least[query], float(size))
        dense = any(base.weights.sparse is None for base in self.bases)
        smallest = float(least.min(initial=np.inf))  # the scale of queries whose weights are all zero
        least = np.where(np.isfinite(least), least, smallest if np.isfinite(smallest) else 1.0)
        return np.zeros(len(least)) if dense else _TIE * least

    @cached_property
    def mean_span(self) -> float:
        """Largest score of a tie among the mean weights over queries."""
        means = (np.abs(weights.mean(0, dtype=np.float64)) for _, _, weights in self._weights())
        least = min((float(sizes[sizes > 0].min(initial=np.inf)) for sizes in means), default=np.inf)
        return _TIE * (least if np.isfinite(least) else 1.0)

    @cached_property
    def _reach(self) -> Array:
        """(Q,) float64: a bound of |Mᵀ(y − ȳ)|."""
        reach = np.mean([np.abs(base.centred).max(0) / base.unit for base in self.bases], 0) * self._degree
        return np.where(reach > 0, reach, 1.0)

    def _weights(self) -> Iterator[tuple[int, int, Array]]:
        """(start, stop, (Q, n) float32 mean weights) of consecutive blocks of rows."""
        for start in range(0, self._rows, BLOCK):
            stop = min(start + BLOCK, self._rows)
            weights = self.bases[0].tile(start, stop)
            for base in self.bases[1:]:
                weights += base.tile(start, stop)
            weights /= len(self.bases)
            yield start, stop, weights

    def _projected(self, start: int, stop: int) -> Array:
        """(Q, n) float32: mean back-projections of the base models."""
        projections = self.bases[0].projected(start, stop)
        for base in self.bases[1:]:
            projections += base.projected(start, stop)
        projections /= len(self.bases)
        return projections
