"""`headkfac`: influence through the head by its own curvature, K-FAC's Fisher matrix, fitted by a forward pass without labels.

The head's gradient of an example is g = Σ_t r_t h_tᵀ (V × D), its Fisher matrix B ⊗ A (Martens & Grosse 2015, arXiv 1503.05671;
`engine/sketches/head_fisher.py`), each side damped by γ times its mean eigenvalue (their section 6.3). The influence of example i
on query q (Koh & Liang 2017, arXiv 1703.04730, equation 2) is ⟨(B + γb̄)⁻¹ g_q (A + γā)⁻¹, g_i⟩. A row holds the whitened gradient
Σ_t (B + γb̄)^-½ r_t ⊗ (A + γā)^-½ h_t in the leading eigenvectors of both sides; the score is the inner product of two rows. The
bases are fitted on a sample of the corpus before the first row. For large vocabularies the error Wᵀ r takes the place of r.

Nothing is hashed: a CountSketch of preconditioned gradients loses what the preconditioner gains. From EK-FAC (George et al. 2018,
arXiv 1806.03884) the corrected eigenvalues are left out: they changed nothing (`examples/benchmarks/head_curvature.py`). Knows no
store and no text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from . import (
    BATCH_EXAMPLES,
    Array,
    BatchOutputs,
    Column,
    FisherShape,
    FisherSums,
    Head,
    ModelShape,
    ProjectedResidual,
    QueryMatrix,
    Reduction,
    SettingsError,
    Similarity,
    Windows,
    column,
    head_product,
    head_product_bytes,
    outer_sums,
    tile_bytes,
    unit,
    whitening,
    width_remark,
)

_FLOOR = 1e-8  # smallest norm that a position's residual is divided by


@dataclass(frozen=True, slots=True)
class HeadBasis:
    """Both sides' whitening, ready for batches."""

    residual: ProjectedResidual
    """Of the residual: (V, V')."""
    inputs: torch.Tensor
    """Of the hidden state: (D, D') float32."""


@dataclass(frozen=True)
class HeadKfac(Similarity):
    """Settings of `headkfac`."""

    api: ClassVar[int] = 2

    outputs: int = 32
    """Eigenvectors of the residuals' side."""
    inputs: int = 32
    """Eigenvectors of the hidden states' side: a row has outputs · inputs numbers, whichever side has fewer of its own."""
    damping: float = 0.1
    """γ: each side's eigenvalues are damped by this multiple of their mean."""
    unit_positions: bool = False
    """Whether each position's whitened residual has unit norm, so that sure positions count as much as others."""
    cosine: bool = False
    """Whether rows have unit norm: the cosine of whitened gradients in place of the influence."""

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        if self.outputs < 1 or self.inputs < 1:
            raise SettingsError("headkfac needs outputs ≥ 1 and inputs ≥ 1")
        if not self.damping > 0:
            raise SettingsError("headkfac needs damping > 0")

    def shape(self, model: ModelShape) -> FisherShape:
        """The sizes of the head, and of what is kept."""
        return FisherShape(model.hidden, model.vocabulary, self.outputs, self.inputs)

    def columns(self, model: ModelShape) -> tuple[Column, ...]:
        """The whitened gradient."""
        outputs, inputs = self.shape(model).widths
        return (column("gradient", (outputs * inputs,), "float16"),)

    def remarks(self, model: ModelShape) -> tuple[str, ...]:
        """How much of the head's gradient a row holds."""
        shape = self.shape(model)
        side = "errors" if shape.reads_errors else "residuals"
        if shape.is_whole:
            return (width_remark(model, *shape.widths),)
        outputs, inputs = shape.widths
        return (f"{outputs:,} eigenvectors of the {side} ({shape.output_size:,} numbers each) by {inputs:,} of the hidden states "
                f"({model.hidden:,})",)  # fmt: skip

    def scratch(self, model: ModelShape, positions: int) -> int:
        """Bytes of the bases, a tile's residuals, projected positions, and rows."""
        outputs, inputs = self.shape(model).widths
        bases = 12 * outputs * (model.vocabulary + model.hidden) + 8 * model.hidden * inputs
        projected = positions * 4 * (3 * outputs + 2 * model.hidden + inputs)
        rows = 12 * outputs * inputs * min(positions, BATCH_EXAMPLES)
        bases += head_product_bytes(model.hidden, outputs)
        return bases + 2 * tile_bytes(model.vocabulary) + projected + rows

    def fit(self, model: ModelShape) -> FisherSums:
        """Sums of both factors of the Fisher matrix."""
        return FisherSums(self.shape(model))

    def fit_scratch(self, model: ModelShape, positions: int) -> int:
        """Bytes of the sums and their eigendecompositions."""
        return self.shape(model).bytes()

    def precompute(self, head: Head, state: Mapping[str, Array]) -> HeadBasis:
        """Both sides' whitening, on the model's device; the errors' side is read through the head."""
        sides = [
            whitening(state[f"{side}_basis"], state[f"{side}_values"], self.damping) for side in ("output", "input")
        ]
        outputs, inputs = (torch.from_numpy(np.ascontiguousarray(side)).to(head.weight.device) for side in sides)
        if self.shape(head.model_shape).reads_errors:
            outputs = head_product(head.weight, outputs)
        return HeadBasis(ProjectedResidual(outputs), inputs)

    def reductions(self, precomputed: HeadBasis) -> tuple[Reduction, ...]:
        """The whitened residual."""
        return (precomputed.residual,)

    def sketch(self, outputs: BatchOutputs, precomputed: HeadBasis) -> dict[str, torch.Tensor]:
        """`gradient` (n, V'·D') float32."""
        (left,) = outputs.reduced(precomputed.residual)  # (P, V')
        if self.unit_positions:
            left = left / left.norm(dim=1, keepdim=True).clamp(min=_FLOOR)
        right = outputs.hidden().float() @ precomputed.inputs  # (P, D')
        return {"gradient": outer_sums(left, right, outputs.example_ids, outputs.examples).flatten(1)}

    def normalize(
        self, sums: Mapping[str, torch.Tensor], windows: Windows, parts: Mapping[str, torch.Tensor] | None = None
    ) -> dict[str, torch.Tensor]:
        """`gradient` (n, V'·D') float32: the sums, of unit norm if `cosine`."""
        whole, part = sums["gradient"], parts["gradient"] if parts else None
        if self.cosine:
            return {"gradient": unit(whole, part)}
        return {"gradient": whole if part is None else part}

    def prepare(self, rows: Mapping[str, Array], state: Mapping[str, Array]) -> QueryMatrix:
        """The queries' rows: the score is their inner product with the stored ones."""
        return QueryMatrix("gradient", np.ascontiguousarray(rows["gradient"], np.float32))
