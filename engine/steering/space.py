"""The protocol of a steering space, logits or activations: what one training step accumulates there. Knows no operator's
arithmetic, no model, no file.
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
class Drawn:
    """What one operator sees of its subset at a step."""

    rows: Array
    """(n,) int64."""
    weights: Array
    """(n,) float64: of each row, shared evenly among its positions."""


@dataclass(frozen=True, slots=True)
class Shared:
    """What all operators see at a step of the rows outside their subsets."""

    rows: Array
    """(m,) int64, each with a position at least."""
    at: Array
    """(m,) float64 in [0, 1): which position of the row, of a space that looks at single ones."""
    outside: Array
    """(K, m) bool: whether a row is in none of an operator's rows."""


class Space(Protocol):
    """Losses of operators at rows of a corpus, their gradients, and their measurements."""

    @property
    def head(self) -> Head:
        """The model's."""

    @property
    def corpus(self) -> HiddenStates:
        """What rows are of."""

    def initial(self, count: int, rank: int, seed: int) -> Operators:
        """Operators that change nothing yet, on the head's device."""

    def add_fidelity(self, operators: Operators, some: slice, own: Sequence[Drawn], into: OperatorGradients) -> None:
        """Add Σ weight · −log p_k(y) of each of some operators over its own rows, which may be held together."""

    def add_drift(self, operators: Operators, shared: Shared, into: OperatorGradients) -> None:
        """Add the mean KL(p ‖ p_k) of every operator over shared rows outside its subset, all of them or the first."""

    def add_losses(self, operators: Operators, rows: Array, weights: torch.Tensor, into: OperatorGradients) -> None:
        """Add Σ weight · the row's mean −log p_k(y) over all operators and rows; weights (K, n) float32."""

    def measured(self, operators: Operators, rows: Array) -> torch.Tensor:
        """y (n, K) float32: how much each operator lowers the mean loss of each row."""
