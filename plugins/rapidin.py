"""RapidIn: whole gradients, shuffled and summed in K groups. Lin et al. 2024, arXiv 2405.11724, section 3.2.

Kept: a random order and random signs of all of a gradient's numbers, summed in groups to K = 65,536 half-precision ones, which
is what its store costs; the inner product of two such rows. Dropped: LoRA (all chosen maps are taken), several shuffles one
after the other (one uniform hash does what they do), layer-wise gradient norms. Here for comparison: 131 KB an example.
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

_EXAMPLES = 8  # whose whole gradients of one map are held at once


@dataclass(frozen=True)
class RapidIn(Similarity):
    """Settings of RapidIn's index."""

    api: ClassVar[int] = 2

    layers: tuple[str, ...] = ("*",)
    """Names of the linear maps, or patterns of them."""
    groups: int = 65_536
    """K: numbers of a row."""
    seed: int = 0
    """Of the order and the signs."""

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        if self.groups < 1:
            raise SettingsError("rapidin needs groups ≥ 1")

    def columns(self, model: ModelShape) -> tuple[Column, ...]:
        """The grouped gradient's direction."""
        return (column("gradient", (self.groups,), "float16"),)

    def needs(self, model: ModelShape) -> OutputSpec:
        """Traces of the maps."""
        return OutputSpec(linear_layers=tuple(one.name for one in model.layers_matching(self.layers)))

    def scratch(self, model: ModelShape, positions: int) -> int:
        """Groups and signs of every weight, some whole gradients, rows."""
        maps = model.layers_matching(self.layers)
        weights, widest = sum(m.inputs * m.outputs for m in maps), max(m.inputs * m.outputs for m in maps)
        floats = max(positions, model.max_length) * max(m.inputs + m.outputs for m in maps)
        rows = 3 * self.groups * min(positions, BATCH_EXAMPLES)
        return 12 * weights + 48 * widest + 4 * (2 * _EXAMPLES * widest + floats + rows)

    def precompute(self, head: Head, state: Mapping[str, Array]) -> dict[str, CountSketch]:
        """Where each weight goes, and with what sign."""
        device = head.weight.device
        return {
            one.name: count_sketch(one.inputs * one.outputs, self.groups, self.seed, f"rapidin.{one.name}", device)
            for one in head.model_shape.layers_matching(self.layers)
        }

    def sketch(self, outputs: BatchOutputs, precomputed: dict[str, CountSketch]) -> dict[str, torch.Tensor]:
        """`gradient` (n, K) float32."""
        total = torch.zeros(outputs.examples, self.groups, device=outputs.example_ids.device)
        for name, sketch in precomputed.items():
            trace = outputs.linear_io(name)
            for first in range(0, outputs.examples, _EXAMPLES):
                own = (trace.example_ids >= first) & (trace.example_ids < first + _EXAMPLES)
                count = min(_EXAMPLES, outputs.examples - first)
                errors, inputs = trace.output_grads[own].float(), trace.inputs[own].float()
                whole = outer_sums(errors, inputs, trace.example_ids[own] - first, count).flatten(1)
                total[first : first + count].index_add_(1, sketch.bucket, whole * sketch.sign)
        return {"gradient": total}

    def normalize(
        self, sums: Mapping[str, torch.Tensor], windows: Windows, parts: Mapping[str, torch.Tensor] | None = None
    ) -> dict[str, torch.Tensor]:
        """`gradient` (n, K) float32, of unit norm."""
        return {"gradient": unit(sums["gradient"], parts["gradient"] if parts else None)}

    def prepare(self, rows: Mapping[str, Array], state: Mapping[str, Array]) -> QueryMatrix:
        """The queries' gradients."""
        return QueryMatrix("gradient", np.ascontiguousarray(rows["gradient"], np.float32))
