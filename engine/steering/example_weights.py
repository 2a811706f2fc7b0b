"""Weights ω of examples in their subsets' loss, which keep gradients of well-learnt examples from vanishing.

A model that has learnt an example has hardly a gradient left there, and an operator hardly anything to follow. Weights of whole
examples, against the norm of their gradient at the head, let planted rows be found that unweighted training misses; weights of
single tokens do not. Knows hidden states and a head; no text, no store.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from ...store.layout import Array
from ..fitting.hidden_states import together
from ..interface.model_view import Head
from ..interface.subset_method import HiddenStates, StateArrays
from .operators import logits_at

_ROWS = 256  # asked for together
_WORDS = 4096  # of the vocabulary, that lie in memory in float64
_LEAST = 0.05  # of the median norm: nobody weighs more than that allows


def head_norms(head: Head, corpus: HiddenStates, on_progress: Callable[[int], None] = lambda rows: None) -> Array:
    """(N,) float64: ‖Σ_t r_t h_tᵀ‖ over an example's positions t, r = softmax(z) − onehot(y), over their number; 0 of none.

    ‖Σ r_t h_tᵀ‖² = Σ_ts ⟨r_t, r_s⟩⟨h_t, h_s⟩: no gradient is formed. `on_progress` hears how many rows are done.
    """
    found = np.zeros(len(corpus.first) - 1)
    for begin in range(0, len(found), _ROWS):
        rows = np.arange(begin, min(begin + _ROWS, len(found)))
        for part in together(corpus, list(rows[:, None])):
            states, numbers = corpus.read(rows[part])
            for row, number in zip(rows[part], numbers, strict=True):
                found[row] = _head_norm(head, states, slice(int(states.first[number]), int(states.first[number + 1])))
        on_progress(int(rows[-1]) + 1)
    return found


def _head_norm(head: Head, states: StateArrays, row: slice) -> float:
    """Of a row's positions."""
    if row.start == row.stop:
        return 0.0
    device = head.weight.device
    hidden, targets = states.hidden[row].to(device), states.targets[row].to(device)
    residual = torch.softmax(logits_at(head, hidden), 1)
    residual[torch.arange(len(targets), device=device), targets] -= 1
    wide, shared = hidden.double(), torch.zeros(len(targets), len(targets), dtype=torch.float64, device=device)
    for some in torch.split(residual, _WORDS, 1):
        some = some.double()
        shared += some @ some.T
    square = float((shared * (wide @ wide.T)).sum())
    return float(np.sqrt(max(square, 0.0))) / len(targets)


def even(norms: Array) -> Array:
    """(N,) ω: one over the norm, or over a twentieth of the median where that is more, as shares of the largest; 0 of no norm."""
    found, positive = np.zeros(len(norms)), norms > 0
    if positive.any():
        known = 1 / np.maximum(norms[positive], _LEAST * float(np.median(norms[positive])))
        found[positive] = known / known.max()
    return found
