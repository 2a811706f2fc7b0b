"""Random rotations by signs and Hadamard transforms, which spread a row's weight evenly before quantization. Knows nothing of
what is done with it.

A Walsh-Hadamard transform of n numbers takes n log n additions, and after random signs its outputs are approximately
normal, even for heavy-tailed inputs (Ailon & Chazelle 2006). Stored rows depend on the seeds and the order of operations,
which are therefore part of the store format.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numba import njit

from ....store.layout import Array
from ...runtime.hashing import hashed

ROTATION_ERROR = 2e-6
"""Upper bound of the float32 rounding error of `HadamardRotation`, relative to the row's norm
(one rounding per stage, thirty stages)."""


class HadamardRotation:
    """An orthonormal map of D numbers to D: random signs, then a Hadamard transform of each part of the row.

    The length of a part is the largest power of two that divides D.
    """

    def __init__(self, depth: int) -> None:
        """For rows of `depth` numbers."""
        self.part = depth & -depth
        self._signs = _signs(0, "turn", depth, 0)

    def apply(self, rows: Array) -> Array:
        """(n, D) → (n, D), of the same precision: float32 for rows, float64 for queries."""
        out: Array = np.ascontiguousarray(rows) * self._signs.astype(rows.dtype)
        _transform(out.reshape(-1, self.part), rows.dtype.type(self.part**-0.5))
        return out

    def undo(self, rows: Array) -> Array:
        """Apply the inverse rotation: (n, D) → (n, D)."""
        out: Array = np.array(rows, order="C")
        _transform(out.reshape(-1, self.part), rows.dtype.type(self.part**-0.5))
        out *= self._signs.astype(rows.dtype)
        return out


@lru_cache(maxsize=4)
def hadamard_rotation(depth: int) -> HadamardRotation:
    """The rotation of rows of `depth` numbers, cached."""
    return HadamardRotation(depth)


def _signs(seed: int, stream: str, count: int, bit: int) -> Array:
    """(count,) float32 of ±1."""
    bits = hashed(seed, stream, count) >> np.uint64(bit) & np.uint64(1)
    return np.where(bits, 1.0, -1.0).astype(np.float32)


class Rotation:
    """P: two rounds of random signs and a Hadamard transform, of which the first `bits` coordinates are used."""

    def __init__(self, depth: int, bits: int, seed: int) -> None:
        """For rows of `depth` numbers."""
        self.depth, self.bits = depth, bits
        self.size = 1 << (max(depth, bits) - 1).bit_length()
        self.padded_bits = 1 << (bits - 1).bit_length()
        self._first, self._second = (_signs(seed, "simhash", self.size, bit) for bit in (0, 1))

    def apply(self, rows: Array) -> Array:
        """(n, depth) → (n, bits) float32: the first coordinates of Px."""
        out = np.empty((len(rows), self.padded_bits), np.float32)
        _rotate(np.ascontiguousarray(rows, np.float32), self._first, self._second, out)
        return out[:, : self.bits]


@lru_cache(maxsize=4)
def rotation(depth: int, bits: int, seed: int) -> Rotation:
    """The rotation for these sizes and seed, cached."""
    return Rotation(depth, bits, seed)


@njit(cache=True, nogil=True)
def _rotate(rows: Array, first: Array, second: Array, out: Array) -> None:
    """Only the first coordinates are needed, so the second transform is folded to that length."""
    size, width, depth = len(first), out.shape[1], rows.shape[1]
    work = np.empty(size, np.float32)
    factor = np.float32(1.0 / size)
    for i in range(len(rows)):
        work[:depth] = rows[i] * first[:depth]
        work[depth:] = np.float32(0)
        _hadamard(work)
        folded = out[i]
        folded[:] = np.float32(0)
        for start in range(0, size, width):
            folded += work[start : start + width] * second[start : start + width]
        _hadamard(folded)
        folded *= factor


@njit(cache=True, nogil=True)
def _transform(parts: Array, factor: float) -> None:
    """Each part's transform, times a factor, in place."""
    for i in range(len(parts)):
        _hadamard(parts[i])
        parts[i] *= factor


@njit(cache=True, nogil=True)
def _hadamard(x: Array) -> None:
    """The fast Walsh-Hadamard transform, in place, not normalised; the length is a power of two.

    Two stages at a time: half the passes over the row, and every pass but the first in the order of memory.
    """
    half, size = 1, len(x)
    stages, left = 0, size
    while left > 1:
        stages, left = stages + 1, left // 2
    if stages % 2:
        for k in range(0, size, 2):
            a, b = x[k], x[k + 1]
            x[k], x[k + 1] = a + b, a - b
        half = 2
    while half < size:
        for start in range(0, size, 4 * half):
            for k in range(start, start + half):
                a, b, c, d = x[k], x[k + half], x[k + 2 * half], x[k + 3 * half]
                e, f, g, h = a + b, a - b, c + d, c - d
                x[k], x[k + half], x[k + 2 * half], x[k + 3 * half] = e + g, f + h, e - g, f - h
        half *= 4
