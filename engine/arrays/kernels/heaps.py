"""Top-k heaps: the best k scores of each query, kept while scores stream by. Knows rows by number and nothing else.

A heap's root is its lowest score, and nearly every new score is below it. Of equal scores the smaller row number ranks
first, so the result depends on the scores alone, not on their order or on how workers split them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit

from ....store.layout import Array

NO_ROW = np.iinfo(np.int64).max


class Heaps:
    """Q heaps of k (score, row) pairs, owned by one worker."""

    def __init__(self, queries: int, k: int) -> None:
        """Empty heaps: all scores are -inf."""
        self.scores = np.full((queries, k), -np.inf, np.float32)
        self.rows = np.full((queries, k), NO_ROW, np.int64)

    def push(self, scores: Array, count: int, first: int) -> bool:
        """Insert scores (Q, ≥ count) float32, C order, of `count` rows starting at `first`. Returns True if a score is NaN."""
        return bool(_push(scores, count, first, self.scores, self.rows))


def heap_bytes(queries: int, k: int) -> int:
    """Memory of :class:`Heaps`."""
    return queries * k * 12


def merged(heaps: Sequence[Heaps]) -> tuple[Array, Array]:
    """Merge heaps into the k best per query: scores (Q, k) float32, rows (Q, k) int64, best first."""
    k = heaps[0].scores.shape[1]
    scores: Array = np.concatenate([h.scores for h in heaps], axis=1)
    rows: Array = np.concatenate([h.rows for h in heaps], axis=1)
    order = np.lexsort((rows, np.negative(scores)), axis=1)[:, :k] if k else np.zeros(scores.shape, np.int64)
    return np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)


@njit(cache=True, nogil=True)
def _worse(s: float, r: int, t: float, u: int) -> bool:
    """Whether (score s, row r) ranks below (t, u)."""
    return s < t or (s == t and r > u)


@njit(cache=True)
def _push(scores: Array, count: int, first: int, best: Array, where: Array) -> bool:
    if best.shape[1] == 0:
        return False
    bad = False
    for q in range(len(best)):
        least = best[q, 0]
        for i in range(count):
            s = scores[q, i]
            if not (s < least):
                if s != s:
                    bad = True
                elif _worse(best[q, 0], where[q, 0], s, first + i):
                    _replace_root(best[q], where[q], s, first + i)
                    least = best[q, 0]
    return bad


@njit(cache=True, nogil=True)
def _replace_root(best: Array, where: Array, score: float, row: int) -> None:
    """Replace the root by (score, row) and restore the heap order."""
    k, at = len(best), 0
    while True:
        child = 2 * at + 1
        if child >= k:
            break
        if child + 1 < k and _worse(best[child + 1], where[child + 1], best[child], where[child]):
            child += 1
        if not _worse(best[child], where[child], score, row):
            break
        best[at], where[at] = best[child], where[child]
        at = child
    best[at], where[at] = score, row
