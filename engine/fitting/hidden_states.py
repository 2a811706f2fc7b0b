"""Hidden states of a corpus, in memory or in a store, as a fit reads them. Knows no model, no file and no operator."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ...store.layout import Array
from ..interface.subset_method import HiddenStates, StateArrays, TensorRows


@dataclass(frozen=True, slots=True)
class PositionStates:
    """Hidden states and targets of P target positions."""

    hidden: torch.Tensor
    """(P, D): the last hidden state, which the head reads."""
    targets: torch.Tensor
    """(P,) int64."""
    inner: torch.Tensor
    """(P, D'): the hidden state that operators read; `hidden` itself unless it is another layer's."""

    def at(self, index: torch.Tensor | slice) -> PositionStates:
        """The states at the positions of an index."""
        return PositionStates(self.hidden[index], self.targets[index], self.inner[index])

    def tiles(self, rows: int) -> Iterator[tuple[slice, PositionStates]]:
        """Parts of `rows` positions, and the slice of each."""
        for start in range(0, len(self.targets), rows):
            yield slice(start, start + rows), self.at(slice(start, start + rows))


@dataclass(frozen=True, slots=True)
class MappedStates:
    """Hidden states of all rows: in memory, or read from a store when positions are indexed."""

    hidden: TensorRows
    """(P, D), of any float type: the last hidden states, which the head reads."""
    targets: TensorRows
    """(P,) int64."""
    first: Array
    """(N + 1,) int64: index of each row's first position; the last is P."""
    weights: Array | None = None
    """(N,) weight ω of each row; None for equal weights."""
    inner: TensorRows | None = None
    """(P, D'): the hidden states that operators read, if they are another layer's."""

    @property
    def widths(self) -> tuple[int, int]:
        """D' and D."""
        return (self.hidden if self.inner is None else self.inner).shape[1], self.hidden.shape[1]

    def fit_in_memory(self, rows: Array) -> bool:
        """True: all states are in memory already, or are read position by position."""
        return True

    def read(self, rows: Array) -> tuple[MappedStates, Array]:
        """All states; a row's index among them is its row number."""
        return self, rows


def states_at(states: StateArrays, positions: Array, device: torch.device) -> PositionStates:
    """States and targets at positions (…,) int64, on the device."""
    at = torch.from_numpy(positions)
    hidden = states.hidden[at].to(device)
    inner = hidden if states.inner is None else states.inner[at].to(device)
    return PositionStates(hidden, states.targets[at].to(device), inner)


def positions_of(states: StateArrays, rows: Array) -> tuple[Array, Array, Array]:
    """All positions of rows (n,): (P,) their indices among all positions, (P,) the index of their row in `rows`, and (P,) float64
    one over the row's number of positions.
    """
    lengths = states.first[rows + 1] - states.first[rows]
    at = np.repeat(states.first[rows] - np.cumsum(lengths) + lengths, lengths) + np.arange(lengths.sum())
    return at, np.repeat(np.arange(len(rows)), lengths), np.repeat(1 / np.maximum(lengths, 1), lengths)


def parts_in_memory(corpus: HiddenStates, parts: Sequence[Array]) -> Iterator[slice]:
    """Slices of `parts`, arrays of rows, that are halved until the states of a slice fit in memory; a single part may not fit."""
    pending = [(0, len(parts))]
    while pending:
        start, stop = pending.pop()
        if stop - start < 2 or corpus.fit_in_memory(np.concatenate(parts[start:stop])):
            if stop > start:
                yield slice(start, stop)
            continue
        middle = (start + stop) // 2
        pending += [(middle, stop), (start, middle)]
