"""What each example should weigh in its subsets' fidelity, so that what a tuned model is sure of is heard: ω.

A model that has learnt an example has hardly a gradient left there, and an operator hardly anything to follow. Weights of whole
examples, against the norm of their gradient at the head, let planted rows be found that unweighted training misses; weights of
single tokens do not. Knows hidden states and a head; no text, no store.
"""

from __future__ import annotations

import numpy as np
import torch

from ...store.layout import Array
from ..method import Head
from .operators import logits_at
from .training import States

_LEAST = 0.05  # of the median norm: nobody weighs more than that allows


def head_norms(head: Head, states: States) -> Array:
    """(N,) float64: ‖Σ_t r_t h_tᵀ‖ over an example's positions t, r = softmax(z) − onehot(y), over their number; 0 of none.

    ‖Σ r_t h_tᵀ‖² = Σ_ts ⟨r_t, r_s⟩⟨h_t, h_s⟩: no gradient is formed.
    """
    found = np.zeros(len(states.first) - 1)
    device = head.weight.device
    for row in range(len(found)):
        start, stop = int(states.first[row]), int(states.first[row + 1])
        if start == stop:
            continue
        hidden, targets = states.hidden[start:stop].to(device), states.targets[start:stop].to(device)
        residual = torch.softmax(logits_at(head, hidden), 1)
        residual[torch.arange(len(targets), device=device), targets] -= 1
        wide = hidden.double()
        square = float(((residual.double() @ residual.double().T) * (wide @ wide.T)).sum())
        found[row] = np.sqrt(max(square, 0.0)) / len(targets)
    return found


def even(norms: Array) -> Array:
    """(N,) ω: one over the norm, or over a twentieth of the median where that is more, as shares of the largest."""
    positive = norms[norms > 0]
    least = _LEAST * float(np.median(positive)) if len(positive) else 1.0
    found = 1 / np.maximum(norms, max(least, 1e-300))
    return np.asarray(found / found.max(initial=1e-300))
