"""RISE: sketched gradients of the head, by a forward pass alone (arXiv 2604.16197).

At position t, the gradient of the head is the outer product r_t h_tᵀ of the residual and the hidden state. So an example's
signature is a sum over its positions of outer products of sketches, in two parts. RH (lexical) multiplies the residual's sketch
with the hidden state's; GH (semantic) multiplies the sketch of the back-propagated error, Wᵀr_t, with the hidden state's. The
score is the cosine of two signatures.

At a position t with logits z, target y and τ = 0.1:
1. s = z/τ. Keep the K = 256 largest s; if y is not among them, it replaces the smallest. p = softmax over the kept tokens.
2. Sort p in descending order. S = the shortest prefix with mass ≥ 0.92 and at least 4 tokens, plus y. Renormalise p on S.
3. r = p − onehot(y) on S.
4. r̂ = CS_r(r), ĥ = CS_h(h), ĝ = CS_g(Wᵀr) = Σ_{v∈S} r(v) M[v], each scaled to unit norm. CS is a CountSketch; M holds CS_g of
   each row of W and is computed once a run.
5. φ = unit([λ_rh vec Σ_t r̂ ĥᵀ ; λ_gh vec Σ_t ĝ ĥᵀ]) over windows of 256 positions that overlap by 50; an example's signature
   is the mean of its windows' φ, scaled to unit norm.

In step 4, norms below 1e-8 count as 1e-8. Where p(y) is near 1, two things differ from the published code. First, p(y) − 1 is
then 0 or a rounding error in float32, so the residual at y is computed as minus the sum of the others. Second, φ's norm has no
lower bound: an example with p(y) near 1 at all positions keeps the direction of its small residuals instead of becoming 0. A
`floor` of 0.01 gives positions with small residuals a smaller weight; `examples/benchmarks/backdoor.py` measures it.

With `exact`, a side that has no more numbers than buckets is used as it is, and the other side gets the buckets that this frees
(`engine/sketches/widths.py`). V numbers are enough for Wᵀr: ⟨Wᵀr, Wᵀs⟩ = ⟨Qr, Qs⟩ with Q = (W Wᵀ)^½, the symmetric root, which
unlike a factor with pivots or signs is the same on every machine within rounding. So a small head's signature is exact. Language
models whose vocabulary and width are above the buckets have the published form.

With `whiten` γ > 0, ĥ is (U_Aᵀh)_k / √(λ_k + γ λ̄) for the Kh largest eigenvalues of A = E[h hᵀ], which is fitted on a sample of
the corpus before the first row. Hidden states have a few large directions in common, which make all cosines alike (figures in
`examples/benchmarks/README.md`). Left out: the residual and the error in their eigenbases. As they are, they change nothing where
the buckets are enough; whitened, they raise LDS (names 0.35 → 0.47) and find planted rows worse (τ = 1: 0.84 → 0.77).

Without unit norms and truncation, at τ = 1, the inner product of two RH is an unbiased estimate of Σ⟨r_t, r_s⟩⟨h_t, h_s⟩, the
exact inner product of two head gradients. Knows no store and no text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Self

import numpy as np
import torch

from . import (
    BATCH_EXAMPLES,
    Array,
    BatchOutputs,
    Column,
    CountSketch,
    Head,
    HiddenMoment,
    JsonObject,
    ModelShape,
    OutputSpec,
    QueryMatrix,
    SettingsError,
    Similarity,
    SparseResidual,
    Windows,
    column,
    count_sketch,
    direction,
    example_bounds,
    gram_root,
    head_product,
    head_product_bytes,
    identity,
    side_widths,
    weighted_rows,
    whitening_matrix,
    whole_examples,
    width_remark,
)

_FLOOR = 1e-8  # smallest norm that a hidden state's sketch is divided by


@dataclass(frozen=True, slots=True)
class RiseSketches:
    """The sketches CS_r and CS_h, and M, the head sketched by CS_g; each may be exact."""

    residual: CountSketch
    hidden: torch.Tensor | None
    """(D, Kh) float32, ±1 or the whitening; None for hidden states as they are."""
    error: torch.Tensor
    """(V, Kg) float32: M, or in its place (W Wᵀ)^½ or W."""


class RiseWidths(NamedTuple):
    """Widths of the vectors whose outer products make a signature."""

    residual: int
    error: int
    hidden: int


@dataclass(frozen=True)
class Rise(Similarity):
    """Settings of RISE; the defaults are the published values.

    Use it by default: a forward pass alone, and scores that are cosines.
    """

    api: ClassVar[int] = 2

    kr: int = 128
    """Buckets of the residual's sketch, Kr."""
    kh: int = 128
    """Buckets of the hidden state's sketch, Kh."""
    kg: int = 64
    """Buckets of the back-propagated error's sketch, Kg; 0 leaves the part GH out."""
    lambda_rh: float = 1.0
    """Weight of RH."""
    lambda_gh: float = 0.3
    """Weight of GH."""
    tau: float = 0.1
    """Temperature of the residual."""
    top: int = 256
    """K, the logits that the softmax runs over; 0 for all."""
    mass: float = 0.92
    """Probability mass that the truncated softmax must reach."""
    least: int = 4
    """Smallest number of tokens that the truncated softmax keeps."""
    window: int = 256
    """Positions of a window."""
    overlap: int = 50
    """Positions that neighbouring windows share."""
    floor: float = 1e-8
    """Residuals and errors are divided by max(norm, floor): a position with a smaller norm weighs less."""
    unit_norms: bool = True
    """Whether position sketches and signatures have unit norm; otherwise signatures are sums over positions, in float32."""
    seed: int = 0
    """Seed of the three sketches."""
    exact: bool = True
    """Whether vectors of no more numbers than buckets are used as they are, and the others get the buckets that this frees."""
    whiten: float = 0.0
    """γ, as a multiple of the mean eigenvalue, of hidden states whitened by their second moment; 0 for CS_h, as published."""

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        bounds = {
            "kr ≥ 0": self.kr >= 0,
            "kh ≥ 1": self.kh >= 1,
            "kg ≥ 0": self.kg >= 0,
            "kr + kg ≥ 1": self.kr + self.kg >= 1,
            "tau > 0": self.tau > 0,
            "top ≥ 0": self.top >= 0,
            "0 < mass ≤ 1": 0 < self.mass <= 1,
            "least ≥ 1": self.least >= 1,
            "0 < floor ≤ 1": 0 < self.floor <= 1,
            "window > overlap ≥ 0": self.window > self.overlap >= 0,
            "whiten ≥ 0": self.whiten >= 0,
        }
        broken = [bound for bound, holds in bounds.items() if not holds]
        if broken:
            raise SettingsError(f"rise needs {', '.join(broken)}")

    @classmethod
    def from_settings(cls, settings: JsonObject) -> Self:
        """An instance with these settings. In stores of formats 1 and 2 the setting `unit_norms` is called `normalize`; rows of
        stores that were written before `exact` are sketched on both sides.
        """
        own = {"unit_norms" if name == "normalize" else name: value for name, value in settings.items()}
        later = ("exact", "whiten"), ("exact", "whiten", "precision", "bits")  # the last two came with format 2
        is_older = any(cls.records_all_but(own, *names) for names in later)
        return super().from_settings({**own, "exact": False} if is_older else own)

    def widths(self, model: ModelShape) -> RiseWidths:
        """Kr, Kg and Kh for a model: Kh(Kr + Kg) numbers of a signature, at most those of the settings."""
        if not self.exact:
            return RiseWidths(self.kr, self.kg, min(self.kh, model.hidden) if self.whiten else self.kh)
        smaller = min(model.vocabulary, model.hidden)
        left = (model.vocabulary, self.kr), (smaller, self.kg)
        (residual, error), hidden = side_widths(left, (model.hidden, self.kh))
        return RiseWidths(residual, error, hidden)

    def remarks(self, model: ModelShape) -> tuple[str, ...]:
        """The shape that RH gets, or GH if there is no RH."""
        widths = self.widths(model)
        return (width_remark(model, widths.residual or widths.error, widths.hidden),)

    def columns(self, model: ModelShape) -> tuple[Column, ...]:
        """One column: the signature, [RH; GH] flattened; float16 rows find all of float32's top 100 (recall 1.000)."""
        widths = self.widths(model)
        numbers = widths.hidden * (widths.residual + widths.error)
        return (column("signature", (numbers,), "float16" if self.unit_norms else "float32"),)

    def needs(self, model: ModelShape) -> OutputSpec:
        """The truncated residual."""
        return OutputSpec(reductions=(self._residual,))

    @property
    def _residual(self) -> SparseResidual:
        return SparseResidual(self.tau, self.top, self.mass, self.least)

    def scratch(self, model: ModelShape, positions: int) -> int:
        """Bytes of M, the sketches and their computation, the sparse residual, the sketches of positions, and the signatures."""
        vocabulary, hidden, widths = model.vocabulary, model.hidden, self.widths(model)
        logits = min(self.top or vocabulary, vocabulary)
        tables = 4 * (vocabulary * widths.error + hidden * (widths.hidden + widths.error))
        sketches = tables + 48 * (vocabulary + hidden) + (16 * hidden**2 if self.whiten else 0)
        product = head_product_bytes(hidden, widths.error)
        root = 16 * vocabulary * (hidden + 4 * vocabulary) if self._has_root(model) else 0
        per_position = 28 * logits + 12 * sum(widths) + 8 * hidden + 8
        examples = min(positions, BATCH_EXAMPLES)
        rows = 3 * examples + positions // (self.window - self.overlap) + 4
        signatures = 4 * widths.hidden * (widths.residual + widths.error) * rows
        return sketches + product + root + positions * per_position + signatures

    def fit(self, model: ModelShape) -> HiddenMoment | None:
        """The second moment of hidden states, for `whiten`."""
        return HiddenMoment(model.hidden) if self.whiten else None

    def fit_scratch(self, model: ModelShape, positions: int) -> int:
        """Bytes of the second moment, a batch's states and the eigendecomposition."""
        return 8 * model.hidden * (8 * model.hidden + positions) if self.whiten else 0

    def _has_root(self, model: ModelShape) -> bool:
        """Whether errors are exact in V numbers, by the root of W Wᵀ."""
        return self.exact and self.widths(model).error == model.vocabulary

    def precompute(self, head: Head, state: Mapping[str, Array]) -> RiseSketches:
        """CS_r, CS_h or the whitening, and M = CS_g of the head's rows; with `exact`, vectors as they are where they fit."""
        device, model, widths = head.weight.device, head.model_shape, self.widths(head.model_shape)
        residual = count_sketch(model.vocabulary, max(1, widths.residual), self.seed, "rise.r", device)
        if self.exact and widths.residual == model.vocabulary:
            residual = identity(model.vocabulary, device)
        hidden = None
        if self.whiten:
            hidden = torch.from_numpy(whitening_matrix(state, widths.hidden, self.whiten)).to(device)
        elif not (self.exact and widths.hidden == model.hidden):
            hidden = count_sketch(model.hidden, widths.hidden, self.seed, "rise.h", device).matrix()
        return RiseSketches(residual, hidden, self._error_table(head, widths.error))

    def _error_table(self, head: Head, width: int) -> torch.Tensor:
        """(V, width) float32, whose rows times a residual have the inner products of Wᵀr: exact ones, or a CountSketch's."""
        device, model = head.weight.device, head.model_shape
        if self._has_root(model):
            return gram_root(head.weight)
        if self.exact and width == model.hidden:
            return head.weight.detach().float()
        sketch = count_sketch(model.hidden, max(1, width), self.seed, "rise.g", device).matrix()
        return head_product(head.weight, sketch[:, :width])

    def windows(self, outputs: BatchOutputs) -> Windows:
        """Windows of 256 positions that overlap by 50; without unit norms each example is one window."""
        if not self.unit_norms:
            return whole_examples(outputs)
        example_ids, bounds = list[int](), list[tuple[int, int]]()
        for example, (start, stop) in enumerate(example_bounds(outputs)):
            for first, end in self.window_bounds(stop - start):
                example_ids.append(example)
                bounds.append((start + first, start + end))
        return Windows(outputs.examples, tuple(example_ids), tuple(bounds))

    def sketch(self, outputs: BatchOutputs, precomputed: RiseSketches) -> dict[str, torch.Tensor]:
        """`signature` (W, Kh(Kr+Kg)) float32: each window's sum of outer products."""
        index, value = outputs.reduced(self._residual)  # (P, k)
        states, widths = outputs.hidden().float(), self.widths(outputs.head.model_shape)
        h = self._unit(states if precomputed.hidden is None else states @ precomputed.hidden, _FLOOR)  # (P, Kh)
        r = self._unit(precomputed.residual.sparse(index, value)[:, : widths.residual], self.floor)  # (P, Kr)
        g = self._unit(weighted_rows(precomputed.error, index, value), self.floor)  # (P, Kg)
        left = torch.cat([self.lambda_rh * r, self.lambda_gh * g], dim=1)  # (P, Kr + Kg)
        windows = self.windows(outputs)
        sums = torch.empty(len(windows.bounds), left.shape[1] * h.shape[1], device=h.device)
        for window, (start, stop) in zip(sums, windows.bounds, strict=True):
            window[:] = (left[start:stop].T @ h[start:stop]).flatten()
        return {"signature": sums}

    def normalize(
        self, sums: Mapping[str, torch.Tensor], windows: Windows, parts: Mapping[str, torch.Tensor] | None = None
    ) -> dict[str, torch.Tensor]:
        """`signature` (n, Kh(Kr+Kg)) float32: the mean of an example's windows, each of unit norm, scaled to unit norm."""
        whole, contributions = sums["signature"], (parts or sums)["signature"]
        if not self.unit_norms:
            return {"signature": contributions}
        totals, rows = torch.zeros(2, windows.examples, whole.shape[1], device=whole.device)
        for window, example in enumerate(windows.example_ids):
            totals[example] += direction(whole[window])
            if parts:
                rows[example] += direction(whole[window], contributions[window])
        for example in range(windows.examples):
            rows[example] = direction(totals[example], rows[example] if parts else None)
        return {"signature": rows}

    def prepare(self, rows: Mapping[str, Array], state: Mapping[str, Array]) -> QueryMatrix:
        """The queries' signatures: the score is their inner product with the stored ones."""
        return QueryMatrix("signature", np.ascontiguousarray(rows["signature"], np.float32))

    def window_bounds(self, positions: int) -> Iterator[tuple[int, int]]:
        """Start and stop of the windows of an example with `positions` target positions; the last ends where the example ends."""
        start = 0
        while start + self.window < positions:
            yield start, start + self.window
            start += self.window - self.overlap
        yield start, positions

    def _unit(self, x: torch.Tensor, floor: float) -> torch.Tensor:
        return x / x.norm(dim=-1, keepdim=True).clamp(min=floor) if self.unit_norms else x
