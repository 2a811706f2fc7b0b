"""A stand-in for the layers above one layer, and a corpus of such rows, for the trial model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from ...engine.fitting.hidden_states import MemoryStates
from ...store.layout import Array


class TrialUpperLayers:
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

    def forward_from(self, states: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
        """(P, D)."""
        return torch.tanh(states @ self._map)[self.counted[which]]


class TrialStates:
    """Rows of two tokens, one of them counted: the contract's corpus of a method that reads the model."""

    weights = None

    def __init__(self, rows: int, width: int, vocabulary: int) -> None:
        """Random."""
        draw = torch.Generator().manual_seed(1)
        self._states = torch.randn(rows, 2, width, generator=draw)
        self._targets = torch.randint(vocabulary, (rows,), generator=draw)
        self.first, self.widths = np.arange(rows + 1), (width, width)

    def fits(self, rows: Array) -> bool:
        """A few."""
        return len(rows) <= 8

    def drawn(self, rows: Array) -> tuple[MemoryStates, Array]:
        """Of the last layer."""
        (_, above), numbers = next(self.sequences(rows)), np.searchsorted(np.unique(rows), rows)
        count = len(above.states)
        return MemoryStates(
            above.hidden[:, 1], above.targets[:, 1], np.arange(count + 1), inner=above.states[:, 1]
        ), numbers

    def sequences(self, rows: Array) -> Iterator[tuple[Array, TrialUpperLayers]]:
        """In one batch."""
        each = np.unique(rows)
        at = torch.from_numpy(each)
        yield each, TrialUpperLayers(list(self._states[at]), 1, list(self._targets[at, None]), 1)
