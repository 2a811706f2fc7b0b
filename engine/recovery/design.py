"""The design: which examples are in which subsets, a function of row number and seed.

Each of d partitions splits all N rows over its own subsets, about K/d of them: row i goes to subset π_p(i)·K_p // N, with π_p a
keyed permutation of the row numbers (a Feistel network on the next power of four, applied until it gives a row number: Black &
Rogaway 2002). A row is in d distinct subsets, subset sizes within a partition differ by at most one, and the members of a
subset are computed by the inverse permutation, without visiting other rows. Knows no store and no method.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numba import njit

from ...store.errors import SettingsError
from ...store.layout import Array
from ..runtime.hashing import hashed

_ROUNDS = 6


@dataclass(frozen=True, slots=True)
class PartitionDesign:
    """The design matrix M ∈ {0, 1}^{K×N}, with d ones per column."""

    rows: int
    """N: number of examples."""
    subsets: int
    """K: number of subsets; may exceed N."""
    degree: int
    """d: subsets per row."""
    seed: int

    def __post_init__(self) -> None:
        """Raise SettingsError if d or K is out of range."""
        if not 1 <= self.degree <= self.subsets:
            raise SettingsError(
                f"each example must be in at least 1 and at most {self.subsets} subsets, not {self.degree}"
            )
        largest = self.blocks.max()
        if largest > self.rows:
            raise SettingsError(
                f"{self.subsets} subsets at {self.degree} per example: a partition has {largest} of them for {self.rows} "
                f"examples, so some would be empty; at most {self.rows * self.degree} subsets are possible"
            )

    @property
    def blocks(self) -> Array:
        """(d,) int64, read-only: number of subsets of each partition."""
        blocks: Array = _layout(self).blocks
        return blocks

    @property
    def firsts(self) -> Array:
        """(d,) int64, read-only: the first subset of each partition."""
        firsts: Array = _layout(self).firsts
        return firsts

    def ids(self, start: int, stop: int) -> Array:
        """(n, d): the subsets of rows [start, stop), uint16 where K allows."""
        return self.of(np.arange(start, stop))

    def of(self, rows: Array) -> Array:
        """(n, d): the subsets of some rows (n,) int64.

        Raises:
            IndexError: there is no such row.
        """
        if len(rows) and not 0 <= rows.min() <= rows.max() < self.rows:
            raise IndexError(f"row numbers must be 0 to {self.rows - 1}")
        subset_ids = np.empty((len(rows), self.degree), id_dtype(self.subsets))
        _subsets(np.asarray(rows, np.int64), self.rows, _layout(self), subset_ids)
        return subset_ids

    def members(self, subset: int, start: int = 0, stop: int | None = None) -> Array:
        """(n,) int64: rows `start` to `stop` of a subset, in a fixed but arbitrary order.

        Raises:
            IndexError: there is no such subset.
        """
        if not 0 <= subset < self.subsets:
            raise IndexError(f"subset numbers must be 0 to {self.subsets - 1}")
        layout = _layout(self)
        part = int(layout.firsts.searchsorted(subset, side="right")) - 1
        block, blocks = subset - int(layout.firsts[part]), int(layout.blocks[part])
        places = range(-(-block * self.rows // blocks), -(-(block + 1) * self.rows // blocks))[start:stop]
        members: Array = np.arange(places.start, places.stop, places.step, dtype=np.int64)
        _inverse(members, self.rows, layout.keys[part])
        return members

    def sizes(self) -> Array:
        """(K,) int64: number of examples in each subset."""
        ends = [-(-np.arange(blocks + 1) * self.rows // blocks) for blocks in self.blocks.tolist()]
        return np.concatenate([np.diff(edges) for edges in ends])


class _Layout(NamedTuple):
    """Read-only arrays derived from a design's fields; computed once, because a fit looks up members 157,500 times."""

    blocks: Array
    """(d,) int64: number of subsets of each partition."""
    firsts: Array
    """(d,) int64: the first subset of each partition."""
    keys: Array
    """(d, rounds) uint64: keys of each partition's permutation."""


@lru_cache(maxsize=64)
def _layout(design: PartitionDesign) -> _Layout:
    """The layout of a design; cached outside it, so that equal designs share it and a pickled design does not contain it."""
    degree = design.degree
    blocks: Array = (design.subsets // degree + (np.arange(degree) < design.subsets % degree)).astype(np.int64)
    keys = hashed(design.seed, "design", degree * _ROUNDS).reshape(degree, _ROUNDS)
    layout = _Layout(blocks, np.cumsum(blocks) - blocks, keys)
    for array in (layout.blocks, layout.firsts, layout.keys):
        array.flags.writeable = False
    return layout


def id_dtype(subsets: int) -> type[np.integer]:
    """The narrowest integer dtype for subset ids and the padding value K."""
    return np.uint16 if subsets < 1 << 16 else np.int32


def expansion(ids: Array, k: int) -> float:
    """ε of the graph (N, d) → subsets: the rows of every set of s ≤ k rows are in at least (1 − ε)·d·s subsets. Computed by
    enumeration, for small designs only.

    ℓ1 recovers every k-sparse signal from a (2k, ε)-expander with ε < 1/6 (Berinde, Gilbert, Indyk, Karloff & Strauss 2008).
    """
    worst = 0.0
    for size in range(1, k + 1):
        for rows in combinations(range(len(ids)), size):
            neighbours = len(np.unique(ids[list(rows)]))
            worst = max(worst, 1 - neighbours / (size * ids.shape[1]))
    return worst


@njit(cache=True, nogil=True)
def _mixed(half: np.uint64, key: np.uint64) -> np.uint64:
    """The Feistel round function: a keyed hash of half the bits."""
    z = (half ^ key) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(29))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(32))


@njit(cache=True, nogil=True)
def _half_bits(rows: int) -> np.uint64:
    """Half the number of bits (rounded up) of the largest row number."""
    bits = 1
    while (1 << (2 * bits)) < rows:
        bits += 1
    return np.uint64(bits)


@njit(cache=True, nogil=True)
def _permuted(row: int, rows: int, bits: np.uint64, keys: Array) -> np.uint64:
    """π(row), a row number below `rows`."""
    mask, result = (np.uint64(1) << bits) - np.uint64(1), np.uint64(row)
    while True:
        left, right = result >> bits, result & mask
        for at in range(len(keys)):
            left, right = right, left ^ (_mixed(right, keys[at]) & mask)
        result = (left << bits) | right
        if result < np.uint64(rows):
            return result


@njit(cache=True, nogil=True)
def _subsets(rows: Array, total: int, layout: _Layout, result: Array) -> None:
    blocks, firsts, keys = layout.blocks, layout.firsts, layout.keys
    bits = _half_bits(total)
    for at in range(len(rows)):
        for part in range(len(blocks)):
            place = np.int64(_permuted(rows[at], total, bits, keys[part]))
            result[at, part] = firsts[part] + place * blocks[part] // total


@njit(cache=True, nogil=True)
def _inverse(places: Array, total: int, keys: Array) -> None:
    """π⁻¹ in place."""
    bits = _half_bits(total)
    mask = (np.uint64(1) << bits) - np.uint64(1)
    for at in range(len(places)):
        result = np.uint64(places[at])
        while True:
            left, right = result >> bits, result & mask
            for k in range(len(keys) - 1, -1, -1):
                left, right = right ^ (_mixed(left, keys[k]) & mask), left
            result = (left << bits) | right
            if result < np.uint64(total):
                break
        places[at] = np.int64(result)
