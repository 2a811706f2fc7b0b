"""Operators on a layer's activations, ẑ = z + (z̃B)α_k: the layers above run again for each operator. The variant of the
figure in arXiv 2606.05165. Every operator costs a pass through these layers, and in training one back: many times what steering
the logits takes. Knows a head and batches at a layer; no design, no text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ...store.layout import Array
from ..interface.model_view import Head, UpperLayers
from ..interface.subset_method import LayerStates
from .operators import OperatorGradients, Operators, logits_at, loss_at, tile_rows
from .space import Drawn, Shared


@dataclass(frozen=True, slots=True)
class AtLayer:
    """The space of a layer's activations."""

    head: Head
    corpus: LayerStates

    def initial(self, count: int, rank: int, seed: int) -> Operators:
        """Operators that change nothing yet: they end where they begin, in the layer's width."""
        width = self.corpus.widths[0]
        return Operators.initial(count, (width, width), rank, seed, self.head.weight.device)

    def add_fidelity(self, operators: Operators, some: slice, own: Sequence[Drawn], into: OperatorGradients) -> None:
        """Of each of some operators over its own rows."""
        for rows, above in self.corpus.upper_layers(np.concatenate([one.rows for one in own])):
            for subset, one in enumerate(own, some.start):
                self._add(operators, subset, _part(above, rows, one), into)

    def add_drift(self, operators: Operators, shared: Shared, into: OperatorGradients) -> None:
        """Over whole rows, as many as have about as many positions as there are shared rows."""
        lengths = np.diff(self.corpus.first)[shared.rows]
        count = max(1, int(np.searchsorted(np.cumsum(lengths), len(shared.rows), side="right")))
        chosen, outside = shared.rows[:count], shared.outside[:, :count]
        weights = outside / np.maximum(outside.sum(1, keepdims=True), 1)
        for rows, above in self.corpus.upper_layers(chosen):
            for subset in range(len(operators.alpha)):
                self._add(operators, subset, _part(above, rows, Drawn(chosen, weights[subset]), drift=True), into)

    def add_losses(self, operators: Operators, rows: Array, weights: torch.Tensor, into: OperatorGradients) -> None:
        """Over all positions of the rows."""
        told = weights.double().cpu().numpy()
        for some, above in self.corpus.upper_layers(rows):
            for subset in range(len(operators.alpha)):
                self._add(operators, subset, _part(above, some, Drawn(rows, told[subset])), into)

    def measured(self, operators: Operators, rows: Array) -> torch.Tensor:
        """y (n, K)."""
        found = torch.zeros(len(rows), len(operators.alpha), device=self.head.weight.device)
        for some, above in self.corpus.upper_layers(rows):
            y = measured_by_upper_layers(self.head, operators, above)
            for at, row in enumerate(some):
                found[torch.from_numpy(np.flatnonzero(rows == row))] = y[at]
        return found

    def _add(self, operators: Operators, subset: int, part: _BatchPart, into: OperatorGradients) -> None:
        """One operator's weighted loss or drift on a part of a batch, and its gradients."""
        if not len(part.weights):
            return
        with torch.inference_mode(False), torch.enable_grad():
            basis, alpha = (one.detach().clone().requires_grad_() for one in (operators.basis, operators.alpha[subset]))
            hidden = part.above.forward_from(_steered(part.above.states[part.which], basis, alpha), part.which)
        loss, error = loss_at(self.head, hidden.detach(), part.expected, part.weights)
        by_basis, by_alpha = torch.autograd.grad(hidden, [basis, alpha], error.to(hidden.dtype))
        into.loss += loss
        into.basis += by_basis
        into.alpha[subset] += by_alpha


@dataclass(frozen=True, slots=True)
class _BatchPart:
    """Examples of a batch, and what is asked of them."""

    above: UpperLayers
    which: torch.Tensor
    """(m,) int64: the examples."""
    expected: torch.Tensor
    """Of their counted positions the targets (P,) int64, or the unchanged states (P, D), from which drift is measured."""
    weights: torch.Tensor
    """(P,) float32."""


def _part(above: UpperLayers, batch: Array, drawn: Drawn, *, drift: bool = False) -> _BatchPart:
    """Of a batch, whose rows (n,) are each once, those that are drawn and weigh anything."""
    order = np.argsort(batch)
    place = np.minimum(np.searchsorted(batch[order], drawn.rows), len(batch) - 1)
    there = (batch[order][place] == drawn.rows) & (drawn.weights != 0)
    which = torch.from_numpy(order[place[there]]).to(above.states.device)
    counted = above.target_mask[which]
    share = torch.from_numpy(drawn.weights[there]).to(which.device) / counted.sum(1).clamp(min=1)
    expected = (above.hidden if drift else above.targets)[which][counted]
    return _BatchPart(above, which, expected, share[:, None].expand(counted.shape)[counted].float())


def measured_by_upper_layers(head: Head, operators: Operators, above: UpperLayers) -> torch.Tensor:
    """y (n, K) float32 of a batch's n examples: how much each operator lowers the mean loss; 0 where nothing counts."""
    device = above.states.device
    every = torch.arange(len(above.states), device=device)
    example_ids = every[:, None].expand_as(above.target_mask)[above.target_mask]
    targets = above.targets[above.target_mask]
    each = (1 / above.target_mask.sum(1).clamp(min=1)).float()[example_ids]

    def losses(hidden: torch.Tensor) -> torch.Tensor:
        """(P,) of states (P, D), tile by tile."""
        return torch.cat([*_losses(head, hidden, targets)]) if len(hidden) else hidden.new_zeros(0, dtype=torch.float32)

    found = torch.zeros(len(every), len(operators.alpha), device=device)
    with torch.no_grad():
        base = losses(above.hidden[above.target_mask])
        for subset, alpha in enumerate(operators.alpha):
            told = losses(above.forward_from(_steered(above.states, operators.basis, alpha), every))
            found[:, subset].index_add_(0, example_ids, (base - told) * each)
    return found


def _steered(states: torch.Tensor, basis: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    """z + (z̃B)α."""
    return states + ((states.float() @ basis[:-1] + basis[-1]) @ alpha).to(states.dtype)


def _losses(head: Head, hidden: torch.Tensor, targets: torch.Tensor) -> Iterator[torch.Tensor]:
    step = tile_rows(head)
    for start in range(0, len(hidden), step):
        logits = logits_at(head, hidden[start : start + step])
        yield torch.nn.functional.cross_entropy(logits, targets[start : start + step], reduction="none")
