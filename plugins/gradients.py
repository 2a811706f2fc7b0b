"""`graddot`, `gradcos`: inner product or cosine of sketched trunk gradients. TracIn at one checkpoint (Pruthi et al. 2020,
equation 1).

Kept: the inner product of the loss's gradients of two examples, by one backward pass a batch. Dropped: checkpoints along the
training (one is enough here), the head's and the embeddings' gradients (`headcos` has the head's; the trunk's linear maps are
here), and exactness: each map's gradient is sketched on both sides, unbiased, to k² numbers. `gradcos` puts both to unit norm,
which undoes that long and surprising examples win (Barshan et al. 2020 on such normalisation).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from . import (
    Array,
    BatchOutputs,
    Column,
    Head,
    ModelShape,
    OutputSpec,
    Projection,
    QueryMatrix,
    Similarity,
    Windows,
    column,
    projected,
    projection_bytes,
    projections,
    require_sketch,
    unit,
)


@dataclass(frozen=True)
class GradDot(Similarity):
    """Settings of the gradient dot product."""

    api: ClassVar[int] = 2

    layers: tuple[str, ...] = ("*",)
    """Names of the linear maps, or patterns of them, such as *.mlp.*."""
    k: int = 64
    """Buckets a side: a row has k² numbers."""
    seed: int = 0
    """Of the sketches."""

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        require_sketch(type(self).__name__.lower(), self.k)

    def columns(self, model: ModelShape) -> tuple[Column, ...]:
        """The sketched gradient, all maps' added."""
        return (column("gradient", (self.k**2,), "float32"),)

    def needs(self, model: ModelShape) -> OutputSpec:
        """Traces of the maps."""
        return OutputSpec(linear_layers=tuple(one.name for one in model.layers_matching(self.layers)))

    def scratch(self, model: ModelShape, positions: int) -> int:
        """Sketches, and one map's products at a time."""
        return projection_bytes(model, model.layers_matching(self.layers), self.k, positions, self.k**2)

    def precompute(self, head: Head, state: Mapping[str, Array]) -> tuple[Projection, ...]:
        """Sketches of every map."""
        return projections(head.model_shape.layers_matching(self.layers), self.k, self.seed, head.weight.device)

    def sketch(self, outputs: BatchOutputs, precomputed: tuple[Projection, ...]) -> dict[str, torch.Tensor]:
        """`gradient` (n, k²) float32."""
        total = torch.zeros(outputs.examples, self.k**2, device=outputs.example_ids.device)
        for part in projected(outputs, precomputed):
            total += part
        return {"gradient": total}

    def prepare(self, rows: Mapping[str, Array], state: Mapping[str, Array]) -> QueryMatrix:
        """The queries' gradients."""
        return QueryMatrix("gradient", np.ascontiguousarray(rows["gradient"], np.float32))


@dataclass(frozen=True)
class GradCos(GradDot):
    """Settings of the gradient cosine: the same, to unit norm."""

    def columns(self, model: ModelShape) -> tuple[Column, ...]:
        """The sketched gradient's direction."""
        return (column("gradient", (self.k**2,), "float16"),)

    def normalize(
        self, sums: Mapping[str, torch.Tensor], windows: Windows, parts: Mapping[str, torch.Tensor] | None = None
    ) -> dict[str, torch.Tensor]:
        """`gradient` (n, k²) float32, of unit norm."""
        return {"gradient": unit(sums["gradient"], parts["gradient"] if parts else None)}
