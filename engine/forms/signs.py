"""Sign bits of randomly rotated rows (SimHash), and queries as the small integers that meet them. Knows nothing of columns.

Rotation: a row, padded to a power of two n, has its signs flipped at random, goes through a Hadamard transform, and both
once more; the signs of the first `bits` coordinates are kept. The query keeps its numbers, and

    ⟨q, x⟩ ≈ ‖x‖ · sqrt(π n / 2) / bits · Σ_{i < bits} (Pq)_i · sign((Px)_i)        (Charikar 2002; P orthonormal)

Its numbers become integers small enough for a table: of four neighbours the magnitudes sum to 63 at most, so that the sixteen
sums that four sign bits can make of them are bytes. Everything after the query's rounding is exact, on any processor.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numba import njit

from ...store.layout import Array
from ..hashing import hashed

BITS = 128
"""`bits` is a multiple of this: what a kernel takes of a row at once."""
LARGEST_FOUR = 63
"""Sum of magnitudes of four neighbours of a query, at most: four entries of a table add up in a byte."""


class Rotation:
    """P: two rounds of random signs and a Hadamard transform, of which `bits` coordinates are kept."""

    def __init__(self, depth: int, bits: int, seed: int) -> None:
        """For rows of `depth` numbers."""
        self.depth, self.bits = depth, bits
        self.size = 1 << (max(depth, bits) - 1).bit_length()
        self.kept = 1 << (bits - 1).bit_length()
        signs = hashed(seed, "simhash", self.size)
        self._first, self._second = (np.where(signs >> np.uint64(bit) & np.uint64(1), 1.0, -1.0).astype(np.float32)
                                     for bit in (0, 1))  # fmt: skip

    def apply(self, rows: Array) -> Array:
        """(n, depth) → (n, bits) float32: the kept coordinates of Px."""
        out = np.empty((len(rows), self.kept), np.float32)
        _rotate(np.ascontiguousarray(rows, np.float32), self._first, self._second, out)
        return out[:, : self.bits]


@njit(cache=True, nogil=True)
def _rotate(rows: Array, first: Array, second: Array, out: Array) -> None:
    """The kept coordinates come first, so the second transform folds to their number and is no longer than they."""
    size, kept, depth = len(first), out.shape[1], rows.shape[1]
    work = np.empty(size, np.float32)
    factor = np.float32(1.0 / size)
    for i in range(len(rows)):
        work[:depth] = rows[i] * first[:depth]
        work[depth:] = np.float32(0)
        _hadamard(work)
        folded = out[i]
        folded[:] = np.float32(0)
        for start in range(0, size, kept):
            folded += work[start : start + kept] * second[start : start + kept]
        _hadamard(folded)
        folded *= factor


@njit(cache=True, nogil=True)
def _hadamard(x: Array) -> None:
    """The fast Walsh-Hadamard transform, in place, not normalised; the length is a power of two."""
    half = 1
    while half < len(x):
        for start in range(0, len(x), 2 * half):
            for k in range(start, start + half):
                a, b = x[k], x[k + half]
                x[k], x[k + half] = a + b, a - b
        half *= 2


@lru_cache(maxsize=4)
def rotation(depth: int, bits: int, seed: int) -> Rotation:
    """The rotation, made once."""
    return Rotation(depth, bits, seed)


def sign_rows(rows: Array, rotation: Rotation) -> tuple[Array, Array]:
    """Rows (n, D) → packed signs (n, bits/8) uint8, lowest bit first, and scale (n,) float32: ‖x‖ sqrt(πn/2) / bits."""
    rotated = rotation.apply(rows)
    packed = np.packbits(rotated > 0, axis=1, bitorder="little")
    norms = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
    return packed, (norms * (math.sqrt(math.pi * rotation.size / 2) / rotation.bits)).astype(np.float32)


def sign_queries(matrix: Array, rotation: Rotation) -> tuple[Array, Array]:
    """Queries (Q, D) → int16 (Q, bits) and scale (Q,) float32: Pq ≈ scale · int16, four neighbours' magnitudes ≤ 63."""
    rotated = rotation.apply(matrix).astype(np.float64)
    fours = np.abs(rotated).reshape(len(matrix), -1, 4).sum(2)
    largest = fours.max(1, initial=0)
    factor = np.where(
        largest > 0, (LARGEST_FOUR - 2) / np.where(largest > 0, largest, 1), 1.0
    )  # rounding adds 2 at most
    return np.rint(rotated * factor[:, None]).astype(np.int16), (1 / factor).astype(np.float32)
