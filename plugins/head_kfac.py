"""Influence through the head by its own curvature: K-FAC's Fisher matrix, fitted by a forward pass without labels (`headkfac`).

The head's gradient of an example is g = Σ_t r_t h_tᵀ (V × D), its Fisher matrix B ⊗ A (Martens & Grosse 2015, arXiv 1503.05671;
`engine/sketches/head_fisher.py`). The influence of example i on query q (Koh & Liang 2017, arXiv 1703.04730, equation 2) is
Σ_{b,a} ĝ_q ĝ_i / (λ_b λ_a + γ λ̄), with ĝ = U_Bᵀ g U_A. A row holds the coordinates ĝ / √(λ_b λ_a + γ λ̄) of the largest λ_b λ_a;
λ̄ is the mean of these. The bases are fitted on a sample of the corpus before the first row. For vocabularies above 4,096 the
error Wᵀ r takes the place of r.

Nothing is hashed: a CountSketch of preconditioned gradients loses what the preconditioner gains. What lowered the LDS, or changed
nothing, is left out (`examples/benchmarks/head_curvature.py`): EK-FAC's corrected eigenvalues (George et al. 2018, arXiv
1806.03884); whitening each side by itself, with as many eigenvectors of each. Knows no store and no text.
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
    example_bounds,
    head_product,
    head_product_bytes,
    tile_bytes,
    unit,
)


@dataclass(frozen=True, slots=True)
class HeadBasis:
    """The eigenbasis, ready for batches."""

    residual: ProjectedResidual
    """The eigenvectors of the residuals' side, (V, V'); of the errors' side, W times them."""
    inputs: torch.Tensor
    """Those of the hidden states' side, (D, D') float32."""
    places: torch.Tensor
    """(m,) int64: where the coordinates stand in a flattened (V', D') product."""
    weights: torch.Tensor
    """(m,) float32: 1 / √(λ_b λ_a + γ λ̄)."""


@dataclass(frozen=True)
class HeadKfac(Similarity):
    """Settings of `headkfac`.

    Use it for influence through the output layer, by its curvature, without a backward pass.
    """

    api: ClassVar[int] = 2

    m: int = 1024
    """Most coordinates of a row: those with the largest eigenvalues λ_b λ_a."""
    rank: int = 256
    """Most eigenvectors of the residuals' side."""
    damping: float = 0.1
    """γ, as a multiple of the mean eigenvalue of the coordinates."""
    cosine: bool = False
    """Whether rows have unit norm: the cosine of whitened gradients in place of the influence."""

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        if self.m < 1 or self.rank < 1:
            raise SettingsError("headkfac needs m ≥ 1 and rank ≥ 1")
        if not self.damping > 0:
            raise SettingsError("headkfac needs damping > 0")

    def shape(self, model: ModelShape) -> FisherShape:
        """The sizes of the head, and of what is stored."""
        return FisherShape(model.hidden, model.vocabulary, self.rank, self.m)

    def columns(self, model: ModelShape) -> tuple[Column, ...]:
        """The whitened coordinates. Sums over positions of a sure model may exceed float16."""
        return (column("coordinates", (self.shape(model).numbers,), "float16" if self.cosine else "float32"),)

    def remarks(self, model: ModelShape) -> tuple[str, ...]:
        """How much of the head's gradient a row holds."""
        shape = self.shape(model)
        head = f"the head's gradient ({model.vocabulary:,} × {model.hidden:,})"
        if shape.is_whole:
            return (f"{head} is stored exactly",)
        way = ", read through the head," if shape.reads_errors else ""
        return (f"{head}{way} is stored in its {shape.numbers:,} leading eigen coordinates",)

    def scratch(self, model: ModelShape, positions: int) -> int:
        """Bytes of the bases, a tile's residuals, projected positions, and rows."""
        shape, hidden = self.shape(model), model.hidden
        bases = 12 * shape.width * (model.vocabulary + hidden) + 8 * hidden**2 + 40 * shape.numbers
        bases += head_product_bytes(hidden, shape.width) + 8 * shape.width * hidden
        rows = 12 * shape.numbers * min(positions, BATCH_EXAMPLES)
        return bases + 2 * tile_bytes(model.vocabulary) + positions * 4 * (2 * shape.width + 3 * hidden) + rows

    def fit(self, model: ModelShape) -> FisherSums:
        """Sums of both factors of the Fisher matrix."""
        return FisherSums(self.shape(model))

    def fit_scratch(self, model: ModelShape, positions: int) -> int:
        """Bytes of the sums and their eigendecompositions."""
        return self.shape(model).bytes()

    def precompute(self, head: Head, state: Mapping[str, Array]) -> HeadBasis:
        """Both bases on the model's device, and the weights of the coordinates."""
        values, width = state["eigenvalues"], state["input_basis"].shape[1]
        shift = self.damping * float(values.mean())
        weights = (1 / np.sqrt(values + shift) if shift > 0 else np.ones_like(values)).astype(np.float32)
        arrays = state["output_basis"], state["input_basis"], state["output_at"] * width + state["input_at"], weights
        outputs, inputs, places, scales = (torch.from_numpy(np.array(array)).to(head.weight.device) for array in arrays)
        if self.shape(head.model_shape).reads_errors:
            outputs = head_product(head.weight, outputs)
        return HeadBasis(ProjectedResidual(outputs), inputs, places, scales)

    def reductions(self, precomputed: HeadBasis) -> tuple[Reduction, ...]:
        """The residual in the eigenbasis."""
        return (precomputed.residual,)

    def sketch(self, outputs: BatchOutputs, precomputed: HeadBasis) -> dict[str, torch.Tensor]:
        """`coordinates` (n, m) float32: the examples' gradients in the eigenbasis, whitened."""
        (left,) = outputs.reduced(precomputed.residual)  # (P, V')
        right = outputs.hidden().float() @ precomputed.inputs  # (P, D')
        rows = torch.zeros(outputs.examples, len(precomputed.places), device=left.device)
        for row, (start, stop) in zip(rows, example_bounds(outputs), strict=True):
            torch.take(left[start:stop].T @ right[start:stop], precomputed.places, out=row)
        return {"coordinates": rows.mul_(precomputed.weights)}

    def normalize(
        self, sums: Mapping[str, torch.Tensor], windows: Windows, parts: Mapping[str, torch.Tensor] | None = None
    ) -> dict[str, torch.Tensor]:
        """`coordinates` (n, m) float32: the sums, of unit norm if `cosine`."""
        whole, part = sums["coordinates"], parts["coordinates"] if parts else None
        if self.cosine:
            return {"coordinates": unit(whole, part)}
        return {"coordinates": whole if part is None else part}

    def prepare(self, rows: Mapping[str, Array], state: Mapping[str, Array]) -> QueryMatrix:
        """The queries' rows: the score is their inner product with the stored ones."""
        return QueryMatrix("coordinates", np.ascontiguousarray(rows["coordinates"], np.float32))
