"""GRASP: utility of sets of examples, from sketched head gradients. A quadratic surrogate (arXiv 2606.06892; the surrogate is
ours).

φ_i is the mean over i's positions of −∇ of the loss with respect to the head, as a TensorSketch of residual ⊗ hidden state:
linear in the examples, so that a set is the mean of its rows, Φ̄_S. With v the mean row of a target task, the descent lemma gives
Û(S) = ⟨v, Φ̄_S⟩ − (λ/2)‖Φ̄_S‖²: rows of similar direction are penalised together, rows that complement each other are not. λ is
in raw units; at λ = 1 subsets are ranked by how closely their gradient matches the target's. `headwater predict`, `calibrate`
and `select` score sets. Single examples are scored here by the cost of leaving each out of the whole corpus D:
N(Û(D) − Û(D∖i)) = ⟨v − λΦ̄_D, φ_i⟩ + (λ/2N)‖φ_i‖², in the surrogate's sum form.

From the paper, of which only the abstract is public: subset utility, the quadratic penalty, sketched features, a finite set of
candidates for λ. Left out: preconditioners, which lowered the scores in our measurements. Knows no store and no text.
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
    Block,
    BlockSimilarity,
    BucketedResidual,
    Column,
    ModelShape,
    OutputSpec,
    QueryMatrix,
    SettingsError,
    Windows,
    column,
    tensor_sketch_bytes,
    tensor_sketch_sums,
    tensor_sketches_of,
)


@dataclass(frozen=True)
class Grasp(BlockSimilarity):
    """Settings of GRASP."""

    api: ClassVar[int] = 2

    m: int = 1024
    """Numbers of a feature."""
    weight: float = 1.0
    """λ for scores of single examples; commands about sets have their own λ."""
    seed: int = 0
    """Seed of the sketches."""

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        if self.m < 2 or self.weight < 0:
            raise SettingsError("grasp needs m ≥ 2 and weight ≥ 0")

    def columns(self, model: ModelShape) -> tuple[Column, ...]:
        """The feature φ, and its square norm ‖φ‖²."""
        return (column("feature", (self.m,), "float16"), column("square", (1,), "float32"))

    def needs(self, model: ModelShape) -> OutputSpec:
        """The sketched residual."""
        return OutputSpec(reductions=(self._residual,))

    @property
    def _residual(self) -> BucketedResidual:
        return BucketedResidual(self.m, self.seed)

    def scratch(self, model: ModelShape, positions: int) -> int:
        """Bytes of sketches, residuals, transforms, rows."""
        return tensor_sketch_bytes(model.hidden, model.vocabulary, self.m, positions, min(positions, BATCH_EXAMPLES))

    def sketch(self, outputs: BatchOutputs, precomputed: None) -> dict[str, torch.Tensor]:
        """`spectrum` (n, m/2 + 1) complex64."""
        return {"spectrum": tensor_sketch_sums(outputs, self._residual)}

    def normalize(
        self, sums: Mapping[str, torch.Tensor], windows: Windows, parts: Mapping[str, torch.Tensor] | None = None
    ) -> dict[str, torch.Tensor]:
        """`feature` (n, m), of the mean position, and `square` (n, 1), float32."""
        feature = tensor_sketches_of((parts or sums)["spectrum"], windows.counts, self.m)
        return {"feature": feature, "square": (feature * feature).sum(1, keepdim=True)}

    def statistics(self, model: ModelShape) -> tuple[str, tuple[int, ...]]:
        """The mean feature of the corpus."""
        return "feature", ()

    def prepare(self, rows: Mapping[str, Array], state: Mapping[str, Array]) -> QueryMatrix:
        """v − λΦ̄_D of each query, and λ/2N."""
        residual = rows["feature"] - np.float32(self.weight) * state["mean"]
        return QueryMatrix(
            "feature",
            residual.astype(np.float32),
            shared={"half": self.weight / (2 * state["rows"].astype(np.float64))},
        )

    def score(self, queries: QueryMatrix, block: Block) -> Array:
        """(rows, Q): ⟨v − λΦ̄_D, φ⟩ + (λ/2N)‖φ‖²."""
        feature, square = block.columns["feature"], block.columns["square"]
        products: Array = feature @ queries.matrix.T
        return products + (queries.shared["half"] * square).astype(np.float32)
