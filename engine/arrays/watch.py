"""A few rows in place of many: those that may reach a key soon, while all others are bounded together. Knows bounds, not rows.

The others are held in bands of about one length, each by its highest bound; as the sum moves by m, a row's gain grows by c‖m‖‖φ‖
at most. When a band may reach the key, whoever watches computes the bounds anew and watches others.
"""

from __future__ import annotations

import numpy as np

from ...store.layout import Array
from .bounds import Bounds

_BANDS = 64
_SOON, _LATE = 8, 64  # steps after which others are watched: sooner, more are watched; later, fewer


class Watch:
    """Rows that are watched."""

    def __init__(self, bounds: Bounds, penalty: float, share: int, most: int) -> None:
        """Of as many rows as bounds are known of; `share` are watched at first, and `most` at last."""
        self._bounds, self._penalty, self._share, self._most = bounds, penalty, max(1, share), max(1, most)
        self.rows = np.zeros(0, np.int64)
        """(n,) those that are watched."""
        self._inside, self._steps = np.zeros(len(bounds.length), bool), 0
        self._at = np.zeros(0)
        self.forget()

    def forget(self) -> None:
        """Nothing is known of any row."""
        self._highest, self._longest = np.full(1, np.inf, np.float32), np.ones(1, np.float32)

    def holds(self, least: float, total: Array, slack: float) -> bool:
        """Whether no other row may have the key `least` beside this sum."""
        self._steps += 1
        if not np.isfinite(self._highest).any():  # there are no others, or nothing is known of them
            return bool((self._highest < least).all())
        moved = self._penalty * float(np.linalg.norm(total - self._at)) + slack
        return not (self._highest + moved * self._longest >= least).any()

    def renew(self, rows: Array, bound: Array, total: Array, needed: int) -> None:
        """Watch the highest of these rows, `needed` at least. rows (n,), bound (n,) beside this sum."""
        if self._steps < _SOON:
            self._share = min(2 * self._share, self._most)
        elif self._steps > _LATE:
            self._share = max(1, self._share // 2)
        count = min(len(rows), max(needed, self._share))
        order = np.argpartition(-bound, count - 1) if count else np.zeros(0, np.int64)
        self._inside[self.rows] = False
        self.rows, self._at, self._steps = np.sort(rows[order[:count]]), total, 0
        self._inside[self.rows] = True
        self._band(rows[order[count:]], bound[order[count:]])

    def add(self, rows: Array) -> None:
        """Watch these, too."""
        new = rows[~self._inside[rows]]
        self.rows = np.concatenate([self.rows, new])
        self._inside[new] = True

    def _band(self, rows: Array, bound: Array) -> None:
        self._highest, self._longest = np.full(_BANDS, -np.inf, np.float32), np.zeros(_BANDS, np.float32)
        if len(rows):
            length = self._bounds.length[rows]
            low, high = float(length.min()), float(length.max())
            band = np.minimum((length - low) / max(high - low, 1e-30) * _BANDS, _BANDS - 1).astype(np.int64)
            np.maximum.at(self._highest, band, bound)
            np.maximum.at(self._longest, band, length)
