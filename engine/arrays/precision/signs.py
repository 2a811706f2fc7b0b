"""Sign bits of randomly rotated rows (SimHash), and queries as the small integers that are multiplied with them. Knows nothing
of columns.

Rotation: a row, padded to a power of two n, has its signs flipped at random, is Hadamard-transformed, and both
steps are repeated; the signs of the first `bits` coordinates are kept. Queries are rotated but keep their values, and

    ⟨q, x⟩ ≈ ‖x‖ · sqrt(π n / 2) / bits · Σ_{i < bits} (Pq)_i · sign((Px)_i)        (Charikar 2002; P orthonormal)

Query values are rounded to integers small enough for a look-up table: the magnitudes of four neighbours sum to at most 63, so
that each of the sixteen sums selected by four sign bits fits in a byte. After this rounding all arithmetic is exact.
"""

from __future__ import annotations

import math

import numpy as np

from ....store.layout import Array
from .rotation import Rotation

BITS = 128
"""`bits` is a multiple of this: the bits of a row that one kernel step reads."""
LARGEST_FOUR = 63
"""Largest sum of the magnitudes of four neighbouring query values, so that four entries of a table add up in a byte."""


def sign_rows(rows: Array, rotation: Rotation) -> tuple[Array, Array]:
    """Rows (n, D) → packed signs (n, bits/8) uint8, lowest bit first, and scale (n,) float32: ‖x‖ sqrt(πn/2) / bits."""
    rotated = rotation.apply(rows)
    packed = np.packbits(rotated > 0, axis=1, bitorder="little")
    norms = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
    return packed, (norms * (math.sqrt(math.pi * rotation.size / 2) / rotation.bits)).astype(np.float32)


def sign_queries(matrix: Array, rotation: Rotation) -> tuple[Array, Array]:
    """Queries (Q, D) → int16 (Q, bits) and scale (Q,) float32: Pq ≈ scale · int16. Magnitudes of four neighbours sum to ≤ 63."""
    rotated = rotation.apply(matrix).astype(np.float64)
    fours = np.abs(rotated).reshape(len(matrix), -1, 4).sum(2)
    largest = fours.max(1, initial=0)
    factor = np.where(
        largest > 0, (LARGEST_FOUR - 2) / np.where(largest > 0, largest, 1), 1.0
    )  # rounding adds 2 at most
    return np.rint(rotated * factor[:, None]).astype(np.int16), (1 / factor).astype(np.float32)
