"""TrackStar: projected gradients, preconditioned on both sides, to unit norm. Chang et al. 2024, arXiv 2410.17413, section 4.

Score: ⟨G(i), G(q)⟩ with G(z) = R g_z / ‖R g_z‖, R² = the damped inverse of the second moment of projected gradients. From the
paper: the projection on both sides of each layer, R from the stored gradients, unit norms. Left out: division of each parameter's
gradient by the optimizer's second moment (a checkpoint rarely has it), and the queries' second moment as a part of R.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from . import Array, Block, BlockSimilarity, ModelShape, QueryMatrix, SettingsError, inverse_root
from .gradients import GradDot


@dataclass(frozen=True)
class TrackStar(GradDot, BlockSimilarity):
    """Settings of TrackStar.

    Use it where directions that all gradients have in common should not decide.
    """

    k: int = 32
    """Buckets per side: a row has k² numbers."""
    damping: float = 0.1
    """Damping, as a multiple of the mean of the second moment's diagonal."""

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        super().__post_init__()
        if not self.damping > 0:
            raise SettingsError("trackstar needs damping > 0")

    def statistics(self, model: ModelShape) -> tuple[str, tuple[int, ...]]:
        """The second moment of the stored gradients."""
        return "gradient", (self.k**2,)

    def prepare(self, rows: Mapping[str, Array], state: Mapping[str, Array]) -> QueryMatrix:
        """R g_q, of unit norm, and R for the stored rows."""
        root = inverse_root(state["gram0"], self.damping)
        preconditioned_rows = rows["gradient"].astype(np.float64) @ root
        return QueryMatrix(
            "gradient", _unit(preconditioned_rows).astype(np.float32), shared={"root": root.astype(np.float32)}
        )

    def score(self, queries: QueryMatrix, block: Block) -> Array:
        """(rows, Q) cosines of preconditioned gradients."""
        scores: Array = _unit(block.columns["gradient"] @ queries.shared["root"]) @ queries.matrix.T
        return scores


def _unit(rows: Array) -> Array:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    unit_rows: Array = np.ascontiguousarray(rows / np.where(norms > 0, norms, 1))
    return unit_rows
