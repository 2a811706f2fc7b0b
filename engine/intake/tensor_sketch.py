"""The head's gradient as one short vector: the TensorSketch of residual ⊗ hidden state, averaged over an example's positions.

TensorSketch (Pham & Pagh 2013) of r ⊗ h is the circular convolution of two CountSketches, so a product in Fourier space; what
is linear in it, the mean over positions, is taken there, and one inverse transform a row is all that is left:
φ = irfft(mean_t rfft(CS_r r_t) · rfft(CS_h h_t)). ⟨φ, φ'⟩ is unbiased for the product of mean head gradients. Knows no method.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch

from ..method import Readout
from .sketch import CountSketch, count_sketch

_POSITIONS = 512  # transformed at once


@dataclass(frozen=True, slots=True)
class BucketedResidual:
    """The whole residual, softmax − onehot at τ = 1, in `buckets` numbers, by addition instead of a product: (p, buckets)."""

    buckets: int
    seed: int

    def __call__(self, logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(p, V), (p,) → ((p, buckets),)."""
        sketch = _sketch(logits.shape[1], self.buckets, self.seed, "tensor.r", str(logits.device))
        residual = torch.softmax(logits, 1)
        residual[torch.arange(len(targets), device=logits.device), targets] -= 1
        signed = residual.mul_(sketch.sign).T.contiguous()  # whole rows are added, not single numbers
        found = torch.zeros(self.buckets, len(targets), device=logits.device)
        return (found.index_add_(0, sketch.bucket, signed).T.contiguous(),)


def tensor_sketches(readout: Readout, residual: BucketedResidual) -> torch.Tensor:
    """(n, residual.buckets) float32: the mean over an example's positions of −(residual ⊗ hidden state), sketched.

    The sign is that of a step downhill: φ = −∇ of the mean loss with respect to the head.
    """
    (r,), hidden, m = readout.reduced(residual), readout.hidden(), residual.buckets
    sketch = _sketch(hidden.shape[1], m, residual.seed, "tensor.h", str(hidden.device))
    total = torch.zeros(readout.examples, m // 2 + 1, dtype=torch.complex64, device=hidden.device)
    for start in range(0, len(r), _POSITIONS):
        part = slice(start, start + _POSITIONS)
        h = torch.zeros(len(r[part]), m, device=hidden.device)
        h.index_add_(1, sketch.bucket, hidden[part].float() * sketch.sign)
        total.index_add_(0, readout.owners[part], torch.fft.rfft(r[part]) * torch.fft.rfft(h))
    counts = torch.bincount(readout.owners, minlength=readout.examples).clamp(min=1)
    found: torch.Tensor = -torch.fft.irfft(total / counts[:, None], n=m)
    return found


def tensor_sketch_bytes(hidden: int, vocabulary: int, m: int, positions: int, examples: int) -> int:
    """Memory of both sketches and how they are made, the sketched residuals, a tile of probabilities, transforms, the rows."""
    tables = 60 * (hidden + vocabulary)
    transforms = min(positions, _POSITIONS) * (4 * hidden + 32 * m)
    return tables + 8 * m * positions + 8 * vocabulary * min(positions, 4096) + transforms + 24 * m * examples


@lru_cache(maxsize=8)
def _sketch(size: int, buckets: int, seed: int, stream: str, device: str) -> CountSketch:
    return count_sketch(size, buckets, seed, stream, device)
