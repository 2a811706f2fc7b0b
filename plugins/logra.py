"""LoGra: gradients projected layer by layer, with a damped Fisher matrix per layer. Choe et al. 2024, arXiv 2405.13954,
section 3.1.

From the paper: a low-rank projection of each layer's inputs and output gradients, a block-diagonal Fisher matrix of the projected
gradients, its damped inverse on the query's side. Left out: projections on principal components (theirs start from PCA or at
random; these are CountSketches), and gradients sampled from the model's own predictions (the empirical Fisher is used).
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
    SettingsError,
    Similarity,
    column,
    preconditioned,
    projected,
    projection_bytes,
    projections,
    require_sketch,
)


@dataclass(frozen=True)
class LoGra(Similarity):
    """Settings of LoGra.

    Use it for influence through the trunk's linear layers, which sees what the output layer does not, where a backward
    pass over the corpus is affordable.
    """

    api: ClassVar[int] = 2

    layers: tuple[str, ...] = ("*",)
    """Names of linear layers, or patterns such as *.mlp.*."""
    k: int = 8
    """Rank per side: a row has k² numbers for each layer."""
    damping: float = 0.1
    """Damping, as a multiple of the mean of the Fisher matrix's diagonal."""
    seed: int = 0
    """Seed of the projections."""

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        require_sketch("logra", self.k)
        if not self.damping > 0:
            raise SettingsError("logra needs damping > 0")

    def columns(self, model: ModelShape) -> tuple[Column, ...]:
        """The projected gradients, one layer after the other."""
        return (column("gradient", (self._numbers(model),), "float32"),)

    def _numbers(self, model: ModelShape) -> int:
        return len(model.layers_matching(self.layers)) * self.k**2

    def needs(self, model: ModelShape) -> OutputSpec:
        """Inputs and output gradients of the layers."""
        return OutputSpec(linear_layers=tuple(layer.name for layer in model.layers_matching(self.layers)))

    def scratch(self, model: ModelShape, positions: int) -> int:
        """Bytes of projections, and the products of one layer at a time."""
        return projection_bytes(model, model.layers_matching(self.layers), self.k, positions, self._numbers(model))

    def precompute(self, head: Head, state: Mapping[str, Array]) -> tuple[Projection, ...]:
        """The projections of all layers."""
        return projections(head.model_shape.layers_matching(self.layers), self.k, self.seed, head.weight.device)

    def sketch(self, outputs: BatchOutputs, precomputed: tuple[Projection, ...]) -> dict[str, torch.Tensor]:
        """`gradient` (n, layers · k²) float32."""
        return {"gradient": torch.cat(list(projected(outputs, precomputed)), 1)}

    def statistics(self, model: ModelShape) -> tuple[str, tuple[int, ...]]:
        """The Fisher matrix of each layer."""
        return "gradient", (self.k**2,) * len(model.layers_matching(self.layers))

    def prepare(self, rows: Mapping[str, Array], state: Mapping[str, Array]) -> QueryMatrix:
        """Each layer's part of the queries' gradients times the inverse of its damped Fisher matrix."""
        parts = np.split(rows["gradient"], rows["gradient"].shape[1] // self.k**2, axis=1)
        solved = [preconditioned(part, state[f"gram{number}"], self.damping) for number, part in enumerate(parts)]
        return QueryMatrix("gradient", np.concatenate(solved, axis=1).astype(np.float32))
