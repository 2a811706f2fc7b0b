"""Linear algebra on second moments: damping, inverse roots, preconditioning of queries. Knows arrays alone."""

from __future__ import annotations

import numpy as np
import scipy.linalg

from ...store.errors import DataError
from ...store.layout import Array


def damped(gram: Array, damping: float) -> Array:
    """gram + damping · mean(diagonal) · 1, (D, D) float64; the identity if the matrix is 0."""
    result: Array = np.array(gram, np.float64)
    step = damping * float(np.trace(result)) / len(result)
    result[np.diag_indices(len(result))] += step if step > 0 else 1.0
    return result


def preconditioned(matrix: Array, gram: Array, damping: float) -> Array:
    """(Q, D) float64: each query times the inverse of the damped second moment.

    Raises:
        DataError: the damped matrix is not positive definite; a larger damping is needed.
    """
    try:
        factor = scipy.linalg.cho_factor(damped(gram, damping), check_finite=True)
    except (np.linalg.LinAlgError, ValueError):
        raise DataError(
            f"the second-moment matrix of size {len(gram)} is not positive definite at damping {damping}",
            hint="use a larger damping",
        ) from None
    result: Array = scipy.linalg.cho_solve(factor, np.asarray(matrix, np.float64).T).T
    return result


def inverse_root(gram: Array, damping: float) -> Array:
    """(D, D) float64: the symmetric R with R² = the inverse of the damped second moment."""
    values, vectors = scipy.linalg.eigh(damped(gram, damping))
    floor = max(float(values[-1]), 1e-300) * 1e-12
    result: Array = (vectors / np.sqrt(np.maximum(values, floor))) @ vectors.T
    return result
