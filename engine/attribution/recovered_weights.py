"""Weights of all examples, recovered by one member of a subset method or by several, with ties in a fixed order.

Most weights of a sparse answer are zero. Examples that have weight zero for all members are ordered by back-projection, Mᵀ(y
− ȳ), scaled to be smaller than any weight: they rank below examples with positive weights and above those with negative
ones. Knows memberships and weights; no model, no store.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ...store.layout import Array
from ..recovery.membership import Membership, multiplied
from ..recovery.recover import RecoveryResult

BLOCK = 8192
"""Number of examples whose weights are in memory at a time."""
_TIE = 1e-4  # largest score of a tie, relative to the smallest weight


@dataclass(frozen=True, slots=True)
class MemberWeights:
    """One member's weights."""

    membership: Membership
    degree: int
    """d of the design."""
    centred: Array
    """(K, Q) float64: y − ȳ."""
    weights: RecoveryResult
    unit: Array
    """(Q,) what the weights are divided by, so that members count equally; 1 where they are not scaled."""
    reliability: Array
    """(Q,) rank correlation of the measurements between two fits; NaN where it is not known."""

    def scaled(self) -> MemberWeights:
        """The same, divided by the standard deviation of each query's measurements."""
        spread = self.centred.std(0)
        return replace(self, unit=np.where(spread > 0, spread, 1.0))

    def tile(self, start: int, stop: int) -> Array:
        """(Q, n) float32 weights."""
        weights = self.weights.dense(self.membership, start, stop)
        weights /= self.unit[:, None].astype(np.float32)
        return weights

    def projected(self, start: int, stop: int) -> Array:
        """(Q, n) float32: Mᵀ(y − ȳ)."""
        return multiplied(self.membership, self.centred / self.unit, start, stop)


class RecoveredWeights:
    """Weights of N examples for Q queries by M members."""

    def __init__(self, members: Sequence[MemberWeights], rows: int) -> None:
        """`rows`: N."""
        self.members, self._rows = members, rows

    def blocks(self) -> Iterator[tuple[int, Array]]:
        """First row and (M, n, Q) float32 weights, in order."""
        for start, stop, weights in self._weights():
            ties = self._projected(start, stop) * (self.spans / self._reach)[:, None].astype(np.float32)
            yield start, np.where((weights == 0).all(0), ties, weights).transpose(0, 2, 1)

    def values(self) -> Iterator[tuple[int, Array]]:
        """First row and (M, n) float64 means over queries, in order."""
        for start, stop, weights in self._weights():
            means, ties = weights.mean(1, dtype=np.float64), self._projected(start, stop).mean(1)
            yield start, np.where((means == 0).all(0), ties * (self.mean_span / self._reach.mean()), means)

    @cached_property
    def spans(self) -> Array:
        """(Q,) float64: largest score of a query's ties, below its smallest weight over M; 0 for dense weights, which have no
        ties.
        """
        least = np.full(len(self.members[0].unit), np.inf)
        for member in self.members:
            for query, sparse in enumerate(member.weights.sparse or ()):
                size = np.abs(sparse.weights).min(initial=np.inf) / member.unit[query] / len(self.members)
                least[query] = min(least[query], float(size))
        dense = any(member.weights.sparse is None for member in self.members)
        smallest = float(least.min(initial=np.inf))  # the scale of queries whose weights are all zero
        least = np.where(np.isfinite(least), least, smallest if np.isfinite(smallest) else 1.0)
        return np.zeros(len(least)) if dense else _TIE * least

    @cached_property
    def mean_span(self) -> float:
        """Largest score of a tie among the mean weights over members and queries."""
        means = (np.abs(weights.mean((0, 1), dtype=np.float64)) for _, _, weights in self._weights())
        least = min((float(sizes[sizes > 0].min(initial=np.inf)) for sizes in means), default=np.inf)
        return _TIE * (least if np.isfinite(least) else 1.0)

    @cached_property
    def _reach(self) -> Array:
        """(Q,) float64: a bound of |Mᵀ(y − ȳ)|, mean over members."""
        reach = np.mean([member.degree * np.abs(member.centred).max(0) / member.unit for member in self.members], 0)
        return np.where(reach > 0, reach, 1.0)

    def _weights(self) -> Iterator[tuple[int, int, Array]]:
        """(start, stop, (M, Q, n) float32 weights) of consecutive blocks of rows."""
        for start in range(0, self._rows, BLOCK):
            stop = min(start + BLOCK, self._rows)
            yield start, stop, np.stack([member.tile(start, stop) for member in self.members])

    def _projected(self, start: int, stop: int) -> Array:
        """(M, Q, n) float32: the members' back-projections."""
        return np.stack([member.projected(start, stop) for member in self.members])
