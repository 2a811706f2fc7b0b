"""Each row's subsets as the solvers read them, block by block: held in memory or computed from row numbers. Knows no store and
no method.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numba import njit

from ...store.errors import DataError
from ...store.layout import Array
from ..arrays.kernels.heaps import Heaps, merged

_TILE = 2048  # rows whose correlations lie in memory together, a thread
_SHARE = 1 << 16  # rows for which a thread is worth its start


class Membership(Protocol):
    """M ∈ {0, 1}^{K×N}, by columns."""

    @property
    def rows(self) -> int:
        """N."""

    @property
    def subsets(self) -> int:
        """K."""

    def of(self, rows: Array) -> Array:
        """(n, d) integers: the subsets of some rows (n,), K where a row is in fewer than d."""


@dataclass(frozen=True, slots=True)
class TableMembership:
    """Subsets of every row, in memory."""

    table: Array
    """(N, d) integers, K where a row is in fewer than d."""
    subsets: int
    """K."""

    @property
    def rows(self) -> int:
        """N."""
        return len(self.table)

    def of(self, rows: Array) -> Array:
        """As promised."""
        found: Array = self.table[rows]
        return found

    @classmethod
    def held(cls, design: Membership) -> TableMembership:
        """A design, computed once."""
        return cls(design.of(np.arange(design.rows)), design.subsets)

    @classmethod
    def of_masks(cls, masks: Array) -> TableMembership:
        """Subsets (K, N) bool as they were drawn.

        Raises:
            DataError: not a matrix of booleans.
        """
        if masks.ndim != 2 or masks.dtype != bool:
            raise DataError(f"masks are (K, N) booleans; these are {masks.shape} of {masks.dtype}")
        subsets, rows = masks.shape
        counts = masks.sum(0)
        table = np.full((rows, int(counts.max(initial=0))), subsets, np.int32)
        at, of = np.nonzero(masks.T)
        table[at, np.arange(len(at)) - np.repeat(np.cumsum(counts) - counts, counts)] = of
        return cls(table, subsets)


@dataclass(frozen=True, slots=True)
class MaskedMembership:
    """A membership without some of its rows, which had nothing to say in any subset: theirs are weights of zero."""

    whole: Membership
    silent: Array
    """(N,) bool."""

    @property
    def rows(self) -> int:
        """N."""
        return self.whole.rows

    @property
    def subsets(self) -> int:
        """K."""
        return self.whole.subsets

    def of(self, rows: Array) -> Array:
        """As promised."""
        found = self.whole.of(rows)
        found[self.silent[rows]] = self.subsets
        return found


def correlated(membership: Membership, residual: Array, most: int, workers: int) -> tuple[Array, Array]:
    """The rows that agree most with residuals (K, Q) float64: (Q, most) int64, -1 fills up, and |Mᵀ residual| there, float32,
    descending. A pass over all N.
    """
    queries = residual.shape[1]
    padded = np.zeros((membership.subsets + 1, queries), np.float32)
    padded[:-1] = residual
    workers = max(1, min(workers, membership.rows // _SHARE))
    ends = np.linspace(0, membership.rows, workers + 1).astype(np.int64).tolist()

    def part(at: int) -> Heaps:
        heaps, sums = Heaps(queries, most), np.empty((queries, _TILE), np.float32)
        for start in range(ends[at], ends[at + 1], _TILE):
            rows = np.arange(start, min(start + _TILE, ends[at + 1]))
            _sizes_of_sums(membership.of(rows), padded, sums)
            heaps.push(sums, len(rows), start)
        return heaps

    if workers == 1:
        size, rows = merged([part(0)])
    else:
        with ThreadPoolExecutor(workers) as threads:
            size, rows = merged(list(threads.map(part, range(workers))))
    return np.where(np.isfinite(size), rows, -1), np.maximum(size, 0)


def multiplied(membership: Membership, weights: Array, start: int = 0, stop: int | None = None) -> Array:
    """Mᵀ weights for rows from `start` to `stop`, or all N: (Q, n) float32 of weights (K, Q)."""
    padded = np.zeros((membership.subsets + 1, weights.shape[1]), np.float32)
    padded[:-1] = weights
    stop = membership.rows if stop is None else stop
    found = np.empty((weights.shape[1], stop - start), np.float32)
    for first in range(start, stop, _TILE):
        rows = np.arange(first, min(first + _TILE, stop))
        _sums(membership.of(rows), padded, found[:, first - start : first - start + len(rows)])
    return found


@njit(cache=True, nogil=True)
def _sums(ids: Any, residual: Any, out: Any) -> None:
    """out[q, i] = Σ residual[ids[i], q]."""
    if residual.shape[1] == 1:
        flat = residual[:, 0].copy()
        for i in range(len(ids)):
            total = np.float32(0)
            for p in range(ids.shape[1]):
                total += flat[ids[i, p]]
            out[0, i] = total
        return
    line = np.empty(residual.shape[1], np.float32)
    for i in range(len(ids)):
        line[:] = 0
        for p in range(ids.shape[1]):
            one = residual[ids[i, p]]
            for q in range(len(line)):
                line[q] += one[q]
        for q in range(len(line)):
            out[q, i] = line[q]


@njit(cache=True, nogil=True)
def _sizes_of_sums(ids: Any, residual: Any, out: Any) -> None:
    """|out[q, i]|."""
    _sums(ids, residual, out)
    for q in range(out.shape[0]):
        for i in range(len(ids)):
            out[q, i] = abs(out[q, i])
