"""Mean hidden states: the cosine of two examples' mean hidden states at one layer."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from headwater.plugins import (
    BATCH_EXAMPLES,
    Array,
    BatchOutputs,
    Column,
    ModelShape,
    OutputSpec,
    QueryMatrix,
    Similarity,
    Windows,
    column,
    unit,
)

Sums = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class MeanHidden(Similarity):
    """Settings of the method."""

    api: ClassVar[int] = 2

    layer: int = -1
    """Layer whose states are averaged: 0 is the embedding's output, -1 what the head reads."""

    def columns(self, model: ModelShape) -> tuple[Column, ...]:
        """The mean, of unit norm."""
        return (column("mean", (model.hidden,), "float16"),)

    def needs(self, model: ModelShape) -> OutputSpec:
        """The layer, where it is not the last one, which is always there."""
        return OutputSpec() if self.layer == -1 else OutputSpec(layers=(self.layer,))

    def scratch(self, model: ModelShape, positions: int) -> int:
        """The states in float32, and the rows before and after their norm."""
        return 4 * model.hidden * (positions + 4 * min(positions, BATCH_EXAMPLES))

    def sketch(self, outputs: BatchOutputs, precomputed: None) -> dict[str, torch.Tensor]:
        """(n, D): the sum over an example's positions; of no position it is zero."""
        hidden = outputs.hidden(self.layer).float()  # (P, D)
        sums = torch.zeros(outputs.examples, hidden.shape[1], device=hidden.device)
        return {"mean": sums.index_add_(0, outputs.example_ids, hidden)}

    def normalize(self, sums: Sums, windows: Windows, parts: Sums | None = None) -> dict[str, torch.Tensor]:
        """To unit norm, which makes the mean of the sum; zero stays zero."""
        return {"mean": unit(sums["mean"], parts["mean"] if parts else None)}

    def prepare(self, rows: Mapping[str, Array], state: Mapping[str, Array]) -> QueryMatrix:
        """The score is the inner product of unit vectors."""
        return QueryMatrix("mean", rows["mean"])
