"""Many small networks of digits, of equal shape, trained side by side. Knows no method."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch


class Networks:
    """Many networks of equal shape, trained side by side."""

    def __init__(self, seeds: Sequence[int], width: int) -> None:
        """`width`: of the hidden layer."""
        drawn = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
        first = torch.stack([torch.randn(64, width, generator=one) * (2 / 64) ** 0.5 for one in drawn])
        last = torch.stack([torch.randn(width, 10, generator=one) * (1 / width) ** 0.5 for one in drawn])
        biases = torch.zeros(len(seeds), 1, width), torch.zeros(len(seeds), 1, 10)
        self.weights = [one.requires_grad_() for one in (first, biases[0], last, biases[1])]

    def hidden(self, x: torch.Tensor) -> torch.Tensor:
        """(networks, n, width)."""
        return torch.relu(torch.matmul(x, self.weights[0]) + self.weights[1])

    def losses(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """(networks, n)."""
        z = torch.matmul(self.hidden(x), self.weights[2]) + self.weights[3]
        each = torch.nn.functional.cross_entropy(z.flatten(0, 1), y.repeat(len(z)), reduction="none")
        return each.view(len(z), -1)

    def train(self, x: torch.Tensor, y: torch.Tensor, masks: np.ndarray, steps: int) -> Networks:
        """Whole-batch Adam on each network's own rows."""
        share = torch.from_numpy(masks / masks.sum(1, keepdims=True)).float()
        descent = torch.optim.Adam(self.weights, lr=1e-2)
        for _ in range(steps):
            descent.zero_grad()
            (self.losses(x, y) * share).sum().backward()  # type: ignore[no-untyped-call]
            descent.step()
        return self
