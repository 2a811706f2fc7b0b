"""STRIDE's linearity loss: weights of examples, as recovery computes them, should explain the measurements of training rows
(arXiv 2606.05165, L_LDS).

L = ‖M̃(M̃ᵀM̃ + γI)⁻¹M̃ᵀy − y‖² with M̃ = MR, R ∈ R^{N×q} a Johnson–Lindenstrauss matrix of signs, q < K. Knows operators and a
design; no text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from ...store.layout import Array
from ..runtime.hashing import hashed
from .operators import OperatorGradients, Operators
from .space import Space

if TYPE_CHECKING:
    from ..interface.subset_method import Design

_RIDGE = 0.1  # γ over the mean eigenvalue of M̃ᵀM̃
_NUMBERS = 1 << 19  # numbers of R in memory at a time


class Linearity:
    """The linearity loss for a design."""

    def __init__(self, design: Design, seed: int) -> None:
        """Read the whole design once. `seed`: seed of R."""
        width = max(1, design.subsets // 2)
        sketch = np.zeros((design.subsets + 1, width))  # the last row is for the padding of `Design.of`
        signs = hashed(seed, "linearity", width) | np.uint64(1)
        step = max(1, _NUMBERS // width)
        for start in range(0, design.rows, step):
            rows = np.arange(start, min(design.rows, start + step))
            bits = (rows.astype(np.uint64)[:, None] + np.uint64(1)) * signs  # the top bit of a multiplicative hash
            bits ^= bits >> np.uint64(29)
            lines = np.where((bits * np.uint64(0xBF58476D1CE4E5B9)) >> np.uint64(63), 1.0, -1.0) / np.sqrt(width)
            for subset_numbers in design.of(rows).T.astype(np.int64):
                np.add.at(sketch, subset_numbers, lines)
        sketch = sketch[:-1]
        gram = sketch.T @ sketch
        damping = _RIDGE * max(float(np.trace(gram)) / width, 1e-12)  # signs may cancel if all subsets are equal
        inverse = np.linalg.solve(gram + damping * np.eye(width), sketch.T)
        self.unexplained: Array = sketch @ inverse - np.eye(design.subsets)
        """(K, K): maps y to minus the part of y that no weights of examples explain."""

    def add(self, space: Space, operators: Operators, rows: Array, gradients: OperatorGradients) -> None:
        """Add the mean of L over rows (n,), and its gradients."""
        y = space.measure(operators, rows)
        residual = y.double().cpu().numpy() @ self.unexplained.T  # (n, K)
        gradients.loss += float((residual**2).sum()) / len(rows)
        loss_weights = -2 * (residual @ self.unexplained) / len(rows)  # gradient with respect to −y, which is a loss
        loss_gradients = OperatorGradients.zeros(operators)
        weights = torch.from_numpy(loss_weights.T.astype(np.float32)).to(y.device)
        space.add_losses(operators, rows, weights, loss_gradients)
        gradients.alpha += loss_gradients.alpha
        gradients.basis += loss_gradients.basis
