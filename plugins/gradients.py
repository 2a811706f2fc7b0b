"""`graddot`, `gradcos`: inner product or cosine of sketched trunk gradients. TracIn at one checkpoint (Pruthi et al. 2020,
equation 1).

From the paper: the inner product of the loss gradients of two examples, by one backward pass per batch. Left out: checkpoints of
the training (one is used), gradients of the head and the embeddings (`headcos` has the head's; here are the trunk's linear
layers), and exactness: each layer's gradient is sketched on both sides, unbiased, to k² numbers. `gradcos` scales both gradients
to unit norm, so that long and surprising examples do not dominate (Barshan et al. 2020 on such normalisation).
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
    """Settings of the gradient dot product.

    Use it for self-influence, and where the size of an example's gradient should count: long and hard examples score
    high.
    """

    api: ClassVar[int] = 2

    layers: tuple[str, ...] = ("*",)
    """Names of linear layers, or patterns such as *.mlp.*."""
    k: int = 64
    """Buckets per side: a row has k² numbers."""
    seed: int = 0
    """Seed of the sketches."""

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        require_sketch(type(self).__name__.lower(), self.k)

    def columns(self, model: ModelShape) -> tuple[Column, ...]:
        """The sketched gradient, summed over all layers."""
        return (column("gradient", (self.k**2,), "float32"),)

    def needs(self, model: ModelShape) -> OutputSpec:
        """Inputs and output gradients of the layers."""
        return OutputSpec(linear_layers=tuple(layer.name for layer in model.layers_matching(self.layers)))

    def scratch(self, model: ModelShape, positions: int) -> int:
        """Bytes of sketches, and the products of one layer at a time."""
        return projection_bytes(model, model.layers_matching(self.layers), self.k, positions, self.k**2)

    def precompute(self, head: Head, state: Mapping[str, Array]) -> tuple[Projection, ...]:
        """The sketches of all layers."""
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
    """Settings of the gradient cosine.

    Use it in place of `graddot` where long and hard examples should not rank first by the size of their gradients.
    """

    def columns(self, model: ModelShape) -> tuple[Column, ...]:
        """The sketched gradient, of unit norm."""
        return (column("gradient", (self.k**2,), "float16"),)

    def normalize(
        self, sums: Mapping[str, torch.Tensor], windows: Windows, parts: Mapping[str, torch.Tensor] | None = None
    ) -> dict[str, torch.Tensor]:
        """`gradient` (n, k²) float32, of unit norm."""
        return {"gradient": unit(sums["gradient"], parts["gradient"] if parts else None)}
