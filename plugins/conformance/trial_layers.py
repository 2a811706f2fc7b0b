"""Random upper layers, and a corpus of hidden states below them, for the trial model. Knows no method and no check."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from ...engine.fitting.hidden_states import MappedStates
from ...store.layout import Array


class TrialUpperLayers:
    """The contract's `UpperLayers`: n examples, padded to T tokens."""

    def __init__(self, states: Sequence[torch.Tensor], prompt: int, targets: Sequence[torch.Tensor], seed: int) -> None:
        """Each example's states (prompt + length, D), and the targets (length,) of its target positions."""
        width, longest = states[0].shape[1], max(len(example_states) for example_states in states)
        self.states = states[0].new_zeros(len(states), longest, width)
        self.target_mask = torch.zeros(len(states), longest, dtype=torch.bool, device=self.states.device)
        self.targets = torch.zeros(len(states), longest, dtype=torch.int64, device=self.states.device)
        for at, (example_states, example_targets) in enumerate(zip(states, targets, strict=True)):
            self.states[at, : len(example_states)] = example_states
            self.target_mask[at, prompt : prompt + len(example_targets)] = True
            self.targets[at, prompt : prompt + len(example_targets)] = example_targets
        weight = torch.randn(width, width, generator=torch.Generator().manual_seed(seed)) / width**0.5
        self._map = weight.to(self.states)
        self.hidden = torch.tanh(self.states @ self._map)

    def forward_from(self, states: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
        """States (P, D) after the layers."""
        return torch.tanh(states @ self._map)[self.target_mask[which]]


class TrialStates:
    """The contract's `LayerStates`: examples of two tokens, of which the second is a target position."""

    weights = None

    def __init__(self, rows: int, width: int, vocabulary: int) -> None:
        """Random states and targets."""
        generator = torch.Generator().manual_seed(1)
        self._states = torch.randn(rows, 2, width, generator=generator)
        self._targets = torch.randint(vocabulary, (rows,), generator=generator)
        self.first, self.widths = np.arange(rows + 1), (width, width)

    def fit_in_memory(self, rows: Array) -> bool:
        """Eight rows fit."""
        return len(rows) <= 8

    def read(self, rows: Array) -> tuple[MappedStates, Array]:
        """States of the last layer, and below it as `inner`."""
        (_, upper_layers), numbers = next(self.upper_layers(rows)), np.searchsorted(np.unique(rows), rows)
        count = len(upper_layers.states)
        return MappedStates(
            upper_layers.hidden[:, 1], upper_layers.targets[:, 1], np.arange(count + 1), inner=upper_layers.states[:, 1]
        ), numbers

    def upper_layers(self, rows: Array) -> Iterator[tuple[Array, TrialUpperLayers]]:
        """All rows in one batch."""
        unique_rows = np.unique(rows)
        index = torch.from_numpy(unique_rows)
        yield unique_rows, TrialUpperLayers(list(self._states[index]), 1, list(self._targets[index, None]), 1)
