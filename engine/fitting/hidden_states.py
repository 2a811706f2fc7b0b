"""Hidden states of a corpus in memory or in a store, as a fit reads them.

Knows shapes; no model, no file, no operator.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ...store.layout import Array
from ..interface.subset_method import HiddenStates, StateArrays, TensorRows


@dataclass(frozen=True, slots=True)
class Places:
    """Positions, as operators see them."""

    hidden: torch.Tensor
    """(P, D): what the head reads."""
    targets: torch.Tensor
    """(P,) int64."""
    inner: torch.Tensor
    """(P, D'): what the basis reads; of the last layer the same as `hidden`."""

    def at(self, index: torch.Tensor | slice) -> Places:
        """Some of them."""
        return Places(self.hidden[index], self.targets[index], self.inner[index])

    def tiles(self, rows: int) -> Iterator[tuple[slice, Places]]:
        """So many at a time, with where they stand."""
        for start in range(0, len(self.targets), rows):
            yield slice(start, start + rows), self.at(slice(start, start + rows))


@dataclass(frozen=True, slots=True)
class MemoryStates:
    """Hidden states of rows, all there: in memory, or read from a store when positions are indexed."""

    hidden: TensorRows
    """(P, D), in any float: what the head reads."""
    targets: TensorRows
    """(P,) int64."""
    first: Array
    """(N + 1,) int64: where each row's positions begin; the last is P."""
    weights: Array | None = None
    """(N,) ω of each row, or all alike."""
    inner: TensorRows | None = None
    """(P, D'): what the basis reads, where that is another layer."""

    @property
    def widths(self) -> tuple[int, int]:
        """D' and D."""
        return (self.hidden if self.inner is None else self.inner).shape[1], self.hidden.shape[1]

    def fits(self, rows: Array) -> bool:
        """They are there."""
        return True

    def drawn(self, rows: Array) -> tuple[MemoryStates, Array]:
        """Themselves."""
        return self, rows


def places_at(states: StateArrays, positions: Array, device: torch.device) -> Places:
    """What operators see at positions (…,) int64, on the device."""
    at = torch.from_numpy(positions)
    hidden = states.hidden[at].to(device)
    inner = hidden if states.inner is None else states.inner[at].to(device)
    return Places(hidden, states.targets[at].to(device), inner)


def positions_of(states: StateArrays, rows: Array) -> tuple[Array, Array, Array]:
    """Every position of rows (n,): its number, the row's place among them, and its share of the row, float64."""
    lengths = states.first[rows + 1] - states.first[rows]
    at = np.repeat(states.first[rows] - np.cumsum(lengths) + lengths, lengths) + np.arange(lengths.sum())
    return at, np.repeat(np.arange(len(rows)), lengths), np.repeat(1 / np.maximum(lengths, 1), lengths)


def together(corpus: HiddenStates, parts: Sequence[Array]) -> Iterator[slice]:
    """Runs of consecutive parts that may be held together, by halves; a part alone may be more."""
    waiting = [(0, len(parts))]
    while waiting:
        start, stop = waiting.pop()
        if stop - start < 2 or corpus.fits(np.concatenate(parts[start:stop])):
            if stop > start:
                yield slice(start, stop)
            continue
        middle = (start + stop) // 2
        waiting += [(middle, stop), (start, middle)]
