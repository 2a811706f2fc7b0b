"""The candidate pool: a bounded set of rows in memory, some of which are replaced during the choice. Knows rows by number, and
their norms.
"""

from __future__ import annotations

import numpy as np

from ....store.layout import Array


class Pool:
    """At most `size` of `rows` rows, each of `depth` numbers."""

    def __init__(self, size: int, depth: int, rows: int) -> None:
        """Begin with an empty pool."""
        self.size, self.count = size, 0
        self._rows, self._features = np.zeros(size, np.int64), np.zeros((size, depth), np.float32)
        self._squares = np.zeros(size)
        self.slot = np.full(rows, -1, np.int32)
        """(N,) int32: a row's slot in the pool, or -1."""

    @property
    def rows(self) -> Array:
        """Row numbers of the pool's rows: (count,)."""
        return self._rows[: self.count]

    @property
    def features(self) -> Array:
        """The pool's rows: (count, D) float32."""
        return self._features[: self.count]

    @property
    def squares(self) -> Array:
        """Squared norms ‖φ‖² of the pool's rows: (count,) float64."""
        return self._squares[: self.count]

    def take(self, rows: Array) -> Array:
        """(n, D): the features of rows in the pool."""
        return self._features[self.slot[rows]]

    def put(self, rows: Array, features: Array, places: Array) -> None:
        """Insert new rows at `places`: slots from `count` on are appended, lower slots are overwritten and their rows evicted."""
        evicted = places[places < self.count]
        self.slot[self._rows[evicted]] = -1
        self._rows[places], self._features[places] = rows, features
        self._squares[places] = np.einsum("nd,nd->n", features, features, dtype=np.float64)
        self.slot[rows] = places
        self.count = max(self.count, int(places.max(initial=-1)) + 1)
