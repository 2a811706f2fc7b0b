"""Steering operators of many subsets: parameters, losses and gradients, computed tile by tile.

Operator k adds (h̃B)α_k to the hidden state that the head reads, with h̃ = [h, 1], a shared basis B ∈ R^{(D+1)×r} and
α_k ∈ R^{r×D}; the model's own head reads the result. This is the factored form a_k = α_k Wᵀ of STRIDE's õ_k = o + B(h)a_k
(arXiv 2606.05165): r·D numbers per operator instead of r·V. The head's product is computed once per position. To this product an
operator adds (h̃B)(α_kWᵀ), with r·V operations per position and r·D·V per tile (for α_kWᵀ), instead of D·V per position; and only
a tile of the K × positions × vocabulary logits is in memory. Fidelity is the loss on the rows of a subset, ω · −log p_k(y);
stability is KL(p ‖ p_k), the drift, on the other rows. Knows a head and hidden states; no text, no store, no design.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch

from ..fitting.hidden_states import PositionStates
from ..interface.model_view import Head
from .losses import Reference, loss_and_gradient

TILE_BYTES = 4 << 20
"""Bytes of a tile's float32 logits: as many as fit a processor's cache."""
LEAST_ROWS = 128
"""Smallest number of positions in a tile."""
GroupLoss = tuple[float, torch.Tensor]
"""Loss of a group of operators, and its gradient at the codes (t, r)."""
MapGroups = Callable[[Callable[[slice], GroupLoss], Iterable[slice]], Iterable[GroupLoss]]
"""Calls a function for each group of operators, in order: `map`, or a version of it that uses threads."""


@dataclass(slots=True)
class Operators:
    """K operators over one basis."""

    basis: torch.Tensor
    """B: (D' + 1, r) float32."""
    alpha: torch.Tensor
    """(K, r, D) float32."""

    @classmethod
    def initial(
        cls, count: int, widths: tuple[int, int], rank: int, seed: int, device: torch.device | str = "cpu"
    ) -> Operators:
        """A random orthonormal basis, and operators that change nothing. `widths`: D', which the basis reads, and D."""
        normal = torch.randn(widths[0] + 1, rank, generator=torch.Generator().manual_seed(seed))
        basis, _ = torch.linalg.qr(normal)
        return cls(basis.to(device), torch.zeros(count, basis.shape[1], widths[1], device=device))

    def codes(self, inner: torch.Tensor) -> torch.Tensor:
        """The codes h̃B (P, r) of hidden states (P, D')."""
        return inner.float() @ self.basis[:-1] + self.basis[-1]


@dataclass(slots=True)
class OperatorGradients:
    """Gradients of a weighted sum of losses, and the sum itself."""

    basis: torch.Tensor
    alpha: torch.Tensor
    loss: float = 0.0

    @classmethod
    def zeros(cls, operators: Operators) -> OperatorGradients:
        """Zeros, to which losses are added."""
        return cls(torch.zeros_like(operators.basis), torch.zeros_like(operators.alpha))


@dataclass(frozen=True, slots=True)
class WeightedPositions:
    """Positions, and their weights in a sum of losses."""

    states: PositionStates
    weights: torch.Tensor
    """(K, P) float32: the weight of each position for each operator; or (k, m), if each of k operators has its own positions."""


def tile_rows(head: Head) -> int:
    """Positions of a tile: their logits or states fill `TILE_BYTES`; at least `LEAST_ROWS`, so that α_k Wᵀ does not dominate."""
    return max(LEAST_ROWS, TILE_BYTES // (4 * max(head.model_shape.vocabulary, head.model_shape.hidden)))


def add_fidelity(
    head: Head, operators: Operators, subsets: slice, positions: WeightedPositions, gradients: OperatorGradients
) -> None:
    """Add Σ weight · −log p_k(y) for the operators of `subsets`, each at its own positions, and its gradients.

    `positions`: states (k, m, …) of k operators, weights (k, m), 0 for padding; together they are one tile.
    """
    states = positions.states
    code, onto = operators.codes(states.inner), _onto_logits(head, operators.alpha[subsets])  # (k, m, r), (k, r, V)
    logits = _bounded(head, torch.baddbmm(_raw(head, states.hidden), code, onto))
    loss, error = loss_and_gradient(head, logits, states.targets.reshape(-1), positions.weights)
    gradients.loss += loss
    gradients.alpha[subsets] += _onto_hidden(head, torch.bmm(code.mT, error))
    _add_basis(gradients, states.inner.flatten(0, 1), torch.bmm(error, onto.mT).flatten(0, 1))


def add_drift(
    head: Head, operators: Operators, positions: WeightedPositions, gradients: OperatorGradients,
    map_groups: MapGroups = map,
) -> None:  # fmt: skip
    """Add Σ weight · KL(p ‖ p_k) of all operators at the same positions, and its gradients."""
    for part, states in positions.states.tiles(tile_rows(head)):
        raw = _raw(head, states.hidden)  # (t, V)
        tile = _Tile(states, raw, Reference.of(_bounded(head, raw.clone())), positions.weights[:, part])
        _add_shared(head, operators, tile, gradients, map_groups)


def add_losses(
    head: Head, operators: Operators, positions: WeightedPositions, gradients: OperatorGradients,
    map_groups: MapGroups = map,
) -> None:  # fmt: skip
    """Add Σ weight · −log p_k(y) of all operators at the same positions, and its gradients."""
    for part, states in positions.states.tiles(tile_rows(head)):
        tile = _Tile(states, _raw(head, states.hidden), states.targets, positions.weights[:, part])
        _add_shared(head, operators, tile, gradients, map_groups)


@dataclass(frozen=True, slots=True)
class _Tile:
    """A tile of positions that all operators share."""

    states: PositionStates
    raw: torch.Tensor
    """(t, V): the head's product."""
    expected: torch.Tensor | Reference
    """Targets (t,), or the unchanged model's probabilities."""
    weights: torch.Tensor
    """(K, t)."""


def _add_shared(
    head: Head, operators: Operators, tile: _Tile, gradients: OperatorGradients, map_groups: MapGroups
) -> None:
    """Add the losses of a tile. Groups of operators, which share only the tile, may run in parallel."""
    code = operators.codes(tile.states.inner)  # (t, r)

    def add_group(subsets: slice) -> GroupLoss:
        onto = _onto_logits(head, operators.alpha[subsets])  # (k, r, V)
        logits = _bounded(head, torch.matmul(code, onto).add_(tile.raw))  # (k, t, V)
        loss, error = loss_and_gradient(head, logits, tile.expected, tile.weights[subsets].contiguous())
        gradients.alpha[subsets] += _onto_hidden(head, torch.matmul(code.T, error))
        return loss, torch.bmm(error, onto.mT).sum(0)

    code_gradient = torch.zeros_like(code)
    for loss, group_gradient in map_groups(add_group, _groups(head, operators, len(code))):
        gradients.loss += loss
        code_gradient += group_gradient
    _add_basis(gradients, tile.states.inner, code_gradient)


def measure(
    head: Head, operators: Operators, states: PositionStates, example_ids: torch.Tensor, count: int
) -> torch.Tensor:
    """y (count, K) float32: how much each operator lowers the mean loss of each example. `example_ids` (P,): each position's."""
    sums = torch.zeros(len(operators.alpha), count, device=states.hidden.device)
    for part, tile in states.tiles(tile_rows(head)):
        code, raw, targets = operators.codes(tile.inner), _raw(head, tile.hidden), tile.targets[:, None]
        base = torch.log_softmax(_bounded(head, raw.clone()), 1).gather(1, targets)[:, 0]
        for subsets in _groups(head, operators, len(code)):
            logits = _bounded(head, torch.matmul(code, _onto_logits(head, operators.alpha[subsets])).add_(raw))
            target_logits = logits.gather(2, targets.expand(len(logits), -1, -1))[:, :, 0]
            log_p = target_logits - torch.logsumexp(logits, 2)  # (k, t)
            sums[subsets].index_add_(1, example_ids[part], log_p - base)
    return (sums / torch.bincount(example_ids, minlength=count).clamp(min=1)).T


def loss_at(
    head: Head, hidden: torch.Tensor, expected: torch.Tensor, weights: torch.Tensor
) -> tuple[float, torch.Tensor]:
    """Σ weight · −log p(y) at states (P, D) for targets `expected` (P,) int64, or Σ weight · KL(q ‖ p), q the probabilities at
    states `expected` (P, D); and its gradient (P, D) float32 with respect to the states.
    """
    total, errors = 0.0, []
    for start in range(0, len(hidden), tile_rows(head)):
        part = slice(start, start + tile_rows(head))
        tile_expected = expected[part]
        reference = Reference.of(logits_at(head, tile_expected)) if expected.is_floating_point() else tile_expected
        loss, error = loss_and_gradient(head, logits_at(head, hidden[part]), reference, weights[part])
        total += loss
        errors.append(_onto_hidden(head, error))
    return total, torch.cat(errors)


def logits_at(head: Head, hidden: torch.Tensor) -> torch.Tensor:
    """The model's logits (P, V) float32 at hidden states (P, D)."""
    return _bounded(head, _raw(head, hidden))


def _groups(head: Head, operators: Operators, positions: int) -> Iterator[slice]:
    """Groups of operators whose logits at `positions` positions fill a tile."""
    step = max(1, tile_rows(head) // max(positions, operators.alpha.shape[1]))
    for start in range(0, len(operators.alpha), step):
        yield slice(start, start + step)


def _raw(head: Head, hidden: torch.Tensor) -> torch.Tensor:
    """(P, V) float32: the head's product, before it is scaled and bounded."""
    return torch.nn.functional.linear(hidden.to(head.weight.dtype), head.weight, head.bias).float()


def _bounded(head: Head, raw: torch.Tensor) -> torch.Tensor:
    """The model's logits, from the head's product, in place."""
    if head.scale != 1.0:
        raw *= head.scale
    return raw.div_(head.softcap).tanh_().mul_(head.softcap) if head.softcap else raw


def _onto_logits(head: Head, alpha: torch.Tensor) -> torch.Tensor:
    """α Wᵀ (…, r, V) float32 from α (…, r, D)."""
    return (alpha.to(head.weight.dtype) @ head.weight.T).float()


def _onto_hidden(head: Head, error: torch.Tensor) -> torch.Tensor:
    """Gradients with respect to states (…, r, D) float32, from those with respect to logits (…, r, V)."""
    return (error.to(head.weight.dtype) @ head.weight).float()


def _add_basis(gradients: OperatorGradients, inner: torch.Tensor, code_gradient: torch.Tensor) -> None:
    """Add the basis's gradient, from states (t, D') and the gradient (t, r) with respect to their codes."""
    gradients.basis[:-1] += inner.float().T @ code_gradient
    gradients.basis[-1] += code_gradient.sum(0)
