"""STRIDE's linearity loss: measurements of training rows should be explained by weights of rows (arXiv 2606.05165, L_LDS).

L = ‖M̃(M̃ᵀM̃ + γI)⁻¹M̃ᵀy − y‖² with M̃ = MR, R ∈ R^{N×q} a Johnson–Lindenstrauss matrix of signs, q < K. Knows operators and what a
design offers; no text.
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
_NUMBERS = 1 << 19  # of R, made together


class Linearity:
    """L_LDS of a design."""

    def __init__(self, subsets: Design, seed: int) -> None:
        """One pass over the design."""
        width = max(1, subsets.subsets // 2)
        sketch = np.zeros((subsets.subsets + 1, width))  # the last stands for none
        signs = hashed(seed, "linearity", width) | np.uint64(1)
        step = max(1, _NUMBERS // width)
        for start in range(0, subsets.rows, step):
            rows = np.arange(start, min(subsets.rows, start + step))
            bits = (rows.astype(np.uint64)[:, None] + np.uint64(1)) * signs  # the top bit of a multiplicative hash
            bits ^= bits >> np.uint64(29)
            lines = np.where((bits * np.uint64(0xBF58476D1CE4E5B9)) >> np.uint64(63), 1.0, -1.0) / np.sqrt(width)
            for part in subsets.of(rows).T.astype(np.int64):
                np.add.at(sketch, part, lines)
        sketch = sketch[:-1]
        gram = sketch.T @ sketch
        damping = _RIDGE * max(float(np.trace(gram)) / width, 1e-12)  # signs may cancel where all subsets are one
        inverse = np.linalg.solve(gram + damping * np.eye(width), sketch.T)
        self.unexplained: Array = sketch @ inverse - np.eye(subsets.subsets)
        """(K, K): y to the part of it that no weights explain, negative."""

    def add(self, space: Space, operators: Operators, rows: Array, into: OperatorGradients) -> None:
        """Add the mean over rows (n,) of L, and its gradients."""
        y = space.measured(operators, rows)
        left = y.double().cpu().numpy() @ self.unexplained.T  # (n, K)
        into.loss += float((left**2).sum()) / len(rows)
        back = -2 * (left @ self.unexplained) / len(rows)  # by −y, which is a loss
        steps = OperatorGradients.zeros(operators)
        space.add_losses(operators, rows, torch.from_numpy(back.T.astype(np.float32)).to(y.device), steps)
        into.alpha += steps.alpha
        into.basis += steps.basis
