"""The choice as a problem: objective, count or cost limits, quotas, memory budget, result. Knows columns; not how rows are
chosen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ....store.layout import Array
from ...runtime.memory import Part, Plan
from ..moments import TILE
from ..scan.scan_loop import ScanShape, blocks_bytes
from .bounds import PAST
from .row_cache import RowSource

DIRECTIONS = (128, 96, 64, 32, 8, 1)
"""Candidate numbers of principal directions (of a sample of rows) used in bounds; the largest that fits in memory."""
CACHE_BYTES = (512 << 20, 128 << 20, 0)
"""Candidate sizes of the row cache; the largest that fits in memory."""

COMPARED = 256
"""Chosen rows that other rows are compared with at a time."""


def sampled(rows: int, depth: int) -> int:
    """Number of sampled rows from which principal directions are computed."""
    return min(rows, max(256, min(1024, (32 << 20) // (8 * depth))))


@dataclass(frozen=True, slots=True)
class Objective:
    """The marginal gain: Δ(j|S) = ⟨v − cΦ_S, φ_j⟩ − (c/2)‖φ_j‖²."""

    vector: Array
    """v: (D,) float64."""
    penalty: float
    """c ≥ 0: the sum form's λ/n."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The chosen rows, in order."""

    rows: Array
    """(n,) int64: row numbers."""
    gains: Array
    """(n,) float64: Δ of each row when it was chosen. If rows are chosen one at a time, Û of the sum form rises by it."""
    total: Array
    """(D,) float64: Φ_S at the end."""
    passes: int
    """Number of passes over all rows."""
    fetched: int
    """Rows read individually, outside passes."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Constraints of a selection."""

    count: int
    """Maximum number of rows."""
    eligible: Array
    """(N,) bool: rows that may be chosen."""
    cost: Array | None = None
    """(N,) float32 > 0; gains are divided by it."""
    budget: float = np.inf
    """Maximum sum of costs."""
    group: Array | None = None
    """(N,) int64: group of each row."""
    caps: Array | None = None
    """(groups,) maximum number of rows per group."""
    batch: int = 1
    """Rows chosen per step, ignoring their interaction; 1 is exact."""
    texts: Array | None = None
    """(N,) int32: number of the text that a row has in common with other rows, of which one is chosen; -1: with none."""
    similarity: float | None = None
    """Cosine with a chosen row from which on a row is a near copy, and not chosen."""


@dataclass(frozen=True, slots=True)
class Room:
    """Memory settings; the chosen rows do not depend on them, except if a batch exceeds the pool."""

    pool: int
    """Rows whose gains are computed at every step."""
    directions: int
    """Number of principal directions in the bounds."""
    cached_rows: int
    """Capacity of the row cache, in rows."""
    shape: ScanShape
    """Block size and workers of the passes."""
    chosen_rows: int = 0
    """Chosen rows that are in memory to be compared with; only with a similarity."""

    def parts(self, source: RowSource) -> Plan:
        """The memory plan of a choice."""
        depth, sample, workers = (
            source.precision.depth,
            sampled(source.rows, source.precision.depth),
            self.shape.workers,
        )
        return Plan.of(
            Part("blocks in flight", blocks_bytes(source.columns, self.shape)),
            Part("decoding", workers * sum(reader.scratch_bytes for reader in source.columns)),
            Part("rows in float32", workers * 20 * min(TILE, self.shape.block_rows) * depth),
            Part("pool of rows", 12 * min(self.pool, source.rows) * depth + (2 << 20)),  # decoded, and while exchanged
            Part("earlier vectors", 24 * PAST * depth),
            Part("directions", 8 * depth * (2 * sample + 2 * self.directions) + 40 * min(sample, depth) ** 2),
            Part("bounds of all rows", (96 + 4 * min(self.directions, depth)) * source.rows),
            Part("chosen rows", self._chosen_bytes(source)),
            Part("cached rows", min(self.cached_rows, source.rows) * (source.row_bytes + 8)),
        )

    def _chosen_bytes(self, source: RowSource) -> int:
        """Memory of chosen rows, of rows that are compared with them, and of their cosines."""
        if not self.chosen_rows:
            return 0
        tiles, pool = self.shape.workers * min(TILE, self.shape.block_rows), min(self.pool, source.rows)
        rows = min(self.chosen_rows, source.rows) + pool + 2 * tiles + 4 * COMPARED
        return 4 * rows * source.precision.depth + 40 * (pool + tiles * COMPARED)
