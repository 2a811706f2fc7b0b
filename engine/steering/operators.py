"""The operators' parameters for many subsets side by side, their losses and gradients, tile by tile.

Operator k adds (h̃B)α_k to the hidden state that the head reads, with h̃ = [h, 1], a shared basis B ∈ R^{(D+1)×r} and
α_k ∈ R^{r×D}; the model's own head reads the result. This is the factored form a_k = α_k Wᵀ of STRIDE's õ_k = o + B(h)a_k
(arXiv 2606.05165): r·D numbers an operator instead of r·V. The head's product is made once for a position; an operator adds
(h̃B)(α_kWᵀ) to it, r·V operations a position and r·D·V a tile instead of D·V a position, and of K × positions × vocabulary there
is never more than a tile. Fidelity is the loss on what a subset holds, ω · −log p_k(y); stability is KL(p ‖ p_k) on what it does
not. Knows a head and hidden states; no text, no store, no design.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from ..fitting.hidden_states import Places
from ..interface.model_view import Head
from .losses import Reference, loss_and_gradient

TILE_BYTES = 4 << 20
"""Float32 logits of a tile: what a processor's cache holds."""
LEAST_ROWS = 128
"""Positions of a tile, at least."""
Each = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]
"""What does the same to each of some items, in order: `map`, or threads that do so at once."""


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
        """An orthonormal basis, and operators that change nothing. `widths`: D', which the basis reads, and D."""
        drawn = torch.randn(widths[0] + 1, rank, generator=torch.Generator().manual_seed(seed))
        basis, _ = torch.linalg.qr(drawn)
        return cls(basis.to(device), torch.zeros(count, basis.shape[1], widths[1], device=device))

    def codes(self, inner: torch.Tensor) -> torch.Tensor:
        """h̃B: (P, r) of (P, D')."""
        return inner.float() @ self.basis[:-1] + self.basis[-1]


@dataclass(slots=True)
class OperatorGradients:
    """Of a weighted sum of losses, and the sum itself."""

    basis: torch.Tensor
    alpha: torch.Tensor
    loss: float = 0.0

    @classmethod
    def zeros(cls, operators: Operators) -> OperatorGradients:
        """To be added to."""
        return cls(torch.zeros_like(operators.basis), torch.zeros_like(operators.alpha))


def tile_rows(head: Head) -> int:
    """Positions whose logits, or states, fill a tile; of a large vocabulary so many that α_k Wᵀ is not most of the work."""
    return max(LEAST_ROWS, TILE_BYTES // (4 * max(head.model_shape.vocabulary, head.model_shape.hidden)))


def add_fidelity(
    head: Head, operators: Operators, some: slice, places: Places, weights: torch.Tensor, into: OperatorGradients
) -> None:
    """Add Σ weight · −log p_k(y) over places that each of some operators has of its own, and its gradients.

    places: (k, m, …) of k operators; weights (k, m) float32, 0 where an operator has fewer. All of it is one tile.
    """
    code, onto = operators.codes(places.inner), _onto_logits(head, operators.alpha[some])  # (k, m, r), (k, r, V)
    logits = _bounded(head, torch.baddbmm(_raw(head, places.hidden), code, onto))
    loss, error = loss_and_gradient(head, logits, places.targets.reshape(-1), weights)
    into.loss += loss
    into.alpha[some] += _onto_hidden(head, torch.bmm(code.mT, error))
    _add_basis(into, places.inner.flatten(0, 1), torch.bmm(error, onto.mT).flatten(0, 1))


def add_drift(
    head: Head, operators: Operators, places: Places, weights: torch.Tensor, into: OperatorGradients, each: Each = map
) -> None:
    """Add Σ weight · KL(p ‖ p_k) over all operators at places that they share, and its gradients. weights (K, P) float32."""
    for part, here in places.tiles(tile_rows(head)):
        raw = _raw(head, here.hidden)  # (t, V)
        _add_shared(
            head, operators, _Tile(here, raw, Reference.of(_bounded(head, raw.clone())), weights[:, part]), into, each
        )


def add_losses(
    head: Head, operators: Operators, places: Places, weights: torch.Tensor, into: OperatorGradients, each: Each = map
) -> None:
    """Add Σ weight · −log p_k(y) over all operators at places that they share, and its gradients. weights (K, P) float32."""
    for part, here in places.tiles(tile_rows(head)):
        tile = _Tile(here, _raw(head, here.hidden), here.targets, weights[:, part])
        _add_shared(head, operators, tile, into, each)


@dataclass(frozen=True, slots=True)
class _Tile:
    """Positions that operators share."""

    places: Places
    raw: torch.Tensor
    """(t, V): the head's product."""
    expected: torch.Tensor | Reference
    """Targets (t,), or what the model says."""
    weights: torch.Tensor
    """(K, t)."""


def _add_shared(head: Head, operators: Operators, tile: _Tile, into: OperatorGradients, each: Each) -> None:
    """Groups of operators, which share nothing but the tile, may be worked on at once."""
    code = operators.codes(tile.places.inner)  # (t, r)

    def work(some: slice) -> tuple[float, torch.Tensor]:
        onto = _onto_logits(head, operators.alpha[some])  # (k, r, V)
        logits = _bounded(head, torch.matmul(code, onto).add_(tile.raw))  # (k, t, V)
        loss, error = loss_and_gradient(head, logits, tile.expected, tile.weights[some].contiguous())
        into.alpha[some] += _onto_hidden(head, torch.matmul(code.T, error))
        return loss, torch.bmm(error, onto.mT).sum(0)

    back = torch.zeros_like(code)
    for loss, onto_code in each(work, _groups(head, operators, len(code))):
        into.loss += loss
        back += onto_code
    _add_basis(into, tile.places.inner, back)


def measured(head: Head, operators: Operators, places: Places, example_ids: torch.Tensor, count: int) -> torch.Tensor:
    """y (count, K) float32: how much each operator lowers the mean loss of each example, by positions' `example_ids` (P,)."""
    found = torch.zeros(len(operators.alpha), count, device=places.hidden.device)
    for part, here in places.tiles(tile_rows(head)):
        code, raw, at = operators.codes(here.inner), _raw(head, here.hidden), here.targets[:, None]
        base = torch.log_softmax(_bounded(head, raw.clone()), 1).gather(1, at)[:, 0]
        for some in _groups(head, operators, len(code)):
            logits = _bounded(head, torch.matmul(code, _onto_logits(head, operators.alpha[some])).add_(raw))
            told = logits.gather(2, at.expand(len(logits), -1, -1))[:, :, 0] - torch.logsumexp(logits, 2)  # (k, t)
            found[some].index_add_(1, example_ids[part], told - base)
    return (found / torch.bincount(example_ids, minlength=count).clamp(min=1)).T


def loss_at(
    head: Head, hidden: torch.Tensor, expected: torch.Tensor, weights: torch.Tensor
) -> tuple[float, torch.Tensor]:
    """Σ weight · −log p(y) at states (P, D), of targets (P,) int64, or Σ weight · KL(q ‖ p), q what the states (P, D) `expected`
    lead to; and its gradient (P, D) float32 with respect to the states.
    """
    total, errors = 0.0, []
    for start in range(0, len(hidden), tile_rows(head)):
        part = slice(start, start + tile_rows(head))
        own = expected[part]
        known = Reference.of(logits_at(head, own)) if expected.is_floating_point() else own
        loss, error = loss_and_gradient(head, logits_at(head, hidden[part]), known, weights[part])
        total += loss
        errors.append(_onto_hidden(head, error))
    return total, torch.cat(errors)


def logits_at(head: Head, hidden: torch.Tensor) -> torch.Tensor:
    """The model's logits (P, V) float32."""
    return _bounded(head, _raw(head, hidden))


def _groups(head: Head, operators: Operators, positions: int) -> Iterator[slice]:
    """Operators whose logits at so many positions fill a tile."""
    step = max(1, tile_rows(head) // max(positions, operators.alpha.shape[1]))
    for start in range(0, len(operators.alpha), step):
        yield slice(start, start + step)


def _raw(head: Head, hidden: torch.Tensor) -> torch.Tensor:
    """(P, V) float32: the head's product, neither scaled nor bounded yet."""
    return torch.nn.functional.linear(hidden.to(head.weight.dtype), head.weight, head.bias).float()


def _bounded(head: Head, raw: torch.Tensor) -> torch.Tensor:
    """The model's logits, in place."""
    if head.scale != 1.0:
        raw *= head.scale
    return raw.div_(head.softcap).tanh_().mul_(head.softcap) if head.softcap else raw


def _onto_logits(head: Head, alpha: torch.Tensor) -> torch.Tensor:
    """α Wᵀ: (…, r, V) float32 of (…, r, D)."""
    return (alpha.to(head.weight.dtype) @ head.weight.T).float()


def _onto_hidden(head: Head, error: torch.Tensor) -> torch.Tensor:
    """(…, r, D) float32 of (…, r, V)."""
    return (error.to(head.weight.dtype) @ head.weight).float()


def _add_basis(into: OperatorGradients, inner: torch.Tensor, onto: torch.Tensor) -> None:
    """onto (t, r): gradients at the codes."""
    into.basis[:-1] += inner.float().T @ onto
    into.basis[-1] += onto.sum(0)
