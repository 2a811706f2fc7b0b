"""CountSketch: random projections by a hash, pure functions of a seed. Knows no model and no store."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ..runtime.hashing import hashed


@dataclass(frozen=True, slots=True)
class CountSketch:
    """CS: R^size → R^buckets, x ↦ Σ_i σ(i) x_i e_{β(i)} with one hash function (Charikar, Chen & Farach-Colton 2002).

    ⟨CS x, CS y⟩ is unbiased for ⟨x, y⟩ with variance (‖x‖²‖y‖² + ⟨x,y⟩² − 2Σx_i²y_i²)/buckets.
    """

    bucket: torch.Tensor
    """(size,) int64: β."""
    sign: torch.Tensor
    """(size,) float32: σ."""
    buckets: int
    """Number of buckets."""

    def matrix(self) -> torch.Tensor:
        """(size, buckets) float32 with one ±1 per row: x @ matrix() is the sketch of x."""
        dense = torch.zeros(len(self.bucket), self.buckets, device=self.bucket.device)
        dense[torch.arange(len(self.bucket), device=dense.device), self.bucket] = self.sign
        return dense

    def sparse(self, index: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Sketches of sparse rows: (p, k) indices and values → (p, buckets)."""
        out = torch.zeros(len(index), self.buckets, device=value.device)
        return out.scatter_add_(1, self.bucket[index], self.sign[index] * value)


def count_sketch(size: int, buckets: int, seed: int, stream: str, device: torch.device | str = "cpu") -> CountSketch:
    """The sketch of vectors of `size` numbers under a seed; different `stream` names give independent sketches."""
    bits = hashed(seed, stream, size)
    bucket = ((bits >> np.uint64(32)) * np.uint64(buckets)) >> np.uint64(32)
    sign = np.where(bits & np.uint64(1), 1.0, -1.0).astype(np.float32)
    return CountSketch(torch.from_numpy(bucket.astype(np.int64)).to(device), torch.from_numpy(sign).to(device), buckets)


def identity(size: int, device: torch.device | str = "cpu") -> CountSketch:
    """The sketch that changes nothing: a bucket for each of `size` numbers, all signs +1."""
    return CountSketch(torch.arange(size, device=device), torch.ones(size, device=device), size)
