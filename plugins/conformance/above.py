"""What lies above a layer, for the trial: one map that mixes each token's states, in place of a model's layers."""

from __future__ import annotations

from collections.abc import Sequence

import torch


class TrialAbove:
    """The contract's `Above`: n examples, padded to T tokens."""

    def __init__(self, states: Sequence[torch.Tensor], prompt: int, targets: Sequence[torch.Tensor], seed: int) -> None:
        """Each example's states (prompt + length, D), and the targets (length,) of its counted positions."""
        width, longest = states[0].shape[1], max(len(one) for one in states)
        self.states = states[0].new_zeros(len(states), longest, width)
        self.counted = torch.zeros(len(states), longest, dtype=torch.bool, device=self.states.device)
        self.targets = torch.zeros(len(states), longest, dtype=torch.int64, device=self.states.device)
        for at, (own, known) in enumerate(zip(states, targets, strict=True)):
            self.states[at, : len(own)] = own
            self.counted[at, prompt : prompt + len(known)] = True
            self.targets[at, prompt : prompt + len(known)] = known
        drawn = torch.randn(width, width, generator=torch.Generator().manual_seed(seed)) / width**0.5
        self._map = drawn.to(self.states)
        self.hidden = torch.tanh(self.states @ self._map)

    def again(self, states: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
        """(P, D)."""
        return torch.tanh(states @ self._map)[self.counted[which]]
