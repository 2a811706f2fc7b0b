"""Operators on the last hidden state (equivalently on the logits): losses and gradients tile by tile, the head alone. Knows
where the states of rows are; no design.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
import torch

from ...store.layout import Array
from ..fitting.hidden_states import places_at, positions_of, together
from ..interface.model_view import Head
from ..interface.subset_method import HiddenStates, StateArrays
from .operators import OperatorGradients, Operators, add_drift, add_fidelity, add_losses, measured, tile_rows
from .space import Drawn, Shared
from .workers import Workers


@dataclass(frozen=True, slots=True)
class AtHead:
    """The space of the logits."""

    head: Head
    corpus: HiddenStates
    workers: Workers = field(init=False)

    def __post_init__(self) -> None:
        """As many threads as torch has now."""
        object.__setattr__(self, "workers", Workers.of(self.head.weight.device))

    def initial(self, count: int, rank: int, seed: int) -> Operators:
        """Operators that change nothing yet."""
        return Operators.initial(count, self.corpus.widths, rank, seed, self.head.weight.device)

    def add_fidelity(self, operators: Operators, some: slice, own: Sequence[Drawn], into: OperatorGradients) -> None:
        """Of each of some operators over its own rows."""
        states, numbers = self.corpus.read(np.concatenate([one.rows for one in own]))
        ends = np.cumsum([len(one.rows) for one in own])[:-1]
        tiles = self.tiles(some.start, states, np.split(numbers, ends), own)

        def work(parts: list[tuple[slice, Array, Array]]) -> OperatorGradients:
            """All that the same operators see: they share nothing with others but the basis."""
            found = OperatorGradients(torch.zeros_like(into.basis), into.alpha)
            for part, positions, weights in parts:
                places = places_at(states, positions, self.head.weight.device)
                add_fidelity(self.head, operators, part, places, self._on_device(weights), found)
            return found

        for found in self.workers.each(work, (list(parts) for _, parts in groupby(tiles, lambda tile: tile[0].start))):
            into.basis += found.basis
            into.loss += found.loss

    def tiles(
        self, begun: int, states: StateArrays, numbers: Sequence[Array], own: Sequence[Drawn]
    ) -> Iterator[tuple[slice, Array, Array]]:
        """What operators from `start_fit` on see: some of them, their positions (k, m) and what these weigh, a tile at a time."""
        room, most, held = tile_rows(self.head), 0, list[tuple[Array, Array]]()
        for subset, (rows, drawn) in enumerate(zip(numbers, own, strict=True), begun):
            at, example_ids, share = positions_of(states, rows)
            most = max(most, len(at))
            if held and most * (len(held) + 1) > room:
                yield from _padded(slice(begun, subset), held, room)
                begun, most, held = subset, len(at), []
            held.append((at, share * drawn.weights[example_ids]))
        yield from _padded(slice(begun, begun + len(held)), held, room)

    def add_drift(self, operators: Operators, shared: Shared, into: OperatorGradients) -> None:
        """At one position of each row."""
        weights = shared.outside / np.maximum(shared.outside.sum(1, keepdims=True), 1)
        for part in together(self.corpus, list(shared.rows[:, None])):
            states, numbers = self.corpus.read(shared.rows[part])
            lengths = states.first[numbers + 1] - states.first[numbers]
            at = states.first[numbers] + (shared.at[part] * lengths).astype(np.int64)
            places = places_at(states, at, self.head.weight.device)
            add_drift(self.head, operators, places, self._on_device(weights[:, part]), into, self.workers.each)

    def add_losses(self, operators: Operators, rows: Array, weights: torch.Tensor, into: OperatorGradients) -> None:
        """Over all positions of the rows."""
        for part in together(self.corpus, list(rows[:, None])):
            states, numbers = self.corpus.read(rows[part])
            at, example_ids, share = positions_of(states, numbers)
            places = places_at(states, at, self.head.weight.device)
            of = weights[:, part][:, torch.from_numpy(example_ids)] * self._on_device(share)
            add_losses(self.head, operators, places, of, into, self.workers.each)

    def measured(self, operators: Operators, rows: Array) -> torch.Tensor:
        """y (n, K)."""
        found = []
        for part in together(self.corpus, list(rows[:, None])):
            states, numbers = self.corpus.read(rows[part])
            at, example_ids, _ = positions_of(states, numbers)
            places = places_at(states, at, self.head.weight.device)
            of = torch.from_numpy(example_ids).to(places.hidden.device)
            found.append(measured(self.head, operators, places, of, len(numbers)))
        return torch.cat(found)

    def _on_device(self, weights: Array) -> torch.Tensor:
        return torch.from_numpy(weights.astype(np.float32)).to(self.head.weight.device)


def _padded(some: slice, held: list[tuple[Array, Array]], room: int) -> Iterator[tuple[slice, Array, Array]]:
    """Operators' positions and weights side by side; what is too long for a tile in parts."""
    longest = max((len(at) for at, _ in held), default=0)
    positions, weights = np.zeros((len(held), longest), np.int64), np.zeros((len(held), longest))
    for line, (at, weight) in enumerate(held):
        positions[line, : len(at)], weights[line, : len(at)] = at, weight
    step = max(1, room // max(len(held), 1))
    for start in range(0, longest, step):
        yield some, positions[:, start : start + step], weights[:, start : start + step]
