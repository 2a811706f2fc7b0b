"""Operators on the last hidden state (equivalently on the logits): losses and gradients need only the head, tile by tile. Knows
hidden states of rows; no design.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
import torch

from ...store.layout import Array
from ..fitting.hidden_states import parts_in_memory, positions_of, states_at
from ..interface.model_view import Head
from ..interface.subset_method import HiddenStates, StateArrays
from .operators import (
    OperatorGradients,
    Operators,
    WeightedPositions,
    add_drift,
    add_fidelity,
    add_losses,
    measure,
    tile_rows,
)
from .space import SharedRows, WeightedRows
from .workers import Workers


@dataclass(frozen=True, slots=True)
class AtHead:
    """The space of the last hidden state."""

    head: Head
    corpus: HiddenStates
    workers: Workers = field(init=False)

    def __post_init__(self) -> None:
        """Set up as many threads as torch uses at this moment."""
        object.__setattr__(self, "workers", Workers.of(self.head.weight.device))

    def initial(self, count: int, rank: int, seed: int) -> Operators:
        """Operators that change nothing yet, on the head's device."""
        return Operators.initial(count, self.corpus.widths, rank, seed, self.head.weight.device)

    def add_fidelity(
        self, operators: Operators, subsets: slice, rows: Sequence[WeightedRows], gradients: OperatorGradients
    ) -> None:
        """Add the weighted loss of each operator of `subsets` on its own rows, and its gradients."""
        states, indices = self.corpus.read(np.concatenate([own.rows for own in rows]))
        ends = np.cumsum([len(own.rows) for own in rows])[:-1]
        tiles = self.tiles(subsets.start, states, np.split(indices, ends), rows)

        def add_tiles(tiles_of_operators: list[tuple[slice, Array, Array]]) -> OperatorGradients:
            """The gradients of one group's tiles: a basis gradient of its own, and its own lines of the shared alpha gradient."""
            part = OperatorGradients(torch.zeros_like(gradients.basis), gradients.alpha)
            for operator_range, positions, weights in tiles_of_operators:
                weighted = self._weighted(states, positions, self._on_device(weights))
                add_fidelity(self.head, operators, operator_range, weighted, part)
            return part

        groups = (list(group) for _, group in groupby(tiles, lambda tile: tile[0].start))
        for part in self.workers.each(add_tiles, groups):
            gradients.basis += part.basis
            gradients.loss += part.loss

    def tiles(
        self, start: int, states: StateArrays, indices: Sequence[Array], rows: Sequence[WeightedRows]
    ) -> Iterator[tuple[slice, Array, Array]]:
        """Tiles (range of operators, their positions (k, m), the positions' weights (k, m)), beginning with operator `start`.

        `indices`: indices of each operator's rows among the states.
        """
        size, longest, operator_positions = tile_rows(self.head), 0, list[tuple[Array, Array]]()
        for subset, (row_indices, own) in enumerate(zip(indices, rows, strict=True), start):
            positions, row_numbers, fraction = positions_of(states, row_indices)
            longest = max(longest, len(positions))
            if operator_positions and longest * (len(operator_positions) + 1) > size:
                yield from _padded(slice(start, subset), operator_positions, size)
                start, longest, operator_positions = subset, len(positions), []
            operator_positions.append((positions, fraction * own.weights[row_numbers]))
        yield from _padded(slice(start, start + len(operator_positions)), operator_positions, size)

    def add_drift(self, operators: Operators, shared: SharedRows, gradients: OperatorGradients) -> None:
        """Add the mean drift of all operators at one position of each shared row, and its gradients."""
        weights = shared.outside / np.maximum(shared.outside.sum(1, keepdims=True), 1)
        for part in parts_in_memory(self.corpus, list(shared.rows[:, None])):
            states, indices = self.corpus.read(shared.rows[part])
            lengths = states.first[indices + 1] - states.first[indices]
            positions = states.first[indices] + (shared.at[part] * lengths).astype(np.int64)
            weighted = self._weighted(states, positions, self._on_device(weights[:, part]))
            add_drift(self.head, operators, weighted, gradients, self.workers.each)

    def add_losses(
        self, operators: Operators, rows: Array, weights: torch.Tensor, gradients: OperatorGradients
    ) -> None:
        """Add the weighted losses of all operators at all positions of the rows, and their gradients."""
        for part in parts_in_memory(self.corpus, list(rows[:, None])):
            states, indices = self.corpus.read(rows[part])
            positions, row_numbers, fraction = positions_of(states, indices)
            position_weights = weights[:, part][:, torch.from_numpy(row_numbers)] * self._on_device(fraction)
            weighted = self._weighted(states, positions, position_weights)
            add_losses(self.head, operators, weighted, gradients, self.workers.each)

    def measure(self, operators: Operators, rows: Array) -> torch.Tensor:
        """y (n, K) float32: how much each operator lowers the mean loss of each row."""
        measurements = []
        for part in parts_in_memory(self.corpus, list(rows[:, None])):
            states, indices = self.corpus.read(rows[part])
            positions, row_numbers, _ = positions_of(states, indices)
            position_states = states_at(states, positions, self.head.weight.device)
            example_ids = torch.from_numpy(row_numbers).to(position_states.hidden.device)
            measurements.append(measure(self.head, operators, position_states, example_ids, len(indices)))
        return torch.cat(measurements)

    def _weighted(self, states: StateArrays, positions: Array, weights: torch.Tensor) -> WeightedPositions:
        return WeightedPositions(states_at(states, positions, self.head.weight.device), weights)

    def _on_device(self, weights: Array) -> torch.Tensor:
        return torch.from_numpy(weights.astype(np.float32)).to(self.head.weight.device)


def _padded(
    subsets: slice, operator_positions: list[tuple[Array, Array]], size: int
) -> Iterator[tuple[slice, Array, Array]]:
    """Positions and weights of several operators as padded arrays, in parts of at most `size` positions."""
    longest = max((len(positions) for positions, _ in operator_positions), default=0)
    count = len(operator_positions)
    padded, padded_weights = np.zeros((count, longest), np.int64), np.zeros((count, longest))
    for line, (positions, weights) in enumerate(operator_positions):
        padded[line, : len(positions)], padded_weights[line, : len(positions)] = positions, weights
    step = max(1, size // max(count, 1))
    for start in range(0, longest, step):
        yield subsets, padded[:, start : start + step], padded_weights[:, start : start + step]
