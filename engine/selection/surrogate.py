"""The utility of a set for a task, a quadratic surrogate: Û(S) = ⟨v, Φ̄_S⟩ − (λ/2)‖Φ̄_S‖². Pure functions of arrays.

From the descent lemma, L(θ0) − L(θ_S) ≥ η⟨v, Φ_S⟩ − (Lη²/2)‖Φ_S‖² for a step of size η along the set's mean gradient; λ stands
for Lη in raw units. At λ = 1 it ranks sets as −½‖v − Φ̄_S‖² does: by how closely they match the target's own gradient; at λ = 0 it
is the additive prediction of influence methods.
"""

from __future__ import annotations

import numpy as np

from ...store.errors import DataError
from ...store.layout import Array

DEFAULT_PENALTY = 1.0
"""λ without a calibration."""
GRID = (0.0, 0.0625, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0)
"""Candidates for λ, declared before anything is measured."""


def utilities(means: Array, vectors: Array, penalty: float = DEFAULT_PENALTY) -> Array:
    """(S, T) float64: Û of each subset for each task. means (S, D): Φ̄; vectors (T, D): v; penalty: λ ≥ 0.

    Raises:
        DataError: widths that differ.
    """
    if means.shape[1] != vectors.shape[1]:
        raise DataError(f"subsets have {means.shape[1]} numbers, tasks {vectors.shape[1]}")
    linear = means.astype(np.float64) @ vectors.T.astype(np.float64)
    squares = np.einsum("sd,sd->s", means, means, dtype=np.float64)
    return np.asarray(linear - penalty / 2 * squares[:, None])
