"""`headcos`, `headgn`: the head's sketched gradient, its cosine or preconditioned by its damped second moment.

`headcos` is the cosine of two examples' head gradients Σ r_t h_tᵀ, sketched to k² numbers; it ignores the rest of the model. RISE
refines it: truncated residuals, unit norm of each position, and the error that is propagated back into the trunk. A head whose
V·D numbers fit into k² is not sketched at all.

`headgn` preconditions it: q ↦ (F + λ mean(diag F) 1)⁻¹ q with F the second moment of the stored gradients, in sketch space. It
is the influence (Koh & Liang 2017) of the last layer with the empirical Gauss-Newton matrix: the closed form of what a steering
operator on the last hidden state learns by gradient descent. From the paper: the inverse. Left out: the true (not empirical)
Fisher.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import torch

from . import (
    Array,
    BatchOutputs,
    Column,
    HeadSketch,
    JsonObject,
    ModelShape,
    OutputSpec,
    QueryMatrix,
    SettingsError,
    Similarity,
    Windows,
    column,
    preconditioned,
    require_sketch,
    unit,
)


@dataclass(frozen=True)
class HeadGn(Similarity):
    """Settings of `headgn`.

    Use it for influence through the output layer without a backward pass, where `headkfac`'s fit before the first row
    is not affordable.
    """

    api: ClassVar[int] = 2

    k: int = 48
    """Buckets per side: a row has at most k² numbers, and their second moment k⁴."""
    damping: float = 0.1
    """λ, as a multiple of the mean of the second moment's diagonal."""
    seed: int = 0
    """Seed of the sketches."""
    exact: bool = True
    """Whether a side of at most k numbers is stored as it is, and the other gets the numbers that this frees."""

    @classmethod
    def from_settings(cls, settings: JsonObject) -> Self:
        """An instance with these settings; rows of stores that were written before `exact` are sketched on both sides."""
        is_older = cls.records_all_but(settings, "exact")
        return super().from_settings({**settings, "exact": False} if is_older else settings)

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        require_sketch(type(self).__name__.lower(), self.k)
        if not self.damping > 0:
            raise SettingsError("headgn needs damping > 0")

    def columns(self, model: ModelShape) -> tuple[Column, ...]:
        """The gradient."""
        return (column("gradient", (self._numbers(model),), "float32"),)

    def needs(self, model: ModelShape) -> OutputSpec:
        """Residuals."""
        return OutputSpec(reductions=(self._head_sketch(model).residual,))

    def _head_sketch(self, model: ModelShape) -> HeadSketch:
        return HeadSketch.of(model, self.k, self.seed, exact=self.exact)

    def _numbers(self, model: ModelShape) -> int:
        sketch = self._head_sketch(model)
        return sketch.outputs * sketch.inputs

    def remarks(self, model: ModelShape) -> tuple[str, ...]:
        """The shape that the head's gradient gets."""
        return (self._head_sketch(model).remark(),)

    def scratch(self, model: ModelShape, positions: int) -> int:
        """Bytes of sketches, residuals, rows."""
        return self._head_sketch(model).scratch(positions)

    def sketch(self, outputs: BatchOutputs, precomputed: None) -> dict[str, torch.Tensor]:
        """`gradient` (n, at most k²) float32."""
        return {"gradient": self._head_sketch(outputs.head.model_shape).sums(outputs)}

    def statistics(self, model: ModelShape) -> tuple[str, tuple[int, ...]] | None:
        """The second moment of the rows."""
        return "gradient", (self._numbers(model),)

    def prepare(self, rows: Mapping[str, Array], state: Mapping[str, Array]) -> QueryMatrix:
        """The queries' gradients times the inverse of the damped second moment."""
        solved = preconditioned(rows["gradient"], state["gram0"], self.damping)
        return QueryMatrix("gradient", solved.astype(np.float32))


@dataclass(frozen=True)
class HeadCos(HeadGn):
    """Settings of `headcos`; `damping` is not used.

    Use it as the plain cosine of the output layer's gradients, to see what RISE's weights and windows add.
    """

    k: int = 64
    """Buckets per side: a row has at most k² numbers."""

    def columns(self, model: ModelShape) -> tuple[Column, ...]:
        """The gradient, of unit norm."""
        return (column("gradient", (self._numbers(model),), "float16"),)

    def normalize(
        self, sums: Mapping[str, torch.Tensor], windows: Windows, parts: Mapping[str, torch.Tensor] | None = None
    ) -> dict[str, torch.Tensor]:
        """`gradient` (n, at most k²) float32, of unit norm."""
        return {"gradient": unit(sums["gradient"], parts["gradient"] if parts else None)}

    def statistics(self, model: ModelShape) -> tuple[str, tuple[int, ...]] | None:
        """No statistics are needed."""
        return None

    def prepare(self, rows: Mapping[str, Array], state: Mapping[str, Array]) -> QueryMatrix:
        """The queries' gradients."""
        return QueryMatrix("gradient", np.ascontiguousarray(rows["gradient"], np.float32))
