"""Mean hidden states: the cosine of two examples' mean hidden states at one layer."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from headwater.engine.interface.method import QueryMatrix, Similarity
from headwater.engine.interface.model_view import BATCH_EXAMPLES, BatchOutputs, ModelShape, OutputSpec
from headwater.store.layout import Array, Column, column


@dataclass(frozen=True)
class MeanHidden(Similarity):
    """Settings of the method."""

    layer: int = -1
    """Layer whose states are averaged: 0 is the embedding's output, -1 what the head reads."""

    def columns(self, sizes: ModelShape) -> tuple[Column, ...]:
        """The mean, of unit norm."""
        return (column("mean", (sizes.hidden,), "float16"),)

    def needs(self, sizes: ModelShape) -> OutputSpec:
        """The layer, where it is not the last one, which is always there."""
        return OutputSpec() if self.layer == -1 else OutputSpec(layers=(self.layer,))

    def scratch(self, sizes: ModelShape, positions: int) -> int:
        """The states in float32, and the rows before and after their norm."""
        return 4 * sizes.hidden * (positions + 3 * min(positions, BATCH_EXAMPLES))

    def rows(self, outputs: BatchOutputs, tables: Any) -> dict[str, torch.Tensor]:
        """(n, D): sum over an example's positions, to unit norm; what has no positions stays zero."""
        hidden = outputs.hidden(self.layer).float()  # (P, D)
        sums = torch.zeros(outputs.examples, hidden.shape[1], device=hidden.device)
        sums.index_add_(0, outputs.example_ids, hidden)
        return {"mean": torch.nn.functional.normalize(sums)}

    def prepare(self, rows: Mapping[str, Array], state: Mapping[str, Array]) -> QueryMatrix:
        """The score is the inner product of unit vectors."""
        return QueryMatrix("mean", rows["mean"])
