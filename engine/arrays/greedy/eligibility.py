"""Which rows may still be chosen, after those chosen so far: within the budget and the quotas, and no copies of chosen rows.
Knows no gain.
"""

from __future__ import annotations

import numpy as np

from ....store.layout import Array
from ..scan.scan_loop import ScanShape
from .near_copies import NearCopies
from .pool import Pool
from .problem import Limits, Room
from .row_cache import RowCache

_REFUSED = 256  # near copies that are refused one by one before a pass over all rows


class Eligibility:
    """The rows that may be chosen; near copies of chosen rows are excluded at the latest when they are offered."""

    def __init__(self, limits: Limits, room: Room, cache: RowCache, depth: int) -> None:
        """Begin with the rows that the limits allow."""
        self._limits, self._cache, self._shape = limits, cache, room.shape
        self.rows = limits.eligible.copy()
        """(N,) bool; one array, which changes as rows are chosen."""
        if limits.cost is not None:
            self.rows[limits.cost > limits.budget] = False
        if limits.group is not None and limits.caps is not None:
            self.rows[limits.caps[limits.group] <= 0] = False
        self._spent, self._taken = 0.0, np.zeros(1 if limits.caps is None else len(limits.caps), np.int64)
        self._near: NearCopies | None = None
        if limits.similarity is not None:
            self._near = NearCopies(limits.similarity, cache, room.chosen_rows, depth)
        self._refused = self._compared = 0

    def admits(self, row: int, feature: Array) -> bool:
        """Whether a row (D,) float32 may be chosen; a near copy of a chosen row is excluded now."""
        if self.rows[row] and self._near is not None and self._near.of_any(feature):
            self.rows[row] = False
            self._refused += 1
            if self._refused == _REFUSED:
                self._exclude_near_copies(self._near, self._shape)
        return bool(self.rows[row])

    def take(self, row: int, feature: Array, pool: Pool) -> None:
        """Note a chosen row (D,) float32: exclude it, and what no longer fits the budget, its group's cap or copies it. Of near
        copies only those in the pool are excluded yet.
        """
        limits = self._limits
        self.rows[row] = False
        if limits.cost is not None:
            self._spent += float(limits.cost[row])
            self.rows[limits.cost > limits.budget - self._spent] = False
        if limits.group is not None and limits.caps is not None:
            group = int(limits.group[row])
            self._taken[group] += 1
            if self._taken[group] >= limits.caps[group]:
                self.rows[limits.group == group] = False
        if limits.texts is not None and limits.texts[row] >= 0:
            self.rows[limits.texts == limits.texts[row]] = False
        if self._near is not None:
            before = self._near.count
            self._near.add(row, feature)
            self.rows[pool.rows[self._near.in_memory(pool.features, before)]] = False

    def _exclude_near_copies(self, near: NearCopies, shape: ScanShape) -> None:
        """Exclude all near copies of the chosen rows in memory that no earlier pass compared: one pass."""
        first, self._compared, self._refused = self._compared, near.count, 0

        def exclude(start: int, tile: Array) -> None:
            may = np.flatnonzero(self.rows[start : start + len(tile)])
            if len(may):
                self.rows[start + may[near.in_memory(tile[may], first)]] = False

        self._cache.for_each_tile(shape, exclude)
