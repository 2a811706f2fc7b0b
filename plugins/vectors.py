"""Vectors that another tool computed, such as gradients of its index: inner product or cosine.

For stores made from an array `vectors`, or from an index of bergson's. Kept: the numbers as they are (or smaller, by
`precision`). Dropped: whatever the other tool does to them when it is asked, such as its own preconditioning.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..engine.interface.method import QueryMatrix, Similarity
from ..engine.interface.model_view import BATCH_EXAMPLES, BatchOutputs, ModelShape
from ..store.layout import Array, Column, column


@dataclass(frozen=True)
class Vectors(Similarity):
    """Settings of vectors."""

    unit: bool = False
    """To unit norm: the score is a cosine."""

    def columns(self, model: ModelShape) -> tuple[Column, ...]:
        """The vector."""
        return (column("vector", (model.hidden,), "float32"),)

    def scratch(self, model: ModelShape, positions: int) -> int:
        """The vectors, and their sums over positions."""
        return 4 * model.hidden * (positions + 3 * min(positions, BATCH_EXAMPLES)) + 8 * positions

    def rows(self, outputs: BatchOutputs, tables: Any) -> dict[str, torch.Tensor]:
        """`vector` (n, D) float32: what the head reads, summed over positions."""
        hidden = outputs.hidden().float()
        sums = torch.zeros(outputs.examples, hidden.shape[1], device=hidden.device).index_add_(
            0, outputs.example_ids, hidden
        )
        return {"vector": torch.nn.functional.normalize(sums, eps=1e-30) if self.unit else sums}

    def prepare(self, rows: Mapping[str, Array], state: Mapping[str, Array]) -> QueryMatrix:
        """The queries' vectors."""
        return QueryMatrix("vector", np.ascontiguousarray(rows["vector"], np.float32))
