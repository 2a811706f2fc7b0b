"""RepSim: cosine of mean hidden states of a layer, no gradient. Pezeshkpour et al. 2021, among others.

The cosine of hidden states of one layer, averaged over target positions; the layer and the positions differ from paper to paper.
It measures whether two texts are similar to the model, not whether the model learnt one from the other.
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
    Windows,
    column,
    unit,
)


@dataclass(frozen=True)
class RepSim(Similarity):
    """Settings of RepSim.

    Use it for examples that the model represents alike: one short row, by a forward pass alone.
    """

    api: ClassVar[int] = 2

    layer: int = -1
    """Hidden layer: -1 is the last one, which the head reads, 0 the embeddings' output."""

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        if self.layer < -1:
            raise SettingsError("repsim needs layer ≥ -1")

    def columns(self, model: ModelShape) -> tuple[Column, ...]:
        """The mean hidden state, of unit norm."""
        return (column("state", (model.hidden,), "float16"),)

    def needs(self, model: ModelShape) -> OutputSpec:
        """One hidden layer."""
        return OutputSpec(layers=() if self.layer == -1 else (self.layer,))

    def scratch(self, model: ModelShape, positions: int) -> int:
        """Bytes of hidden states in float32, and the rows."""
        return 4 * model.hidden * (positions + 4 * min(positions, BATCH_EXAMPLES)) + 8 * positions

    def sketch(self, outputs: BatchOutputs, precomputed: None) -> dict[str, torch.Tensor]:
        """`state` (n, D) float32."""
        hidden = outputs.hidden(self.layer).float()
        sums = torch.zeros(outputs.examples, hidden.shape[1], device=hidden.device)
        return {"state": sums.index_add_(0, outputs.example_ids, hidden)}

    def normalize(
        self, sums: Mapping[str, torch.Tensor], windows: Windows, parts: Mapping[str, torch.Tensor] | None = None
    ) -> dict[str, torch.Tensor]:
        """`state` (n, D) float32, of unit norm."""
        return {"state": unit(sums["state"], parts["state"] if parts else None)}

    def prepare(self, rows: Mapping[str, Array], state: Mapping[str, Array]) -> QueryMatrix:
        """The queries' states."""
        return QueryMatrix("state", np.ascontiguousarray(rows["state"], np.float32))
