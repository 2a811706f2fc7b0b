"""Hidden states of a corpus's rows, as training asks for them: all there at once, or a few at a time (`streamed.py`).

Knows shapes; no model, no file, no operator.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from ...store.layout import Array
from ..method import Above
from .operators import Places


class Corpus(Protocol):
    """Hidden states of N rows."""

    @property
    def first(self) -> Array:
        """(N + 1,) int64: where each row's positions begin, if all stand behind each other."""

    @property
    def weights(self) -> Array | None:
        """(N,) ω of each row, or all alike."""

    @property
    def widths(self) -> tuple[int, int]:
        """D', of what the basis reads, and D, of what the head reads."""

    def fits(self, rows: Array) -> bool:
        """Whether some rows (n,), perhaps named twice, may be held together."""

    def drawn(self, rows: Array) -> tuple[States, Array]:
        """States that hold some rows (n,) at least, and the number (n,) that each has among them."""


class Sequences(Corpus, Protocol):
    """Rows that can be had at a layer, too, to be run again from there."""

    def sequences(self, rows: Array) -> Iterator[tuple[Array, Above]]:
        """Rows (n,), each once, in batches: which they are, and they at the layer."""


@dataclass(frozen=True, slots=True)
class States:
    """Hidden states of rows, all there: in memory, or mapped from files."""

    hidden: torch.Tensor
    """(P, D), in any float: what the head reads."""
    targets: torch.Tensor
    """(P,) int64."""
    first: Array
    """(N + 1,) int64: where each row's positions begin; the last is P."""
    weights: Array | None = None
    """(N,) ω of each row, or all alike."""
    inner: torch.Tensor | None = None
    """(P, D'): what the basis reads, where that is another layer."""

    @property
    def widths(self) -> tuple[int, int]:
        """D' and D."""
        return (self.hidden if self.inner is None else self.inner).shape[1], self.hidden.shape[1]

    def fits(self, rows: Array) -> bool:
        """They are there."""
        return True

    def drawn(self, rows: Array) -> tuple[States, Array]:
        """Themselves."""
        return self, rows

    def places(self, positions: Array, device: torch.device) -> Places:
        """Of positions (…,) int64, on the device."""
        at = torch.from_numpy(positions)
        hidden = self.hidden[at].to(device)
        inner = hidden if self.inner is None else self.inner[at].to(device)
        return Places(hidden, self.targets[at].to(device), inner)

    def spread(self, rows: Array) -> tuple[Array, Array, Array]:
        """Every position of rows (n,): its number, the row's place among them, and its share of the row, float64."""
        lengths = self.first[rows + 1] - self.first[rows]
        at = np.repeat(self.first[rows] - np.cumsum(lengths) + lengths, lengths) + np.arange(lengths.sum())
        return at, np.repeat(np.arange(len(rows)), lengths), np.repeat(1 / np.maximum(lengths, 1), lengths)


def together(corpus: Corpus, parts: Sequence[Array]) -> Iterator[slice]:
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
