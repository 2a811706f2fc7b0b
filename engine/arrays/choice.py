"""What a choice of rows may take, what it may hold meanwhile, and what it gives. Knows columns; not how rows are chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...store.columns import ColumnReader
from ...store.layout import Array
from ..forms.form import Form
from .moments import moment_parts
from .scan import Shape

DIRECTIONS = (32, 8, 1)
"""In how many directions every row's component is known, the principal ones of a sample of rows: as memory allows."""
SUMS = 2048
"""Remembered sums before all rows are read again."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Rows in the order in which they were chosen."""

    rows: Array
    """(n,) int64."""
    gains: Array
    """(n,) float64: Δ of each when it was chosen, by which Û of the sum form rises."""
    total: Array
    """(D,) float64: Φ_S at the end."""
    passes: int
    """Times that all rows were read."""
    fetched: int
    """Rows read besides."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What may be chosen, and how much of it."""

    count: int
    """Rows at most."""
    open: Array
    """(N,) bool: rows that may be chosen."""
    cost: Array | None = None
    """(N,) float32 > 0; gains are weighed by it."""
    budget: float = np.inf
    """Sum of the costs at most."""
    group: Array | None = None
    """(N,) int64."""
    caps: Array | None = None
    """(groups,) rows of each group at most."""


@dataclass(frozen=True, slots=True)
class Room:
    """What a choice may hold; what is chosen does not depend on it."""

    pool: int
    """Rows."""
    directions: int
    """In which every row's component is known."""
    shape: Shape
    """How all rows are read."""

    def parts(self, columns: Sequence[ColumnReader], form: Form) -> list[tuple[str, int]]:
        """The memory of it."""
        rows = (
            12 * min(self.pool, columns[0].rows) * form.depth + 8 * SUMS * form.depth
        )  # decoded, and as they are exchanged
        bounds = (40 + 4 * self.directions) * columns[0].rows
        return [
            *moment_parts(columns, form, 1, self.shape),
            ("pool of rows and sums", rows),
            ("bounds of all rows", bounds),
        ]
