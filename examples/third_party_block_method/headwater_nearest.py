"""Nearest hidden states: minus the squared distance of two examples' mean hidden states."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from headwater.plugins import (
    BATCH_EXAMPLES,
    Array,
    BatchOutputs,
    Block,
    BlockSimilarity,
    Column,
    ModelShape,
    QueryMatrix,
    Windows,
    column,
)

Sums = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Nearest(BlockSimilarity):
    """Settings of the method: none of its own."""

    api: ClassVar[int] = 2

    def columns(self, model: ModelShape) -> tuple[Column, ...]:
        """The mean state."""
        return (column("mean", (model.hidden,), "float32"),)

    def scratch(self, model: ModelShape, positions: int) -> int:
        """The states in float32, sums and means."""
        return 4 * model.hidden * (positions + 4 * min(positions, BATCH_EXAMPLES))

    def sketch(self, outputs: BatchOutputs, precomputed: None) -> dict[str, torch.Tensor]:
        """(n, D): the sum over an example's positions."""
        hidden = outputs.hidden().float()  # (P, D)
        sums = torch.zeros(outputs.examples, hidden.shape[1], device=hidden.device)
        return {"mean": sums.index_add_(0, outputs.example_ids, hidden)}

    def normalize(self, sums: Sums, windows: Windows, parts: Sums | None = None) -> dict[str, torch.Tensor]:
        """(n, D): over the number of positions."""
        counts = torch.tensor(windows.counts, device=sums["mean"].device).clamp(min=1)
        return {"mean": (parts or sums)["mean"] / counts[:, None]}

    def prepare(self, rows: Mapping[str, Array], state: Mapping[str, Array]) -> QueryMatrix:
        """The queries' means, and their squared norms, one a query."""
        means = np.ascontiguousarray(rows["mean"], np.float32)
        return QueryMatrix("mean", means, per_query={"square": (means**2).sum(1)})

    def score(self, queries: QueryMatrix, block: Block) -> Array:
        """(rows, Q): 2⟨x, q⟩ − ‖x‖² − ‖q‖²."""
        means = block.columns["mean"]
        scores: Array = 2 * (means @ queries.matrix.T) - (means**2).sum(1, keepdims=True) - queries.per_query["square"]
        return scores
