"""Upper bounds of the gains of rows that are not in memory. Exact along a few directions, bounded across them. Knows arrays
alone.

A gain is ⟨w, φ_j⟩ and what does not change with w. Of row j is remembered: its gain beside some earlier w_e, ⟨d, φ_j⟩ along each
direction d, and the norm of what is left of φ_j across the first directions, across more of them, and across all. Beside w it is
key + Σ_d ⟨d, w − w_e⟩·along, and at most ‖rest of w − w_e‖·across more (Cauchy and Schwarz), wherever the sum over d ends: most
rows are told from the best by their first directions. Of gains that are weighed by a cost, all of these are over the cost.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numba import njit

from ....store.layout import Array

PAST = 512
"""Earlier vectors that are remembered; as they run out, every other one is forgotten, so that old ones lie far apart."""
LEVELS = (16, 32, 64)
"""Directions after which a bound is looked at; and after all of them."""
_SHARE = 1 << 16  # rows for which a thread is worth its start


class Known(NamedTuple):
    """What is remembered of every row, over its cost."""

    key: Array
    """(N,) float32: its gain beside some earlier vector."""
    first: Array
    """(N, F) float32: ⟨d, φ⟩ along the first directions, which lie together as most rows need no others."""
    others: Array
    """(N, K − F) float32: along the others."""
    across: Array
    """(N, L) float32: the norm of the rest of φ, behind each level."""
    loose: Array
    """(N,) float32: by how much that may be too low."""
    since: Array
    """(N,) uint16: which vector."""


class Moves(NamedTuple):
    """How far some vector is from each remembered one."""

    along: Array
    """(past, K) float32."""
    aside: Array
    """(past, L) float32: the norm of the rest, behind each level."""


class BoundRequest(NamedTuple):
    """Rows that are looked for."""

    least: np.float32
    """Their gain."""
    slack: np.float32
    """What a gain may be wrong by, for a row of length 1."""
    open: Array
    """(N,) bool: rows that may be."""
    held: Array
    """(N,) int32: of others, -1."""
    length: Array
    """(N,) float32."""


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz", "arcp"})
def _dot(one: Array, other: Array) -> float:
    found = np.float32(0)
    for k in range(len(one)):
        found += one[k] * other[k]
    return float(found)


@njit(cache=True, nogil=True)
def _shift(row: int, known: Known, moves: Moves, at: int) -> float:
    split = known.first.shape[1]
    first = _dot(known.first[row], moves.along[at, :split])
    return float(first + _dot(known.others[row], moves.along[at, split:]))


@njit(cache=True, nogil=True)
def _highest(rows: Array, known: Known, moves: Moves, found: Array) -> None:
    """What these rows gain at most."""
    for place in range(len(rows)):
        row = rows[place]
        at = known.since[row]
        grown = known.loose[row] + moves.aside[at, -1] * known.across[row, -1]
        found[place] = known.key[row] + _shift(row, known, moves, at) + grown


@njit(cache=True, nogil=True)
def _reaching(
    wanted: BoundRequest, part: Array, known: Known, moves: Moves, levels: Array, found: Array
) -> tuple[int, int]:
    """Rows of [part[0], part[1]) that may be wanted, into `found`; how many, and how many were looked at beyond a level."""
    split, count, beyond = levels[0], 0, 0
    for row in range(part[0], part[1]):
        if not wanted.open[row] or wanted.held[row] >= 0:
            continue
        at = known.since[row]
        most = known.key[row] + known.loose[row] + wanted.slack * wanted.length[row]
        most += _dot(known.first[row], moves.along[at, :split])
        for level in range(len(levels)):
            if level:
                start, stop = levels[level - 1], levels[level]
                most += _dot(known.others[row, start - split : stop - split], moves.along[at, start:stop])
                beyond += level == 1
            if most + moves.aside[at, level] * known.across[row, level] < wanted.least:
                break
        else:
            found[count] = row
            count += 1
    return count, beyond


@njit(cache=True, nogil=True)
def _thin(known: Known, steps: Moves) -> None:
    """Bring rows of every odd vector back to the one before it, and number the even ones anew."""
    for row in range(len(known.key)):
        at = known.since[row]
        if at % 2:
            known.key[row] -= _shift(row, known, steps, at)
            known.loose[row] += steps.aside[at, -1] * known.across[row, -1]
        known.since[row] = at // 2


def principal(features: Array, count: int) -> Array:
    """(D, count) float64: principal directions of rows (n, D) float64 about 0; of none where a row is not finite."""
    if not np.isfinite(features).all():
        return np.zeros((features.shape[1], count))
    if len(features) >= features.shape[1]:
        _, vectors = np.linalg.eigh(features.T @ features)
        return np.ascontiguousarray(vectors[:, ::-1][:, :count])
    squares, mixed = np.linalg.eigh(features @ features.T)  # the smaller of the two
    found, _ = np.linalg.qr(features.T @ mixed[:, np.argsort(-squares)[:count]])
    return np.asarray(found)


class Bounds:
    """Upper bounds of every row's gain, beside any vector."""

    def __init__(self, rows: int, directions: Array, workers: int) -> None:
        """directions (D, K) float64, orthonormal columns or zeros; nothing is known of the rows yet."""
        self._directions, self._thin = directions, directions.astype(np.float32)
        count = directions.shape[1]
        self._levels = np.array([*(level for level in LEVELS if level < count), count], np.int64)
        split, levels = int(self._levels[0]), len(self._levels)
        shapes = ((rows,), (rows, split), (rows, count - split), (rows, levels), (rows,))
        key, first, others, across, loose = (np.zeros(shape, np.float32) for shape in shapes)
        self._known = Known(key, first, others, across, loose, np.zeros(rows, np.uint16))
        self._count, self._workers = 0, workers
        self.length = np.zeros(rows, np.float32)
        """(N,): ‖φ‖ over the cost."""
        self._past, self._squares = np.zeros((PAST, len(directions))), np.zeros(PAST)
        self._projected = np.zeros((PAST, count))

    def learn(self, part: slice, tile: Array, keys: Array, cost: Array | None) -> None:
        """Rows as they are read, (n, D) float32, in any order, and their gains over the cost beside what `restart` told."""
        along, split = tile @ self._thin, self._known.first.shape[1]
        rest = tile - along @ self._thin.T  # squares less what lies along would lose what is small beside them
        over = np.ones(len(tile), np.float32) if cost is None else 1 / cost
        self.length[part] = np.sqrt(np.einsum("nd,nd->n", tile, tile)) * over
        square, behind = np.einsum("nd,nd->n", rest, rest), along[:, :0]
        for level in reversed(range(len(self._levels))):
            square = square + np.einsum("nd,nd->n", behind, behind)
            self._known.across[part, level] = np.sqrt(square) * over
            behind = along[:, self._levels[level - 1] : self._levels[level]]
        along *= over[:, None]
        self._known.first[part], self._known.others[part], self._known.key[part] = (
            along[:, :split],
            along[:, split:],
            keys,
        )

    def restart(self, w: Array, keys: Array | None = None) -> None:
        """All rows are to be learnt anew, beside this vector; or of rows that were learnt, (N,) the gains beside it."""
        self._known.since[:], self._known.loose[:], self._count = 0, 0, 0
        if keys is not None:
            self._known.key[:] = keys
        self._remember(w)

    def note(self, rows: Array, keys: Array, w: Array) -> None:
        """The gains over the cost that some rows have beside this vector."""
        if not self._is_last(w):
            if self._count == PAST:
                self._forget_half()
            self._remember(w)
        self._known.key[rows], self._known.since[rows], self._known.loose[rows] = keys, self._count - 1, 0

    def certain(self, rows: Array, w: Array) -> Array:
        """(n,) bool: whose gain beside this very vector is known."""
        found: Array = (self._known.since[rows] == self._count - 1) & (self._known.loose[rows] == 0)
        return found & self._is_last(w)

    def highest(self, rows: Array, w: Array) -> Array:
        """(n,) float32: what these rows gain at most."""
        found = np.empty(len(rows), np.float32)
        _highest(rows, self._known, self._moves(w), found)
        return found

    def reaching(self, wanted: BoundRequest, w: Array) -> tuple[Array, int]:
        """Rows (n,) int64, in order, whose gain may be wanted; and how many were bounded by more than their first directions."""
        moves, count = self._moves(w), len(self.length)
        workers = max(1, min(self._workers, count // _SHARE))
        ends = np.linspace(0, count, workers + 1).astype(np.int64)

        def found(at: int) -> tuple[Array, int]:
            rows = np.empty(ends[at + 1] - ends[at], np.int64)
            reached, beyond = _reaching(wanted, ends[at : at + 2], self._known, moves, self._levels, rows)
            return rows[:reached].copy(), beyond

        if workers == 1:
            return found(0)
        with ThreadPoolExecutor(workers) as threads:
            parts = list(threads.map(found, range(workers)))
        return np.concatenate([rows for rows, _ in parts]), sum(beyond for _, beyond in parts)

    @property
    def farthest(self) -> float:
        """The largest norm of the remembered vectors."""
        return float(np.sqrt(self._squares[: self._count].max(initial=0)))

    def _moves(self, w: Array) -> Moves:
        """How far this vector is from each remembered one."""
        past = self._past[: self._count]
        along = w @ self._directions - self._projected[: self._count]
        squares = w @ w - 2 * (past @ w) + self._squares[: self._count]
        return self._moved(along, squares)

    def _moved(self, along: Array, squares: Array) -> Moves:
        """Of vectors that moved by so much along each direction, and by so much in all, squared."""
        within = np.cumsum(along * along, axis=1)[:, self._levels - 1]
        aside = np.sqrt(np.maximum(squares[:, None] - within, 0))
        return Moves(along.astype(np.float32), aside.astype(np.float32))

    def _forget_half(self) -> None:
        """Every other vector, the first kept: what rows may have grown from one to the next is added to their bounds."""
        moved = np.diff(self._projected, axis=0, prepend=self._projected[:1])
        steps = np.diff(self._past, axis=0, prepend=self._past[:1])
        _thin(self._known, self._moved(moved, np.einsum("ed,ed->e", steps, steps)))
        self._count = (self._count + 1) // 2
        for each in (self._past, self._projected, self._squares):
            each[: self._count] = each[::2].copy()

    def _remember(self, w: Array) -> None:
        at = self._count
        self._past[at], self._projected[at], self._squares[at] = w, w @ self._directions, w @ w
        self._count += 1

    def _is_last(self, w: Array) -> bool:
        return self._count > 0 and np.array_equal(self._past[self._count - 1], w)
