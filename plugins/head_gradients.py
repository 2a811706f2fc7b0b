"""`headcos`, `headgn`: the head's sketched gradient, its cosine or preconditioned by its damped second moment.

`headcos` is the cosine of two examples' head gradients Σ r_t h_tᵀ, sketched to k² numbers; it ignores the rest of the model. RISE
refines it: truncated residuals, unit norm of each position, and the error that is propagated back into the trunk.

`headgn` preconditions it: q ↦ (F + λ mean(diag F) 1)⁻¹ q with F the second moment of the stored gradients, in sketch space. It
is the influence (Koh & Liang 2017) of the last layer with the empirical Gauss-Newton matrix: the closed form of what a steering
operator on the last hidden state learns by gradient descent. From the paper: the inverse. Left out: the true (not empirical)
Fisher.
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
    ModelShape,
    OutputSpec,
    QueryMatrix,
    SettingsError,
    Similarity,
    SketchedResidual,
    Windows,
    column,
    head_bytes,
    head_gradient_sums,
    preconditioned,
    require_sketch,
    unit,
)


@dataclass(frozen=True)
class HeadGn(Similarity):
    """Settings of `headgn`."""

    api: ClassVar[int] = 2

    k: int = 48
    """Buckets per side: a row has k² numbers, and their second moment k⁴."""
    damping: float = 0.1
    """λ, as a multiple of the mean of the second moment's diagonal."""
    seed: int = 0
    """Seed of the sketches."""

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        require_sketch(type(self).__name__.lower(), self.k)
        if not self.damping > 0:
            raise SettingsError("headgn needs damping > 0")

    def columns(self, model: ModelShape) -> tuple[Column, ...]:
        """The sketched gradient."""
        return (column("gradient", (self.k**2,), "float32"),)

    def needs(self, model: ModelShape) -> OutputSpec:
        """Sketched residuals."""
        return OutputSpec(reductions=(self._residual,))

    @property
    def _residual(self) -> SketchedResidual:
        return SketchedResidual(self.k, self.seed)

    def scratch(self, model: ModelShape, positions: int) -> int:
        """Bytes of sketches, residuals, rows."""
        return head_bytes(model.hidden, model.vocabulary, self.k, positions, min(positions, BATCH_EXAMPLES))

    def sketch(self, outputs: BatchOutputs, precomputed: None) -> dict[str, torch.Tensor]:
        """`gradient` (n, k²) float32."""
        return {"gradient": head_gradient_sums(outputs, self._residual, self.k)}

    def statistics(self, model: ModelShape) -> tuple[str, tuple[int, ...]] | None:
        """The second moment of the rows."""
        return "gradient", (self.k**2,)

    def prepare(self, rows: Mapping[str, Array], state: Mapping[str, Array]) -> QueryMatrix:
        """The queries' gradients times the inverse of the damped second moment."""
        solved = preconditioned(rows["gradient"], state["gram0"], self.damping)
        return QueryMatrix("gradient", solved.astype(np.float32))


@dataclass(frozen=True)
class HeadCos(HeadGn):
    """Settings of `headcos`; `damping` is not used."""

    k: int = 64
    """Buckets per side: a row has k² numbers."""

    def columns(self, model: ModelShape) -> tuple[Column, ...]:
        """The sketched gradient, of unit norm."""
        return (column("gradient", (self.k**2,), "float16"),)

    def normalize(
        self, sums: Mapping[str, torch.Tensor], windows: Windows, parts: Mapping[str, torch.Tensor] | None = None
    ) -> dict[str, torch.Tensor]:
        """`gradient` (n, k²) float32, of unit norm."""
        return {"gradient": unit(sums["gradient"], parts["gradient"] if parts else None)}

    def statistics(self, model: ModelShape) -> tuple[str, tuple[int, ...]] | None:
        """No statistics are needed."""
        return None

    def prepare(self, rows: Mapping[str, Array], state: Mapping[str, Array]) -> QueryMatrix:
        """The queries' gradients."""
        return QueryMatrix("gradient", np.ascontiguousarray(rows["gradient"], np.float32))
