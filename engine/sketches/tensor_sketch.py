"""TensorSketch of the head's gradient: one short vector per example, the mean over its target positions.

TensorSketch (Pham & Pagh 2013) of r ⊗ h is the circular convolution of two CountSketches, hence a product in Fourier space.
The mean over positions is linear, so it is taken in Fourier space, with one inverse transform per row:
φ = irfft(mean_t rfft(CS_r r_t) · rfft(CS_h h_t)). ⟨φ, φ'⟩ is unbiased for the product of mean head gradients. Knows no method.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from ..interface.model_view import BatchOutputs
from .count_sketch import CountSketch, count_sketch
from .residual_kernels import bucketed_residuals

_POSITIONS = 512  # positions per Fourier transform


@dataclass(frozen=True, slots=True)
class BucketedResidual:
    """The whole residual, softmax − onehot at τ = 1, CountSketched to (p, buckets) by additions."""

    buckets: int
    seed: int

    def __call__(self, logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(p, V), (p,) → ((p, buckets),)."""
        sketch = _sketch(logits.shape[1], self.buckets, self.seed, "tensor.r", str(logits.device))
        if logits.device.type != "cpu":
            return (self.by_torch(logits, targets, sketch),)
        result = np.empty((len(targets), self.buckets), np.float32)
        bucket, sign = sketch.bucket.numpy().astype(np.int32), sketch.sign.numpy()
        bucketed_residuals(logits.numpy(), targets.numpy(), bucket, sign, result)
        return (torch.from_numpy(result),)

    def by_torch(self, logits: torch.Tensor, targets: torch.Tensor, sketch: CountSketch) -> torch.Tensor:
        """The same sketch by torch operations, on any device: (p, buckets) float32."""
        residual = torch.softmax(logits, 1)
        residual[torch.arange(len(targets), device=logits.device), targets] -= 1
        signed = residual.mul_(sketch.sign).T.contiguous()  # so that index_add_ adds contiguous rows
        result = torch.zeros(self.buckets, len(targets), device=logits.device)
        return result.index_add_(0, sketch.bucket, signed).T.contiguous()


def tensor_sketch_sums(outputs: BatchOutputs, residual: BucketedResidual) -> torch.Tensor:
    """(n, residual.buckets/2 + 1) complex64: the sum over an example's positions of residual ⊗ hidden state, sketched, in Fourier
    space.
    """
    (r,), hidden, m = outputs.reduced(residual), outputs.hidden(), residual.buckets
    sketch = _sketch(hidden.shape[1], m, residual.seed, "tensor.h", str(hidden.device))
    total = torch.zeros(outputs.examples, m // 2 + 1, dtype=torch.complex64, device=hidden.device)
    for start in range(0, len(r), _POSITIONS):
        part = slice(start, start + _POSITIONS)
        h = torch.zeros(len(r[part]), m, device=hidden.device)
        h.index_add_(1, sketch.bucket, hidden[part].float() * sketch.sign)
        products = torch.fft.rfft(r[part]).mul_(torch.fft.rfft(h))
        example_ids, counts = torch.unique_consecutive(outputs.example_ids[part], return_counts=True)
        for example, rows in zip(example_ids.tolist(), products.split(counts.tolist()), strict=True):
            total[example] += rows.sum(0)
    return total


def tensor_sketches_of(sums: torch.Tensor, counts: Sequence[int], buckets: int) -> torch.Tensor:
    """(n, buckets) float32 from :func:`tensor_sketch_sums` and the number of positions: minus the mean over positions.

    The sign is that of a descent step: φ = −∇ of the mean loss with respect to the head.
    """
    positions = torch.tensor(counts, device=sums.device).clamp(min=1)
    sketches: torch.Tensor = -torch.fft.irfft(sums / positions[:, None], n=buckets)
    return sketches


def tensor_sketch_bytes(hidden: int, vocabulary: int, m: int, positions: int, examples: int) -> int:
    """Memory in bytes of both sketches and their construction, sketched residuals, a tile of probabilities, transforms and
    rows.
    """
    tables = 60 * (hidden + vocabulary)
    transforms = min(positions, _POSITIONS) * (4 * hidden + 32 * m)
    return tables + 8 * m * positions + 8 * vocabulary * min(positions, 4096) + transforms + 24 * m * examples


@lru_cache(maxsize=8)
def _sketch(size: int, buckets: int, seed: int, stream: str, device: str) -> CountSketch:
    return count_sketch(size, buckets, seed, stream, device)
