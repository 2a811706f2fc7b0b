"""What rows may gain at most beside a sum, from what was known of them at earlier sums. Exact along a few directions, bounded
across them. Knows arrays alone.

Of row j is remembered: its gain at some earlier sum Φ_e, c⟨d, φ_j⟩ along each direction d, and c times the norm of what is left
of φ_j across them. At a sum Φ the gain is key − Σ_d ⟨d, Φ − Φ_e⟩·along, and at most ‖rest of Φ − Φ_e‖·across more (Cauchy and
Schwarz). Of gains that are weighed by a cost, all of these are over the cost.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from ...store.layout import Array

SUMS = 512
"""Earlier sums that are remembered; as they run out, every other one is forgotten, so that old ones lie far apart."""


class Known(NamedTuple):
    """What is remembered of every row, over its cost."""

    key: Array
    """(N,) float32: its gain at some earlier sum."""
    along: Array
    """(N, K) float32: c⟨d, φ⟩."""
    across: Array
    """(N,) float32: c times the norm of the rest of φ."""
    loose: Array
    """(N,) float32: what it may have grown before that sum."""
    since: Array
    """(N,) uint16: which sum."""


class Moves(NamedTuple):
    """How far some sum is from each remembered one."""

    along: Array
    """(sums, K) float32."""
    aside: Array
    """(sums,) float32: the norm of the rest."""


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz", "arcp"})
def _shift(row: int, along: Array, moved: Array, at: int) -> float:
    found = np.float32(0)
    for k in range(along.shape[1]):
        found += moved[at, k] * along[row, k]
    return float(found)


@njit(cache=True, nogil=True)
def _highest(rows: Array, known: Known, moves: Moves, found: Array) -> None:
    """What these rows gain at most."""
    for place in range(len(rows)):
        row = rows[place]
        at = known.since[row]
        grown = known.loose[row] + moves.aside[at] * known.across[row]
        found[place] = known.key[row] - _shift(row, known.along, moves.along, at) + grown


@njit(cache=True, nogil=True)
def _thin(known: Known, steps: Moves) -> None:
    """Bring rows of every odd sum back to the one before it, and number the even ones anew."""
    for row in range(len(known.key)):
        at = known.since[row]
        if at % 2:
            known.key[row] += _shift(row, known.along, steps.along, at)
            known.loose[row] += steps.aside[at] * known.across[row]
        known.since[row] = at // 2


class Bounds:
    """Upper bounds of every row's gain, beside any sum."""

    def __init__(self, rows: int, directions: Array, penalty: float) -> None:
        """directions (D, K) float64, orthonormal columns or zeros; nothing is known of the rows yet."""
        self._directions, self._thin, self._penalty = directions, directions.astype(np.float32), np.float32(penalty)
        key, across, loose = (np.zeros(rows, np.float32) for _ in range(3))
        along = np.zeros((rows, directions.shape[1]), np.float32)
        self._known, self._count = Known(key, along, across, loose, np.zeros(rows, np.uint16)), 0
        self.length = np.zeros(rows, np.float32)
        """(N,): ‖φ‖ over the cost."""
        self.largest = 0.0
        """The largest ‖φ‖."""
        self._sums, self._squares = np.zeros((SUMS, len(directions))), np.zeros(SUMS)
        self._projected = np.zeros((SUMS, directions.shape[1]))

    def learn(self, part: slice, tile: Array, keys: Array, cost: Array | None) -> None:
        """Rows as they are read, (n, D) float32, and their gains over the cost, at the sum that `restart` told."""
        along = tile @ self._thin
        rest = tile - along @ self._thin.T  # squares less what lies along would lose what is small beside them
        over = np.ones(len(tile), np.float32) if cost is None else 1 / cost
        norms = np.sqrt(np.einsum("nd,nd->n", tile, tile))
        self.length[part], self.largest = norms * over, max(self.largest, float(norms.max(initial=0)))
        self._known.across[part] = np.sqrt(np.einsum("nd,nd->n", rest, rest)) * over * self._penalty
        self._known.along[part] = along * (over * self._penalty)[:, None]
        self._known.key[part] = keys

    def restart(self, total: Array) -> None:
        """All rows are to be learnt anew, at this sum."""
        self._known.since[:], self._known.loose[:], self._count = 0, 0, 0
        self._remember(total)

    def note(self, rows: Array, keys: Array, total: Array) -> None:
        """The gains over the cost that some rows have at this sum."""
        if not self._is_last(total):
            if self._count == SUMS:
                self._forget_half()
            self._remember(total)
        self._known.key[rows], self._known.since[rows], self._known.loose[rows] = keys, self._count - 1, 0

    def certain(self, rows: Array, total: Array) -> Array:
        """(n,) bool: whose gain at this very sum is known."""
        found: Array = (self._known.since[rows] == self._count - 1) & (self._known.loose[rows] == 0)
        return found & self._is_last(total)

    def highest(self, rows: Array, total: Array) -> Array:
        """(n,) float32: what these rows gain at most."""
        found = np.empty(len(rows), np.float32)
        _highest(rows, self._known, self._moves(total), found)
        return found

    @property
    def farthest(self) -> float:
        """The largest norm of the remembered sums."""
        return float(np.sqrt(self._squares[: self._count].max(initial=0)))

    def _moves(self, total: Array) -> Moves:
        """How far the sum has moved since each remembered one."""
        past = self._sums[: self._count]
        along = total @ self._directions - self._projected[: self._count]
        squares = total @ total - 2 * (past @ total) + self._squares[: self._count]
        across = np.sqrt(np.maximum(squares - np.einsum("ek,ek->e", along, along), 0))
        return Moves(along.astype(np.float32), across.astype(np.float32))

    def _forget_half(self) -> None:
        """Every other sum, the first kept: what rows may have grown from one to the next is added to their bounds."""
        moved = np.diff(self._projected, axis=0, prepend=self._projected[:1])
        steps = np.diff(self._sums, axis=0, prepend=self._sums[:1])
        squares = np.einsum("ed,ed->e", steps, steps) - np.einsum("ek,ek->e", moved, moved)
        aside = np.sqrt(np.maximum(squares, 0)).astype(np.float32)
        _thin(self._known, Moves(moved.astype(np.float32), aside))
        self._count = (self._count + 1) // 2
        for each in (self._sums, self._projected, self._squares):
            each[: self._count] = each[::2].copy()

    def _remember(self, total: Array) -> None:
        at = self._count
        self._sums[at], self._projected[at], self._squares[at] = total, total @ self._directions, total @ total
        self._count += 1

    def _is_last(self, total: Array) -> bool:
        return self._count > 0 and np.array_equal(self._sums[self._count - 1], total)
