"""A recovered answer: weights of all examples, averaged over base models, with ties in a fixed order.

Most weights of a sparse answer are zero; these examples are ordered by back-projection, Mᵀ(y − ȳ), within a hair of zero: below
all that helped and above all that harmed. Knows memberships and weights; no model, no store.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ...store.layout import Array
from ..recovery.membership import Membership, multiplied
from ..recovery.recover import Recovered

BLOCK = 8192
"""Examples whose weights lie in memory together."""
_TIE = 1e-4  # of the smallest weight: what ties span at most


@dataclass(frozen=True, slots=True)
class BaseWeights:
    """One base model's part in an answer."""

    membership: Membership
    centred: Array
    """(K, Q) float64: y − ȳ."""
    weights: Recovered
    unit: Array
    """(Q,) what weights are divided by, so that bases weigh alike; 1 of a single one."""
    reliability: Array

    def tile(self, start: int, stop: int) -> Array:
        """(Q, n) float32 weights."""
        found = self.weights.dense(self.membership, start, stop)
        found /= self.unit[:, None].astype(np.float32)
        return found

    def projected(self, start: int, stop: int) -> Array:
        """(Q, n) float32: Mᵀ(y − ȳ)."""
        return multiplied(self.membership, self.centred / self.unit, start, stop)


class RecoveredWeights:
    """Of Q queries and N examples."""

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
        """(Q,) float64: what a query's ties span at most, below every weight that is not zero; 0 where no weight is."""
        least = np.full(len(self.bases[0].unit), np.inf)
        for base in self.bases:
            for query, one in enumerate(base.weights.sparse or ()):
                size = np.abs(one.weights).min(initial=np.inf) / base.unit[query] / len(self.bases)
                least[query] = min(least[query], float(size))
        dense = any(base.weights.sparse is None for base in self.bases)
        every = float(least.min(initial=np.inf))  # of queries without any weight: the others' scale
        least = np.where(np.isfinite(least), least, every if np.isfinite(every) else 1.0)
        return np.zeros(len(least)) if dense else _TIE * least

    @cached_property
    def mean_span(self) -> float:
        """The same of the mean over queries."""
        means = (np.abs(weights.mean(0, dtype=np.float64)) for _, _, weights in self._weights())
        least = min((float(one[one > 0].min(initial=np.inf)) for one in means), default=np.inf)
        return _TIE * (least if np.isfinite(least) else 1.0)

    @cached_property
    def _reach(self) -> Array:
        """(Q,) float64: a bound of |Mᵀ(y − ȳ)|."""
        reach = np.mean([np.abs(base.centred).max(0) / base.unit for base in self.bases], 0) * self._degree
        return np.where(reach > 0, reach, 1.0)

    def _weights(self) -> Iterator[tuple[int, int, Array]]:
        """First row, the one behind the last, and (Q, n) float32, some rows at a time."""
        for start in range(0, self._rows, BLOCK):
            stop = min(start + BLOCK, self._rows)
            found = self.bases[0].tile(start, stop)
            for base in self.bases[1:]:
                found += base.tile(start, stop)
            found /= len(self.bases)
            yield start, stop, found

    def _projected(self, start: int, stop: int) -> Array:
        """(Q, n) float32 back-projections, the bases' mean."""
        found = self.bases[0].projected(start, stop)
        for base in self.bases[1:]:
            found += base.projected(start, stop)
        found /= len(self.bases)
        return found
