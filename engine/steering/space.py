"""The protocol of a steering space (logits or activations): the losses of a training step, and measurements. Knows no arithmetic
of operators, no model, no file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from ...store.layout import Array
from ..interface.model_view import Head
from ..interface.subset_method import HiddenStates
from .operators import OperatorGradients, Operators


@dataclass(frozen=True, slots=True)
class WeightedRows:
    """The rows of its subset that an operator reads at a step, and their weights."""

    rows: Array
    """(n,) int64."""
    weights: Array
    """(n,) float64: weight of each row, divided evenly among its target positions."""


@dataclass(frozen=True, slots=True)
class SharedRows:
    """The rows that all operators read at a step, to measure drift on those outside their subsets."""

    rows: Array
    """(m,) int64, each with at least one target position."""
    at: Array
    """(m,) float64 in [0, 1): where in each row the single position is that a space may read instead of the whole row."""
    outside: Array
    """(K, m) bool: whether a row is outside an operator's subset."""


class Space(Protocol):
    """Losses of operators at rows of a corpus, their gradients, and their measurements."""

    @property
    def head(self) -> Head:
        """The model's head."""

    @property
    def corpus(self) -> HiddenStates:
        """The hidden states of the rows."""

    def initial(self, count: int, rank: int, seed: int) -> Operators:
        """Operators that change nothing yet, on the head's device."""

    def add_fidelity(
        self, operators: Operators, subsets: slice, rows: Sequence[WeightedRows], gradients: OperatorGradients
    ) -> None:
        """Add Σ weight · −log p_k(y) of each operator of `subsets` over its own rows, whose states fit in memory together."""

    def add_drift(self, operators: Operators, shared: SharedRows, gradients: OperatorGradients) -> None:
        """Add the mean KL(p ‖ p_k) of all operators over the shared rows outside their subsets; a space
        that reads whole rows may use only the first of them.
        """

    def add_losses(
        self, operators: Operators, rows: Array, weights: torch.Tensor, gradients: OperatorGradients
    ) -> None:
        """Add Σ weight · the row's mean −log p_k(y) over all operators and rows; weights (K, n) float32."""

    def measure(self, operators: Operators, rows: Array) -> torch.Tensor:
        """y (n, K) float32: how much each operator lowers the mean loss of each row."""
