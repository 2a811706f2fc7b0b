"""TRAK at one checkpoint: kernel regression on projected gradients of the margin. Park et al. 2023, arXiv 2303.14186, eq. 17.

With p the geometric mean of an example's token probabilities and f = log(p/(1-p)) its margin, ∇f = -∇ℓ/(1-p), ℓ the mean
loss. Score: φ(q)ᵀ (ΦᵀΦ + λ)⁻¹ φ(i) (1-p_i). From the paper: the projection, ΦᵀΦ of the stored rows, the weight 1-p. Left out: the
mean over several independently trained models, and soft thresholding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from . import (
    Array,
    BatchOutputs,
    Block,
    BlockSimilarity,
    Column,
    Loss,
    ModelShape,
    OutputSpec,
    Projection,
    QueryMatrix,
    SettingsError,
    Windows,
    column,
    preconditioned,
)
from .gradients import GradDot


@dataclass(frozen=True)
class Trak(GradDot, BlockSimilarity):
    """Settings of TRAK.

    Use it to compare with TRAK: the gradient of the margin instead of the loss.
    """

    k: int = 32
    """Buckets per side: a row has k² numbers."""
    damping: float = 0.01
    """Damping, as a multiple of the mean of the second moment's diagonal."""

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        super().__post_init__()
        if not self.damping > 0:
            raise SettingsError("trak needs damping > 0")

    def columns(self, model: ModelShape) -> tuple[Column, ...]:
        """φ, the margin's projected gradient, and the weight 1-p."""
        return column("gradient", (self.k**2,), "float32"), column("weight", (), "float32")

    def needs(self, model: ModelShape) -> OutputSpec:
        """Inputs and output gradients of the layers, and losses."""
        return OutputSpec(reductions=(Loss(),), linear_layers=super().needs(model).linear_layers)

    def sketch(self, outputs: BatchOutputs, precomputed: tuple[Projection, ...]) -> dict[str, torch.Tensor]:
        """`gradient` (n, k²) and `loss` (n,), float32."""
        (position_losses,) = outputs.reduced(Loss())
        losses = torch.zeros(outputs.examples, device=position_losses.device).index_add_(
            0, outputs.example_ids, position_losses
        )
        return {**super().sketch(outputs, precomputed), "loss": losses}

    def normalize(
        self, sums: Mapping[str, torch.Tensor], windows: Windows, parts: Mapping[str, torch.Tensor] | None = None
    ) -> dict[str, torch.Tensor]:
        """`gradient` (n, k²) of the margin, and `weight` (n,), float32."""
        counts = torch.tensor(windows.counts, device=sums["loss"].device).clamp(min=1)
        weight = -torch.expm1(-sums["loss"] / counts)  # 1 - p
        gradient = (parts or sums)["gradient"] / (counts * weight.clamp(min=1e-6))[:, None]
        return {"gradient": gradient, "weight": weight}

    def statistics(self, model: ModelShape) -> tuple[str, tuple[int, ...]]:
        """ΦᵀΦ/N."""
        return "gradient", (self.k**2,)

    def prepare(self, rows: Mapping[str, Array], state: Mapping[str, Array]) -> QueryMatrix:
        """φ(q) times the damped inverse."""
        solved = preconditioned(rows["gradient"], state["gram0"], self.damping)
        return QueryMatrix("gradient", solved.astype(np.float32))

    def score(self, queries: QueryMatrix, block: Block) -> Array:
        """(rows, Q): inner products times the weights of the stored rows."""
        scores: Array = block.columns["gradient"] @ queries.matrix.T * block.columns["weight"][:, None]
        return scores
