"""RapidIn: whole gradients, shuffled and summed in K groups. Lin et al. 2024, arXiv 2405.11724, section 3.2.

From the paper: a random order and random signs of all numbers of a gradient, summed in groups to K = 65,536 half-precision
numbers; the inner product of two such rows. Left out: LoRA (all chosen layers are used), several successive shuffles (one uniform
hash has the same effect), layer-wise gradient norms. Here for comparison: 131 KB per example.
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
    CountSketch,
    Head,
    ModelShape,
    OutputSpec,
    QueryMatrix,
    SettingsError,
    Similarity,
    Windows,
    column,
    count_sketch,
    outer_sums,
    unit,
)

_EXAMPLES = 8  # examples whose whole gradients of one layer are in memory at a time


@dataclass(frozen=True)
class RapidIn(Similarity):
    """Settings of RapidIn's index.

    Use it to compare with RapidIn: whole gradients of the layers that `layers` names.
    """

    api: ClassVar[int] = 2

    layers: tuple[str, ...] = ("*",)
    """Names of linear layers, or patterns such as *.mlp.*."""
    groups: int = 65_536
    """K: numbers of a row."""
    seed: int = 0
    """Seed of the order and the signs."""

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        if self.groups < 1:
            raise SettingsError("rapidin needs groups ≥ 1")

    def columns(self, model: ModelShape) -> tuple[Column, ...]:
        """The grouped gradient, of unit norm."""
        return (column("gradient", (self.groups,), "float16"),)

    def needs(self, model: ModelShape) -> OutputSpec:
        """Inputs and output gradients of the layers."""
        return OutputSpec(linear_layers=tuple(layer.name for layer in model.layers_matching(self.layers)))

    def scratch(self, model: ModelShape, positions: int) -> int:
        """Bytes of group and sign of each weight, some whole gradients, rows."""
        layers = model.layers_matching(self.layers)
        weights, widest = (
            sum(layer.inputs * layer.outputs for layer in layers),
            max(layer.inputs * layer.outputs for layer in layers),
        )
        floats = max(positions, model.max_length) * max(layer.inputs + layer.outputs for layer in layers)
        rows = 3 * self.groups * min(positions, BATCH_EXAMPLES)
        return 12 * weights + 48 * widest + 4 * (2 * _EXAMPLES * widest + floats + rows)

    def precompute(self, head: Head, state: Mapping[str, Array]) -> dict[str, CountSketch]:
        """The group and sign of each weight, by layer."""
        device = head.weight.device
        return {
            layer.name: count_sketch(
                layer.inputs * layer.outputs, self.groups, self.seed, f"rapidin.{layer.name}", device
            )
            for layer in head.model_shape.layers_matching(self.layers)
        }

    def sketch(self, outputs: BatchOutputs, precomputed: dict[str, CountSketch]) -> dict[str, torch.Tensor]:
        """`gradient` (n, K) float32."""
        total = torch.zeros(outputs.examples, self.groups, device=outputs.example_ids.device)
        for name, sketch in precomputed.items():
            io = outputs.linear_io(name)
            for first in range(0, outputs.examples, _EXAMPLES):
                in_group = (io.example_ids >= first) & (io.example_ids < first + _EXAMPLES)
                count = min(_EXAMPLES, outputs.examples - first)
                output_grads, inputs = io.output_grads[in_group].float(), io.inputs[in_group].float()
                gradients = outer_sums(output_grads, inputs, io.example_ids[in_group] - first, count).flatten(1)
                total[first : first + count].index_add_(1, sketch.bucket, gradients * sketch.sign)
        return {"gradient": total}

    def normalize(
        self, sums: Mapping[str, torch.Tensor], windows: Windows, parts: Mapping[str, torch.Tensor] | None = None
    ) -> dict[str, torch.Tensor]:
        """`gradient` (n, K) float32, of unit norm."""
        return {"gradient": unit(sums["gradient"], parts["gradient"] if parts else None)}

    def prepare(self, rows: Mapping[str, Array], state: Mapping[str, Array]) -> QueryMatrix:
        """The queries' gradients."""
        return QueryMatrix("gradient", np.ascontiguousarray(rows["gradient"], np.float32))
