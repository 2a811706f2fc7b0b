"""The subsets of each row, as solvers read them block by block: from a table in memory, or computed from row numbers. Knows no
store and no method.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numba import njit

from ...store.errors import DataError
from ...store.layout import Array
from ..arrays.kernels.heaps import Heaps, merged

_TILE = 2048  # rows per tile and thread
_SHARE = 1 << 16  # minimum rows per thread


class Membership(Protocol):
    """The matrix M ∈ {0, 1}^{K×N}, accessed by columns."""

    @property
    def rows(self) -> int:
        """N: number of examples."""

    @property
    def subsets(self) -> int:
        """K: number of subsets."""

    def of(self, rows: Array) -> Array:
        """(n, d) integers: the subset ids of rows (n,), padded with K for a row in fewer than d subsets."""


@dataclass(frozen=True, slots=True)
class TableMembership:
    """Membership stored as a table in memory."""

    table: Array
    """(N, d) integers: subset ids, padded with K."""
    subsets: int
    """K: number of subsets."""

    @property
    def rows(self) -> int:
        """N: number of examples."""
        return len(self.table)

    def of(self, rows: Array) -> Array:
        """(n, d) integers: the subset ids of rows (n,), padded with K."""
        result: Array = self.table[rows]
        return result

    @classmethod
    def of_design(cls, design: Membership) -> TableMembership:
        """Compute the table of a design."""
        return cls(design.of(np.arange(design.rows)), design.subsets)

    @classmethod
    def of_masks(cls, masks: Array) -> TableMembership:
        """Build the table from subset masks (K, N) bool.

        Raises:
            DataError: `masks` is not a boolean matrix.
        """
        if masks.ndim != 2 or masks.dtype != bool:
            raise DataError(f"masks must be (K, N) bool; got shape {masks.shape}, dtype {masks.dtype}")
        subsets, rows = masks.shape
        counts = masks.sum(0)
        table = np.full((rows, int(counts.max(initial=0))), subsets, np.int32)
        at, of = np.nonzero(masks.T)
        table[at, np.arange(len(at)) - np.repeat(np.cumsum(counts) - counts, counts)] = of
        return cls(table, subsets)


@dataclass(frozen=True, slots=True)
class MaskedMembership:
    """A membership with some rows removed from every subset, so that their weights are zero."""

    whole: Membership
    silent: Array
    """(N,) bool: the removed rows."""

    @property
    def rows(self) -> int:
        """N: number of examples."""
        return self.whole.rows

    @property
    def subsets(self) -> int:
        """K: number of subsets."""
        return self.whole.subsets

    def of(self, rows: Array) -> Array:
        """(n, d) integers: the subset ids of rows (n,); all K for masked rows."""
        result = self.whole.of(rows)
        result[self.silent[rows]] = self.subsets
        return result


def correlated(membership: Membership, residual: Array, most: int, workers: int) -> tuple[Array, Array]:
    """The rows most correlated with residuals (K, Q) float64: rows (Q, most) int64, padded with -1, and |Mᵀ residual| (Q, most)
    float32, descending. One pass over all N rows.
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
    """Mᵀ weights for rows from `start` to `stop`, or all N: (Q, n) float32 from weights (K, Q)."""
    padded = np.zeros((membership.subsets + 1, weights.shape[1]), np.float32)
    padded[:-1] = weights
    stop = membership.rows if stop is None else stop
    result = np.empty((weights.shape[1], stop - start), np.float32)
    for first in range(start, stop, _TILE):
        rows = np.arange(first, min(first + _TILE, stop))
        _sums(membership.of(rows), padded, result[:, first - start : first - start + len(rows)])
    return result


@njit(cache=True, nogil=True)
def _sums(ids: Array, residual: Array, out: Array) -> None:
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
            values = residual[ids[i, p]]
            for q in range(len(line)):
                line[q] += values[q]
        for q in range(len(line)):
            out[q, i] = line[q]


@njit(cache=True, nogil=True)
def _sizes_of_sums(ids: Array, residual: Array, out: Array) -> None:
    """out[q, i] = |Σ residual[ids[i], q]|."""
    _sums(ids, residual, out)
    for q in range(out.shape[0]):
        for i in range(len(ids)):
            out[q, i] = abs(out[q, i])
