"""Vectors of another tool, such as gradients of its index: inner product or cosine.

For stores made from an array `vectors`, or from an index of bergson. The numbers are stored unchanged (or in fewer bits, by
`precision`). The other tool's own processing of queries, such as preconditioning, is not repeated. Knows no store.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from . import BATCH_EXAMPLES, Array, BatchOutputs, Column, ModelShape, QueryMatrix, Similarity, Windows, column


@dataclass(frozen=True)
class Vectors(Similarity):
    """Settings of the comparison of vectors.

    Use it for vectors that another tool has computed.
    """

    api: ClassVar[int] = 2

    unit: bool = False
    """Whether vectors are scaled to unit norm: the score is then a cosine."""

    def columns(self, model: ModelShape) -> tuple[Column, ...]:
        """The vector."""
        return (column("vector", (model.hidden,), "float32"),)

    def scratch(self, model: ModelShape, positions: int) -> int:
        """Bytes of the vectors, and their sums over positions."""
        return 4 * model.hidden * (positions + 3 * min(positions, BATCH_EXAMPLES)) + 8 * positions

    def sketch(self, outputs: BatchOutputs, precomputed: None) -> dict[str, torch.Tensor]:
        """`vector` (n, D) float32: the vectors, summed over positions."""
        hidden = outputs.hidden().float()
        sums = torch.zeros(outputs.examples, hidden.shape[1], device=hidden.device).index_add_(
            0, outputs.example_ids, hidden
        )
        return {"vector": sums}

    def normalize(
        self, sums: Mapping[str, torch.Tensor], windows: Windows, parts: Mapping[str, torch.Tensor] | None = None
    ) -> dict[str, torch.Tensor]:
        """`vector` (n, D) float32, of unit norm with the setting `unit`."""
        contributions = (parts or sums)["vector"]
        norms = sums["vector"].norm(2, 1, keepdim=True).clamp_min(1e-30)
        return {"vector": contributions / norms if self.unit else contributions}

    def prepare(self, rows: Mapping[str, Array], state: Mapping[str, Array]) -> QueryMatrix:
        """The queries' vectors."""
        return QueryMatrix("vector", np.ascontiguousarray(rows["vector"], np.float32))
