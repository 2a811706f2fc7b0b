"""Training of steering operators: every one takes every step, on rows of its own subset and on as many rows outside.

The differences between subsets are small, and unequal progress would drown them: at a step each operator sees the next `members`
rows of its subset (in an order drawn once, so that all are seen equally often) and as many drawn from the rest; one Adam step on
all operators follows, and a slower one on the shared basis. Knows hidden states in memory and what a design offers; no text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from ...store.errors import SettingsError
from ...store.layout import Array
from ..intake.readout import LinearHead
from .operators import Gradients, Operators, Pairs, add_fidelity, add_stability


class Subsets(Protocol):
    """What training asks of a design."""

    @property
    def rows(self) -> int:
        """N."""

    @property
    def subsets(self) -> int:
        """K."""

    def of(self, rows: Array) -> Array:
        """(n, d): the subsets of rows (n,)."""

    def members(self, subset: int) -> Array:
        """(n,): the rows of a subset."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How operators are trained."""

    rank: int = 16
    """r."""
    updates: int = 200
    """Steps."""
    members: int = 32
    """Rows of its subset that an operator sees in a step at most, and so many from outside."""
    rate: float = 5e-3
    """Adam's, of the operators."""
    basis_rate: float = 1e-3
    """Of the basis; 0 leaves it as it was drawn."""
    stability: float = 10.0
    """Weight of KL on what is outside."""
    seed: int = 0
    """Of the basis and of all that is drawn."""

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        if min(self.rank, self.updates, self.members) < 1 or min(self.rate, self.basis_rate, self.stability) < 0:
            raise SettingsError("steering needs rank, updates and members ≥ 1, and rates and stability ≥ 0")


@dataclass(frozen=True, slots=True)
class States:
    """Hidden states of all rows, in memory."""

    hidden: torch.Tensor
    """(P, D) float32."""
    targets: torch.Tensor
    """(P,) int64."""
    first: Array
    """(N + 1,) int64: where each row's positions begin; the last is P."""
    weights: Array | None = None
    """(N,) ω of each row, or all alike."""


def trained(
    head: LinearHead, states: States, subsets: Subsets, recipe: Recipe, tell: Callable[[int, float, float], None]
) -> Operators:
    """Train all operators. `tell` hears the step, and the mean fidelity and stability losses of an operator."""
    operators = Operators.begun(subsets.subsets, states.hidden.shape[1], recipe.rank, recipe.seed, states.hidden.device)
    descent = torch.optim.Adam([
        {"params": [operators.alpha], "lr": recipe.rate}, {"params": [operators.basis], "lr": recipe.basis_rate},
    ])  # fmt: skip
    for step, (inside, outside) in zip(range(recipe.updates), draws(states, subsets, recipe), strict=False):
        fidelity, stability = Gradients.zeros(operators), Gradients.zeros(operators)
        add_fidelity(head, operators, states.hidden, states.targets, inside, fidelity)
        add_stability(head, operators, states.hidden, outside, stability)
        operators.alpha.grad = fidelity.alpha + recipe.stability * stability.alpha
        operators.basis.grad = fidelity.basis + recipe.stability * stability.basis
        descent.step()
        tell(step + 1, fidelity.loss / subsets.subsets, stability.loss / subsets.subsets)
    operators.alpha.grad = operators.basis.grad = None
    return operators


def draws(states: States, subsets: Subsets, recipe: Recipe) -> Iterator[tuple[Pairs, Pairs]]:
    """What operators see at each step, without end: (operator, position, weight) inside their subsets, and outside.

    A row weighs ω over the sum of ω in its operator's batch, shared evenly among its positions.
    """
    chance = np.random.default_rng(recipe.seed)
    lists = [chance.permutation(np.sort(subsets.members(one))) for one in range(subsets.subsets)]
    seen = 0
    while True:
        rows = [np.take(one, np.arange(seen, seen + min(recipe.members, len(one))), mode="wrap") for one in lists]
        operator = np.repeat(np.arange(len(rows)), [len(one) for one in rows])
        inside = _pairs(states, operator, np.concatenate(rows), states.weights, len(lists))
        seen += recipe.members
        operator = np.repeat(np.arange(subsets.subsets), recipe.members)
        other = chance.integers(0, subsets.rows, len(operator))
        apart = ~(subsets.of(other).astype(np.int64) == operator[:, None]).any(1)
        yield inside, _pairs(states, operator[apart], other[apart], None, len(lists))


def _pairs(states: States, operator: Array, rows: Array, weights: Array | None, count: int) -> Pairs:
    """Every position of each row, with its operator."""
    own = np.ones(len(rows)) if weights is None else weights[rows].astype(np.float64)
    total = np.bincount(operator, own, count)
    lengths = states.first[rows + 1] - states.first[rows]
    share = own / np.maximum(total[operator], 1e-300) / np.maximum(lengths, 1)
    at = np.repeat(states.first[rows] - np.cumsum(lengths) + lengths, lengths) + np.arange(lengths.sum())
    device = states.hidden.device
    return Pairs(
        torch.from_numpy(np.repeat(operator, lengths)).to(device),
        torch.from_numpy(at).to(device),
        torch.from_numpy(np.repeat(share, lengths).astype(np.float32)).to(device),
    )
