"""Operators on a layer's activations, ẑ = z + (z̃B)α_k: the layers above run again for each operator. The figure in arXiv
2606.05165 shows this variant. Each operator costs a forward pass through these layers, and in training a backward pass: many
times the cost of steering the logits. Knows a head and batches at a layer; no design, no text.
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
from .space import SharedRows, WeightedRows


@dataclass(frozen=True, slots=True)
class AtLayer:
    """The space of a layer's activations."""

    head: Head
    corpus: LayerStates

    def initial(self, count: int, rank: int, seed: int) -> Operators:
        """Operators that change nothing yet; they read and change states of the layer's width."""
        width = self.corpus.widths[0]
        return Operators.initial(count, (width, width), rank, seed, self.head.weight.device)

    def add_fidelity(
        self, operators: Operators, subsets: slice, rows: Sequence[WeightedRows], gradients: OperatorGradients
    ) -> None:
        """Add the weighted loss of each operator of `subsets` on its own rows, and its gradients."""
        for batch, upper in self.corpus.upper_layers(np.concatenate([own.rows for own in rows])):
            for subset, own in enumerate(rows, subsets.start):
                self._add(operators, subset, _part(upper, batch, own), gradients)

    def add_drift(self, operators: Operators, shared: SharedRows, gradients: OperatorGradients) -> None:
        """Add the mean drift of all operators over the first shared rows, and its gradients. All positions of a row are read;
        therefore only the first rows, with about as many positions as there are shared rows.
        """
        lengths = np.diff(self.corpus.first)[shared.rows]
        count = max(1, int(np.searchsorted(np.cumsum(lengths), len(shared.rows), side="right")))
        rows, outside = shared.rows[:count], shared.outside[:, :count]
        weights = outside / np.maximum(outside.sum(1, keepdims=True), 1)
        for batch, upper in self.corpus.upper_layers(rows):
            for subset in range(len(operators.alpha)):
                part = _part(upper, batch, WeightedRows(rows, weights[subset]), drift=True)
                self._add(operators, subset, part, gradients)

    def add_losses(
        self, operators: Operators, rows: Array, weights: torch.Tensor, gradients: OperatorGradients
    ) -> None:
        """Add the weighted losses of all operators at all positions of the rows, and their gradients."""
        host_weights = weights.double().cpu().numpy()
        for batch, upper in self.corpus.upper_layers(rows):
            for subset in range(len(operators.alpha)):
                part = _part(upper, batch, WeightedRows(rows, host_weights[subset]))
                self._add(operators, subset, part, gradients)

    def measure(self, operators: Operators, rows: Array) -> torch.Tensor:
        """y (n, K) float32: how much each operator lowers the mean loss of each row."""
        measurements = torch.zeros(len(rows), len(operators.alpha), device=self.head.weight.device)
        for batch, upper in self.corpus.upper_layers(rows):
            y = measure_by_upper_layers(self.head, operators, upper)
            for at, row in enumerate(batch):
                measurements[torch.from_numpy(np.flatnonzero(rows == row))] = y[at]
        return measurements

    def _add(self, operators: Operators, subset: int, part: _BatchPart, gradients: OperatorGradients) -> None:
        """Add one operator's weighted loss or drift on a part of a batch, and its gradients."""
        if not len(part.weights):
            return
        with torch.inference_mode(False), torch.enable_grad():
            basis = operators.basis.detach().clone().requires_grad_()
            alpha = operators.alpha[subset].detach().clone().requires_grad_()
            hidden = part.upper.forward_from(_steered(part.upper.states[part.which], basis, alpha), part.which)
        loss, error = loss_at(self.head, hidden.detach(), part.expected, part.weights)
        basis_gradient, alpha_gradient = torch.autograd.grad(hidden, [basis, alpha], error.to(hidden.dtype))
        gradients.loss += loss
        gradients.basis += basis_gradient
        gradients.alpha[subset] += alpha_gradient


@dataclass(frozen=True, slots=True)
class _BatchPart:
    """Examples of a batch with their weights, and their targets or unchanged states."""

    upper: UpperLayers
    which: torch.Tensor
    """(m,) int64: the examples."""
    expected: torch.Tensor
    """At target positions: the targets (P,) int64 for the loss, or the unchanged states (P, D) for the drift."""
    weights: torch.Tensor
    """(P,) float32."""


def _part(upper: UpperLayers, batch: Array, rows: WeightedRows, *, drift: bool = False) -> _BatchPart:
    """The examples of a batch, whose rows (n,) are distinct, that are among `rows` and have a weight."""
    order = np.argsort(batch)
    place = np.minimum(np.searchsorted(batch[order], rows.rows), len(batch) - 1)
    in_batch = (batch[order][place] == rows.rows) & (rows.weights != 0)
    which = torch.from_numpy(order[place[in_batch]]).to(upper.states.device)
    target_mask = upper.target_mask[which]
    weights = torch.from_numpy(rows.weights[in_batch]).to(which.device) / target_mask.sum(1).clamp(min=1)
    expected = (upper.hidden if drift else upper.targets)[which][target_mask]
    return _BatchPart(upper, which, expected, weights[:, None].expand(target_mask.shape)[target_mask].float())


def measure_by_upper_layers(head: Head, operators: Operators, upper: UpperLayers) -> torch.Tensor:
    """y (n, K) float32 of a batch's n examples: how much each operator lowers the mean loss; 0 without target positions."""
    device = upper.states.device
    examples = torch.arange(len(upper.states), device=device)
    example_ids = examples[:, None].expand_as(upper.target_mask)[upper.target_mask]
    targets = upper.targets[upper.target_mask]
    weights = (1 / upper.target_mask.sum(1).clamp(min=1)).float()[example_ids]

    def losses(hidden: torch.Tensor) -> torch.Tensor:
        """(P,) losses at states (P, D), tile by tile."""
        return torch.cat([*_losses(head, hidden, targets)]) if len(hidden) else hidden.new_zeros(0, dtype=torch.float32)

    measurements = torch.zeros(len(examples), len(operators.alpha), device=device)
    with torch.no_grad():
        base_losses = losses(upper.hidden[upper.target_mask])
        for subset, alpha in enumerate(operators.alpha):
            steered_losses = losses(upper.forward_from(_steered(upper.states, operators.basis, alpha), examples))
            measurements[:, subset].index_add_(0, example_ids, (base_losses - steered_losses) * weights)
    return measurements


def _steered(states: torch.Tensor, basis: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    """States changed by an operator: z + (z̃B)α."""
    return states + ((states.float() @ basis[:-1] + basis[-1]) @ alpha).to(states.dtype)


def _losses(head: Head, hidden: torch.Tensor, targets: torch.Tensor) -> Iterator[torch.Tensor]:
    """Losses at states (P, D), one tile after the other."""
    step = tile_rows(head)
    for start in range(0, len(hidden), step):
        logits = logits_at(head, hidden[start : start + step])
        yield torch.nn.functional.cross_entropy(logits, targets[start : start + step], reduction="none")
