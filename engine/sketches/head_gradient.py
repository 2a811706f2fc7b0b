"""The gradient of the head, Σ_t r_t h_tᵀ with r = softmax(z) − onehot(y), sketched on both sides. Knows no method.

No backward pass is needed: the residual is computed from the logits. ⟨·,·⟩ of two sketches is unbiased for Σ⟨r_t, r_s⟩⟨h_t, h_s⟩.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch

from ..interface.model_view import BatchOutputs
from .count_sketch import count_sketch
from .projections import outer_sums


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


def head_gradient_sums(outputs: BatchOutputs, residual: SketchedResidual, buckets: int) -> torch.Tensor:
    """(n, residual.buckets · buckets) float32: the examples' sketched head gradients, of the summed loss."""
    (r,) = outputs.reduced(residual)
    hidden = outputs.hidden().float()
    h = hidden @ _matrix(hidden.shape[1], buckets, residual.seed, "head.h", str(hidden.device))
    return outer_sums(r, h, outputs.example_ids, outputs.examples).flatten(1)


def head_bytes(hidden: int, vocabulary: int, k: int, positions: int, examples: int) -> int:
    """Memory in bytes of both sketches, the sketched positions, a tile of probabilities and the rows."""
    tables = 4 * k * (hidden + vocabulary) + 48 * max(hidden, vocabulary)
    return tables + positions * (12 * k + 4 * hidden) + 4 * vocabulary * min(positions, 4096) + 12 * k * k * examples


@lru_cache(maxsize=8)
def _matrix(size: int, buckets: int, seed: int, stream: str, device: str) -> torch.Tensor:
    return count_sketch(size, buckets, seed, stream, device).matrix()
