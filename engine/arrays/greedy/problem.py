"""The choice as a problem: objective, count or cost limits, quotas, memory budget, result. Knows columns; not how rows are
chosen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ....store.layout import Array
from ...runtime.memory import Part, Plan
from ..moments import TILE
from ..scan.scan_loop import Shape, blocks_bytes
from .bounds import PAST
from .row_cache import RowSource

DIRECTIONS = (128, 96, 64, 32, 8, 1)
"""In how many directions every row's component is known, the principal ones of a sample of rows: as memory allows."""
KEPT_BYTES = (512 << 20, 128 << 20, 0)
"""Memory for rows that were read lately: as is allowed."""


def sampled(rows: int, depth: int) -> int:
    """Rows that the directions are drawn from."""
    return min(rows, max(256, min(1024, (32 << 20) // (8 * depth))))


@dataclass(frozen=True, slots=True)
class Objective:
    """What a choice is good for: Δ(j|S) = ⟨v − cΦ_S, φ_j⟩ − (c/2)‖φ_j‖²."""

    vector: Array
    """v (D,) float64."""
    penalty: float
    """c ≥ 0: the sum form's λ/n."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Rows in the order in which they were chosen."""

    rows: Array
    """(n,) int64."""
    gains: Array
    """(n,) float64: Δ of each when it was chosen, by which Û of the sum form rises where one is chosen at a time."""
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
    batch: int = 1
    """So many are chosen at once, as if they did not touch each other; 1 is exact."""


@dataclass(frozen=True, slots=True)
class Room:
    """What a choice may hold; what is chosen does not depend on it, but for a batch that is larger than the pool."""

    pool: int
    """Rows whose gains are computed at every step."""
    directions: int
    """In which every row's component is known."""
    kept: int
    """Rows that stay in memory as they are stored, once they were read."""
    shape: Shape
    """How all rows are read."""

    def parts(self, source: RowSource) -> Plan:
        """The memory of it."""
        depth, sample, workers = source.form.depth, sampled(source.rows, source.form.depth), self.shape.workers
        return Plan.of(
            Part("blocks in flight", blocks_bytes(source.columns, self.shape)),
            Part("decoding", workers * sum(reader.scratch_bytes for reader in source.columns)),
            Part("rows in float32", workers * 20 * min(TILE, self.shape.block_rows) * depth),
            Part("pool of rows", 12 * min(self.pool, source.rows) * depth + (2 << 20)),  # decoded, and while exchanged
            Part("earlier vectors", 24 * PAST * depth),
            Part("directions", 8 * depth * (2 * sample + 2 * self.directions) + 40 * min(sample, depth) ** 2),
            Part("bounds of all rows", (96 + 4 * min(self.directions, depth)) * source.rows),
            Part("rows kept", min(self.kept, source.rows) * (source.row_bytes + 8)),
        )
