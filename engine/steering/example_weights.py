"""Weights ω of examples in their subsets' loss, which keep the influence of well-learnt examples from vanishing.

If a model has learnt an example, its gradient on the example nearly vanishes, and an operator learns hardly anything from it.
Weights of whole examples, inverse to the norm of their gradient at the head, recover planted examples that unweighted training
misses; weights of single tokens do not achieve this. Knows hidden states and a head; no text, no store.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from ...store.layout import Array
from ..fitting.hidden_states import parts_in_memory
from ..interface.model_view import Head
from ..interface.subset_method import HiddenStates, StateArrays
from .operators import logits_at

_ROWS = 256  # rows that are read together
_TOKENS = 4096  # tokens of the vocabulary whose residuals are converted to float64 at a time
_SMALLEST_NORM = 0.05  # as a fraction of the median norm; a smaller norm counts as this


def head_norms(head: Head, corpus: HiddenStates, on_progress: Callable[[int], None] = lambda rows: None) -> Array:
    """(N,) float64: norm of an example's mean head gradient, ‖Σ_t r_t h_tᵀ‖ over its n target positions t divided by n, with
    r = softmax(z) − onehot(y); 0 without target positions.

    ‖Σ r_t h_tᵀ‖² = Σ_ts ⟨r_t, r_s⟩⟨h_t, h_s⟩: no gradient is formed. `on_progress` is called with the number of rows done.
    """
    norms = np.zeros(len(corpus.first) - 1)
    for begin in range(0, len(norms), _ROWS):
        rows = np.arange(begin, min(begin + _ROWS, len(norms)))
        for part in parts_in_memory(corpus, list(rows[:, None])):
            states, indices = corpus.read(rows[part])
            for row, index in zip(rows[part], indices, strict=True):
                norms[row] = _head_norm(head, states, slice(int(states.first[index]), int(states.first[index + 1])))
        on_progress(int(rows[-1]) + 1)
    return norms


def _head_norm(head: Head, states: StateArrays, positions: slice) -> float:
    """The norm for one row's positions."""
    if positions.start == positions.stop:
        return 0.0
    device = head.weight.device
    hidden, targets = states.hidden[positions].to(device), states.targets[positions].to(device)
    residual = torch.softmax(logits_at(head, hidden), 1)
    residual[torch.arange(len(targets), device=device), targets] -= 1
    wide_hidden = hidden.double()
    residual_products = torch.zeros(len(targets), len(targets), dtype=torch.float64, device=device)
    for part in torch.split(residual, _TOKENS, 1):
        wide_part = part.double()
        residual_products += wide_part @ wide_part.T
    square = float((residual_products * (wide_hidden @ wide_hidden.T)).sum())
    return float(np.sqrt(max(square, 0.0))) / len(targets)


def inverse_weights(norms: Array) -> Array:
    """(N,) ω in [0, 1]: 1 / max(norm, a twentieth of the median norm), divided by the largest; 0 where the norm is 0."""
    weights, positive = np.zeros(len(norms)), norms > 0
    if positive.any():
        inverses = 1 / np.maximum(norms[positive], _SMALLEST_NORM * float(np.median(norms[positive])))
        weights[positive] = inverses / inverses.max()
    return weights
