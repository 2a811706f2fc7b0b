"""GRASP: utility of sets of examples, from sketched head gradients. A quadratic surrogate (arXiv 2606.06892; the surrogate is
ours).

φ_i is the mean over i's positions of −∇ of the loss with respect to the head, as a TensorSketch of residual ⊗ hidden state, or as
it is where V·D ≤ m: linear in the examples, so that a set is the mean of its rows, Φ̄_S. With v the mean row of a target task, the
descent lemma gives Û(S) = ⟨v, Φ̄_S⟩ − (λ/2)‖Φ̄_S‖²: rows of similar direction are penalised together, rows that complement each
other are not. λ is in raw units; at λ = 1 subsets are ranked by how closely their gradient matches the target's. `headwater
predict`, `calibrate` and `select` score sets.

A single example is scored by ⟨v, φ_i⟩/‖φ_i‖. A step of size η along φ_i alone is worth η⟨v, φ_i⟩ − (λη²/2)‖φ_i‖², at the best η
⟨v, φ_i⟩²/(2λ‖φ_i‖²): so examples rank by what each can do for the task in a step of its own best size. The cost of leaving an
example out of the whole corpus, ⟨v − λΦ̄, φ_i⟩ + (λ/2N)‖φ_i‖², ranks by the length of the rows instead: where a model is sure of
what it learned, as of planted rows, these are the shortest. On `backdoor` (`compare.py`, three seeds) planted rows had an average
precision of 0.10 by it, which is chance; 0.11 by ⟨v, φ_i⟩; 0.64 by Û({i}); 0.81 by the present score.

From the paper, of which only the abstract is public: subset utility, the quadratic penalty, sketched features, a finite set of
candidates for λ. Left out: preconditioners. Features in the whitened eigenbasis of `headkfac` predicted sets with copies worse in
prototypes (digits of `digits_subsets.py`, clustered and duplicated, three draws: 0.74, not whitened 0.88), random halves of first
names better (0.71, sketched 0.60); for such sets there is `--method headkfac`. Knows no store and no text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

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
    HeadSketch,
    JsonObject,
    ModelShape,
    OutputSpec,
    QueryMatrix,
    SettingsError,
    Windows,
    column,
    tensor_sketch_bytes,
    tensor_sketch_sums,
    tensor_sketches_of,
    width_remark,
)


@dataclass(frozen=True)
class Grasp(BlockSimilarity):
    """Settings of GRASP.

    Use it for sets of examples: `select`, `predict` and `calibrate` read its rows.
    """

    api: ClassVar[int] = 2

    m: int = 1024
    """Numbers of a feature, at most."""
    seed: int = 0
    """Seed of the sketches."""
    exact: bool = True
    """Whether gradients of at most m numbers are stored as they are."""

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        if self.m < 2:
            raise SettingsError("grasp needs m ≥ 2")

    @classmethod
    def from_settings(cls, settings: JsonObject) -> Self:
        """An instance with these settings. Older stores record a setting `weight` beside them, of which rows are independent;
        rows of stores that were written before `exact` are sketched.
        """
        is_recorded = {"m", "seed", "precision"} <= set(
            settings
        )  # stores record all settings; the command line names some
        own = {name: value for name, value in settings.items() if not (is_recorded and name == "weight")}
        return super().from_settings({**own, "exact": False} if cls.records_all_but(own, "exact") else own)

    def columns(self, model: ModelShape) -> tuple[Column, ...]:
        """The feature φ, and its square norm ‖φ‖²."""
        numbers = model.vocabulary * model.hidden if self._is_exact(model) else self.m
        return (column("feature", (numbers,), "float16"), column("square", (1,), "float32"))

    def _is_exact(self, model: ModelShape) -> bool:
        return self.exact and model.vocabulary * model.hidden <= self.m

    def _gradient(self, model: ModelShape) -> HeadSketch:
        """The gradient as it is, for a model that :meth:`_is_exact`."""
        return HeadSketch(model, model.vocabulary, model.hidden, self.seed, exact=True)

    def needs(self, model: ModelShape) -> OutputSpec:
        """The residual, sketched unless the gradient is stored as it is."""
        return OutputSpec(reductions=(self._gradient(model).residual if self._is_exact(model) else self._residual,))

    @property
    def _residual(self) -> BucketedResidual:
        return BucketedResidual(self.m, self.seed)

    def remarks(self, model: ModelShape) -> tuple[str, ...]:
        """Whether gradients are sketched."""
        if self._is_exact(model):
            return (self._gradient(model).remark(),)
        return (width_remark(model, self.m),)

    def scratch(self, model: ModelShape, positions: int) -> int:
        """Bytes of sketches, residuals, transforms, rows."""
        if self._is_exact(model):
            return self._gradient(model).scratch(positions)
        return tensor_sketch_bytes(model.hidden, model.vocabulary, self.m, positions, min(positions, BATCH_EXAMPLES))

    def sketch(self, outputs: BatchOutputs, precomputed: None) -> dict[str, torch.Tensor]:
        """`gradient` (n, V·D) float32, or `spectrum` (n, m/2 + 1) complex64."""
        model = outputs.head.model_shape
        if self._is_exact(model):
            return {"gradient": self._gradient(model).sums(outputs)}
        return {"spectrum": tensor_sketch_sums(outputs, self._residual)}

    def normalize(
        self, sums: Mapping[str, torch.Tensor], windows: Windows, parts: Mapping[str, torch.Tensor] | None = None
    ) -> dict[str, torch.Tensor]:
        """`feature` (n, V·D or m), of the mean position, and `square` (n, 1), float32."""
        terms = parts or sums
        if "gradient" in terms:
            counts = torch.tensor(windows.counts, device=terms["gradient"].device).clamp(min=1)
            feature = -terms["gradient"] / counts[:, None]
        else:
            feature = tensor_sketches_of(terms["spectrum"], windows.counts, self.m)
        return {"feature": feature, "square": (feature * feature).sum(1, keepdim=True)}

    def prepare(self, rows: Mapping[str, Array], state: Mapping[str, Array]) -> QueryMatrix:
        """v of each query: its feature."""
        return QueryMatrix("feature", np.ascontiguousarray(rows["feature"], np.float32))

    def score(self, queries: QueryMatrix, block: Block) -> Array:
        """(rows, Q): ⟨v, φ⟩/‖φ‖; 0 for an example without target positions."""
        feature, square = block.columns["feature"], block.columns["square"]
        lengths = np.sqrt(np.maximum(square, np.finfo(np.float32).tiny))
        scores: Array = feature @ queries.matrix.T / lengths
        return scores
