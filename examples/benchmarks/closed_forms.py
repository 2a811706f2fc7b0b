"""Scores that need no operators: products of gradients and hidden states of a small network, for `steering_digits.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from steering_digits import Base

PROJECTED = 512
"""Numbers of a projected gradient."""


def closed_forms(base: Base) -> dict[str, np.ndarray]:
    """What needs no operators: weights (Q, N) of each. TRAK's gradients are of the margin log p/(1 − p), at one checkpoint."""
    queries, rows = base.gradients(base.queries, base.right), base.gradients(base.rows, base.labels)
    every = base.whole(1), base.whole(0)
    chance = np.random.default_rng(0).normal(size=(every[0].shape[1], PROJECTED)) / PROJECTED**0.5
    small = [one @ chance for one in every]
    left = [base.left(which) for which in (1, 0)]  # 1 − p
    margins = [one / share[:, None] for one, share in zip(small, left, strict=True)]
    states = base.queries.double().numpy(), base.rows.double().numpy()
    return {"head Gauss–Newton": damped(queries, rows), "head cosine": cosine(queries, rows),
            "head inner product": queries @ rows.T, "all gradients projected, Gauss–Newton (LoGra's form)": damped(*small),
            "TRAK's form": damped(*margins) * left[1], "cosine of all gradients": cosine(*every),
            "representation cosine": cosine(*states)}  # fmt: skip


def damped(queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Inner products by the inverse of the rows' damped second moment."""
    moment = rows.T @ rows / len(rows)
    return queries @ np.linalg.solve(moment + 0.1 * np.trace(moment) / len(moment) * np.eye(len(moment)), rows.T)


def cosine(queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Of every query with every row."""
    one, other = (each / np.maximum(np.linalg.norm(each, axis=1, keepdims=True), 1e-12) for each in (queries, rows))
    return one @ other.T
