"""The second moment of hidden states over a sample of the corpus, and whitening by it. Knows no method and no store."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ...store.errors import DataError
from ...store.layout import Array
from ..interface.model_view import BatchOutputs
from .head_fisher import leading_eigenvectors


class HiddenMoment:
    """Accumulates A = E[h hᵀ] over all target positions, in float64."""

    def __init__(self, hidden: int) -> None:
        """All sums are zero. `hidden`: D."""
        self.count, self.products = 0, np.zeros((hidden, hidden))

    def accumulate(self, outputs: BatchOutputs) -> None:
        """Add the batch's positions."""
        hidden = outputs.hidden().double()
        self.products += (hidden.T @ hidden).cpu().numpy()
        self.count += len(hidden)

    def merge(self, other: HiddenMoment) -> None:
        """Add the sums of other examples."""
        self.count += other.count
        self.products += other.products

    def state_dict(self) -> dict[str, Array]:
        """The sums, without copies."""
        return {"count": np.array(self.count), "products": self.products}

    def load_state_dict(self, arrays: Mapping[str, Array]) -> None:
        """Continue from stored sums.

        Raises:
            DataError: they are of another shape.
        """
        shapes = {name: array.shape for name, array in arrays.items()}
        expected = {name: array.shape for name, array in self.state_dict().items()}
        if shapes != expected:
            raise DataError(f"sums of the hidden states' second moment have shapes {shapes}, expected {expected}")
        self.count, self.products = int(arrays["count"]), np.array(arrays["products"])

    def finish(self) -> dict[str, Array]:
        """`basis` (D, D) float32, A's eigenvectors in columns, and their `eigenvalues` (D,) float64, descending."""
        values, vectors = leading_eigenvectors(self.products / max(self.count, 1), len(self.products))
        return {"basis": vectors, "eigenvalues": values}


def whitening_matrix(state: Mapping[str, Array], width: int, damping: float) -> Array:
    """(D, width) float32: A's leading eigenvectors, each divided by √(λ + γ λ̄), with γ = `damping` and λ̄ the mean of all D λ.

    ⟨h W, h' W⟩ is hᵀ(A + γ λ̄ I)⁻¹h' where width = D. `state`: what :meth:`HiddenMoment.finish` returned. Where all λ are 0, W is
    the eigenvectors.
    """
    values, basis = state["eigenvalues"], state["basis"][:, :width]
    mean = float(values.mean())
    return np.asarray(basis / np.sqrt(values[:width] + damping * mean) if mean > 0 else basis, np.float32)
