"""How much rows may gain at most, from what was known of them at an earlier sum: the inner loops of the greedy choice.

Of row j: its gain at the earlier sum, c⟨d, φ_j⟩ along a few directions, and c times the norm of what is left of φ_j across them.
The sum has moved by `moved` along the directions and by `aside` across them, so the gain is key − Σ moved·along, and at most
aside·across more (Cauchy and Schwarz). Knows arrays alone.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from ...store.layout import Array


@njit(cache=True, nogil=True)
def _bound(row: int, key: Array, along: Array, across: Array, since: Array, moved: Array, aside: Array) -> float:
    """The gain that a row has at most, by what is known of it since some earlier sum."""
    at, found = since[row], key[row]
    for k in range(along.shape[1]):
        found -= moved[at, k] * along[row, k]
    bound: float = found + aside[at] * across[row]
    return bound


@njit(cache=True, nogil=True)
def bounds(
    key: Array, along: Array, across: Array, since: Array, moved: Array, aside: Array, may: Array, bound: Array
) -> None:
    """Every row's bound into `bound`; -inf for rows that may not be chosen."""
    for row in range(len(key)):
        bound[row] = _bound(row, key, along, across, since, moved, aside) if may[row] else -np.inf
