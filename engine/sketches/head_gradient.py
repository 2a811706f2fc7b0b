"""The gradient of the head, Σ_t r_t h_tᵀ with r = softmax(z) − onehot(y), exact or sketched on either side. Knows no method.

No backward pass is needed: the residual is computed from the logits. ⟨·,·⟩ of two sketches is unbiased for Σ⟨r_t, r_s⟩⟨h_t, h_s⟩.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Self

import numpy as np
import torch

from ..interface.model_view import BATCH_EXAMPLES, BatchOutputs, ModelShape
from .count_sketch import count_sketch
from .projections import outer_sums
from .residual_kernels import whole_residuals
from .widths import side_widths, width_remark


@dataclass(frozen=True, slots=True)
class ExactResidual:
    """The whole residual at τ = 1: (p, V), for heads of few classes."""

    def __call__(self, logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(p, V), (p,) → ((p, V),)."""
        return (whole_residual(logits, targets),)


def whole_residual(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """(p, V) float32: softmax − onehot at τ = 1. At the target it is minus the sum of the others, which is exact near p = 1."""
    if logits.device.type == "cpu" and logits.dtype == torch.float32:
        result = np.empty(tuple(logits.shape), np.float32)
        whole_residuals(logits.numpy(), targets.numpy(), result)
        return torch.from_numpy(result)
    residual, own = torch.softmax(logits, 1), targets[:, None]
    residual.scatter_(1, own, 0.0)
    return residual.scatter_(1, own, -residual.sum(1, keepdim=True))


@dataclass(frozen=True, slots=True)
class SketchedResidual:
    """The whole residual at τ = 1 in `buckets` numbers: (p, buckets)."""

    buckets: int
    seed: int

    def __call__(self, logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(p, V), (p,) → ((p, buckets),)."""
        sketch = _matrix(logits.shape[1], self.buckets, self.seed, "head.r", str(logits.device))
        residual = torch.softmax(logits, 1)
        sketched = residual @ sketch
        return (sketched - sketch[targets],)


@dataclass(frozen=True, slots=True)
class HeadSketch:
    """How the head's gradient (V, D) becomes a row of `outputs` · `inputs` numbers."""

    model: ModelShape
    outputs: int
    """Width of the residual's side."""
    inputs: int
    """Width of the hidden state's side."""
    seed: int
    exact: bool
    """Whether a side whose width is its size is the vector itself; otherwise both are CountSketches."""

    @classmethod
    def of(cls, model: ModelShape, buckets: int, seed: int, *, exact: bool) -> Self:
        """At most buckets² numbers. With `exact`, sides are as wide as :func:`side_widths` says."""
        sides = (model.vocabulary, buckets), (model.hidden, buckets)
        (outputs,), inputs = side_widths(sides[:1], sides[1]) if exact else ((buckets,), buckets)
        return cls(model, outputs, inputs, seed, exact)

    @property
    def residual(self) -> ExactResidual | SketchedResidual:
        """The reduction of the logits that rows are made of."""
        is_whole = self.exact and self.outputs == self.model.vocabulary
        return ExactResidual() if is_whole else SketchedResidual(self.outputs, self.seed)

    def sums(self, outputs: BatchOutputs) -> torch.Tensor:
        """(n, self.outputs · self.inputs) float32: the examples' head gradients, of the summed loss."""
        (r,) = outputs.reduced(self.residual)
        h = outputs.hidden().float()
        if not (self.exact and self.inputs == self.model.hidden):
            h = h @ _matrix(h.shape[1], self.inputs, self.seed, "head.h", str(h.device))
        return outer_sums(r, h, outputs.example_ids, outputs.examples).flatten(1)

    def scratch(self, positions: int) -> int:
        """Memory in bytes of both sketches, the positions' vectors, a tile of probabilities, and rows."""
        hidden, vocabulary = self.model.hidden, self.model.vocabulary
        tables = 4 * (self.inputs * hidden + self.outputs * vocabulary) + 48 * max(hidden, vocabulary)
        vectors = positions * (6 * (self.outputs + self.inputs) + 4 * hidden)
        rows = 12 * self.outputs * self.inputs * min(positions, BATCH_EXAMPLES)
        return tables + vectors + 4 * vocabulary * min(positions, 4096) + rows

    def remark(self) -> str:
        """In words: the shape that the gradient gets."""
        return width_remark(self.model, self.outputs, self.inputs)


_PRODUCT_ROWS = 2048  # rows of the head's weight that are multiplied at once


def head_product(weight: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """W (V, D) times a matrix (D, k), in float32 by blocks of V, so that no float32 copy of a half-precision head is made."""
    out = torch.empty(len(weight), matrix.shape[1], device=weight.device)
    for rows, block in zip(torch.split(out, _PRODUCT_ROWS), torch.split(weight.detach(), _PRODUCT_ROWS), strict=True):
        torch.mm(block.float(), matrix, out=rows)
    return out


def head_product_bytes(hidden: int, width: int) -> int:
    """Memory in bytes of :func:`head_product` beside its result."""
    return 4 * _PRODUCT_ROWS * (hidden + width)


def gram_root(weight: torch.Tensor) -> torch.Tensor:
    """(V, V) float32, on the weight's device: (W Wᵀ)^½ of a head's weight W (V, D), symmetric and positive semidefinite.

    ‖(W Wᵀ)^½ r‖ = ‖Wᵀ r‖ for all r. Computed in float64 on the CPU; unique and continuous in W, of any rank.
    """
    exact = weight.detach().cpu().double()
    values, vectors = torch.linalg.eigh(exact @ exact.T)
    root: torch.Tensor = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    return root.float().to(weight.device)


@lru_cache(maxsize=8)
def _matrix(size: int, buckets: int, seed: int, stream: str, device: str) -> torch.Tensor:
    return count_sketch(size, buckets, seed, stream, device).matrix()
