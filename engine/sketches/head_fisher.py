"""The Fisher matrix of the head, as a Kronecker product of two small eigenbases; no labels and no backward pass.

At a position with hidden state h (D) and probabilities p (V), the head's gradient is r hᵀ with r = p − onehot(y). Over labels y
drawn from p, E[r rᵀ] = diag p − p pᵀ. K-FAC (Martens & Grosse 2015, arXiv 1503.05671, section 3) takes the Fisher matrix of the
head as B ⊗ A with A = E[h hᵀ] and B = E[diag p − p pᵀ], expectations over target positions.

Of a large vocabulary the residual is read through the head's weight W (V, D): the error δ = Wᵀ r takes its place, and Wᵀ B W
(D, D) that of B. This is the gradient of a linear layer just below the head, at the identity. So no matrix is larger than
`FULL_VOCABULARY` or D squared.
Knows no method and no store.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import scipy.linalg
import torch

from ...store.errors import DataError
from ...store.layout import Array
from ..interface.model_view import BatchOutputs
from .head_gradient import whole_residual

FULL_VOCABULARY = 4096
"""Largest vocabulary whose residuals are taken as they are."""
POSITIONS = 8
"""Largest number of positions of one example whose probabilities are summed: evenly spaced ones, which stand for the others."""
_TILE_BYTES = 24 << 20  # float64 numbers that are multiplied at once


@dataclass(frozen=True, slots=True)
class FisherShape:
    """The sizes of the head, and of what is stored of its Fisher matrix."""

    hidden: int
    """D."""
    vocabulary: int
    """V."""
    rank: int
    """Most eigenvectors of B, or of Wᵀ B W."""
    coordinates: int
    """Most pairs of an eigenvector of that side and one of A."""

    @property
    def reads_errors(self) -> bool:
        """Whether errors δ = Wᵀ r stand for residuals r."""
        return self.vocabulary > FULL_VOCABULARY

    @property
    def output_size(self) -> int:
        """Length of a residual, or of an error."""
        return self.hidden if self.reads_errors else self.vocabulary

    @property
    def width(self) -> int:
        """Number of eigenvectors of the residuals' or errors' side."""
        return min(self.rank, self.output_size)

    @property
    def numbers(self) -> int:
        """Number of coordinates."""
        return min(self.coordinates, self.width * self.hidden)

    @property
    def is_whole(self) -> bool:
        """Whether all coordinates of the gradient are stored."""
        return not self.reads_errors and self.numbers == self.vocabulary * self.hidden

    @property
    def tile_rows(self) -> int:
        """Positions whose probabilities are multiplied at once."""
        return max(16, _TILE_BYTES // (8 * self.vocabulary))

    def bytes(self) -> int:
        """Memory of the sums, of a tile and of the eigendecompositions."""
        tile = self.tile_rows * (20 * self.vocabulary + 16 * self.output_size) + 4 * _TILE_BYTES
        pairs = 32 * self.width * self.hidden
        return tile + 8 * (8 * self.output_size**2 + 6 * self.hidden**2) + 32 * self.vocabulary + pairs


class FisherSums:
    """Accumulates A and B in float64; see the module's docstring for the formulas."""

    def __init__(self, shape: FisherShape) -> None:
        """All sums are zero."""
        self.shape, self.count = shape, 0.0
        self.inputs = np.zeros((shape.hidden, shape.hidden))
        self.outputs = np.zeros((shape.output_size, shape.output_size))  # of p pᵀ, or of Wᵀp pᵀW
        self.probabilities = np.zeros(shape.vocabulary)
        self._weight: torch.Tensor | None = None  # of the head, from the first batch

    def accumulate(self, outputs: BatchOutputs) -> None:
        """Add the batch's positions; of the probabilities at most `POSITIONS` of each example."""
        self._weight, states = outputs.head.weight, outputs.hidden()
        positions, weights = sampled_positions(outputs.example_ids, outputs.examples)
        products = weights.new_zeros(self.outputs.shape)
        totals = weights.new_zeros(self.shape.vocabulary)
        for start in range(0, len(positions), self.shape.tile_rows):
            tile = slice(start, start + self.shape.tile_rows)
            p = torch.softmax(outputs.logits(positions[tile]), 1)
            read = self._through_head(p, self._weight).double() if self.shape.reads_errors else p.double()
            products += (read * weights[tile, None]).T @ read
            totals += weights[tile] @ p.double()
        for part in _blocks(*states.shape):
            hidden = states[part].double()
            self.inputs += (hidden.T @ hidden).cpu().numpy()
        self.outputs += products.cpu().numpy()
        self.probabilities += totals.cpu().numpy()
        self.count += len(states)

    def _through_head(self, p: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """p @ W: (p, D) float32, of probabilities (p, V)."""
        read = p.new_zeros(len(p), self.shape.hidden)
        for part in _blocks(*weight.shape):
            read += p[:, part] @ weight[part].float()
        return read

    def merge(self, other: FisherSums) -> None:
        """Add the sums of other examples."""
        self.count += other.count
        self.inputs += other.inputs
        self.outputs += other.outputs
        self.probabilities += other.probabilities
        self._weight = other._weight if self._weight is None else self._weight

    def state_dict(self) -> dict[str, Array]:
        """The sums, without copies."""
        return {"count": np.array(self.count), "inputs": self.inputs, "outputs": self.outputs,
                "probabilities": self.probabilities}  # fmt: skip

    def load_state_dict(self, arrays: Mapping[str, Array]) -> None:
        """Continue from stored sums.

        Raises:
            DataError: they are of another shape.
        """
        expected = {name: array.shape for name, array in self.state_dict().items()}
        shapes = {name: array.shape for name, array in arrays.items()}
        if shapes != expected:
            raise DataError(f"sums of the head's Fisher matrix have shapes {shapes}, expected {expected}")
        self.count = float(arrays["count"])
        self.inputs, self.outputs = np.array(arrays["inputs"]), np.array(arrays["outputs"])
        self.probabilities = np.array(arrays["probabilities"])

    def finish(self) -> dict[str, Array]:
        """The eigenvectors and the pairs of them with the largest λ_b λ_a, descending: `input_basis` (D, D') and `output_basis`
        (V or D, V') float32, `input_at` and `output_at` (m,) int64, `eigenvalues` (m,) float64.
        """
        count = max(self.count, 1.0)
        input_values, input_basis = leading_eigenvectors(self.inputs / count, self.shape.hidden)
        output_values, output_basis = leading_eigenvectors(self._spread() / count, self.shape.width)
        products = np.outer(output_values, input_values)
        order = np.argsort(-products, axis=None, kind="stable")[: self.shape.numbers]
        output_at, input_at = np.unravel_index(order, products.shape)
        return {
            "input_basis": input_basis[:, : input_at.max() + 1], "output_basis": output_basis[:, : output_at.max() + 1],
            "input_at": input_at.astype(np.int64), "output_at": output_at.astype(np.int64),
            "eigenvalues": products[output_at, input_at],
        }  # fmt: skip

    def _spread(self) -> Array:
        """Σ (diag p − p pᵀ), or Wᵀ Σ (diag p − p pᵀ) W."""
        spread: Array = -self.outputs
        if not self.shape.reads_errors:
            spread[np.diag_indices(len(spread))] += self.probabilities
        elif self._weight is not None:
            totals = torch.from_numpy(self.probabilities).to(self._weight.device)
            diagonal = totals.new_zeros(spread.shape)
            for part in _blocks(*self._weight.shape):
                rows = self._weight[part].double()
                diagonal += (rows * totals[part, None]).T @ rows
            spread += diagonal.cpu().numpy()
        return spread


def sampled_positions(example_ids: torch.Tensor, examples: int) -> tuple[torch.Tensor, torch.Tensor]:
    """At most `POSITIONS` evenly spaced positions of each example, and how many positions each of them stands for.

    (P,) example ids, ascending → numbers of positions (p,) int64, weights (p,) float64.
    """
    counts = torch.bincount(example_ids, minlength=examples)
    numbers = counts.clamp(max=POSITIONS)
    example = torch.repeat_interleave(torch.arange(examples, device=counts.device), numbers)
    within = torch.arange(len(example), device=counts.device) - (numbers.cumsum(0) - numbers)[example]
    first = counts.cumsum(0) - counts
    at = first[example] + (2 * within + 1) * counts[example] // (2 * numbers[example])
    return at, counts[example].double() / numbers[example].double()


def _blocks(rows: int, columns: int) -> Iterator[slice]:
    """Blocks of rows of at most `_TILE_BYTES` in float64."""
    step = max(1, _TILE_BYTES // (8 * columns))
    for start in range(0, rows, step):
        yield slice(start, start + step)


def leading_eigenvectors(matrix: Array, count: int) -> tuple[Array, Array]:
    """The `count` largest eigenvalues (count,) float64 of a symmetric matrix, descending, at least 0, and their eigenvectors in
    columns, float32; the entry of each that is largest in size is positive.
    """
    size = len(matrix)
    chosen = None if count >= size else (size - count, size - 1)
    values, vectors = scipy.linalg.eigh(matrix, subset_by_index=chosen, overwrite_a=True, check_finite=False)
    basis = vectors[:, ::-1].astype(np.float32)
    basis *= np.sign(basis[np.abs(basis).argmax(0), np.arange(basis.shape[1])])
    return np.maximum(values[::-1], 0), basis


@dataclass(frozen=True, eq=False, slots=True)
class ProjectedResidual:
    """The residual p − onehot(y) at τ = 1, projected: (p, k). Compared by identity: the projection belongs to one run."""

    projection: torch.Tensor
    """(V, k) float32."""

    def __call__(self, logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(p, V), (p,) → ((p, k),)."""
        return (whole_residual(logits, targets) @ self.projection,)
