"""The Fisher matrix of the head, as a Kronecker product of two small eigenbases; no labels and no backward pass.

At a position with hidden state h (D) and probabilities p (V), the head's gradient is r hᵀ with r = p − onehot(y). Over labels y
drawn from p, E[r rᵀ] = diag p − p pᵀ. K-FAC (Martens & Grosse 2015, arXiv 1503.05671, section 3) takes the Fisher matrix of the
head as B ⊗ A with A = E[h hᵀ] and B = E[diag p − p pᵀ], expectations over target positions. Coordinates of a gradient g (V, D)
are U_Bᵀ g U_A, with eigenvalues λ_b λ_a.

Up to a vocabulary of `FULL_VOCABULARY`, B is summed whole. For larger ones only its product with a random matrix Ω is: Y = B Ω,
V × (r + 32), by BΩ = E[p ∘ Ω] − E[p (pᵀΩ)]. The leading eigenvectors come from B ≈ Y (ΩᵀY)⁻¹ Yᵀ (Nyström; Halko, Martinsson &
Tropp 2011, arXiv 0909.4061, section 5.5), with a pseudo-inverse where ΩᵀY is singular.
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

FULL_VOCABULARY = 4096
"""Largest vocabulary whose B is summed whole, V × V."""
OVERSAMPLING = 32
"""Columns of Ω beyond the rank."""
POSITIONS = 16
"""Largest number of positions of one example that are summed: evenly spaced ones, which stand for the others."""
_TILE_BYTES = 24 << 20  # float64 probabilities that are multiplied at once
_CUT = 1e-12  # smaller eigenvalues, as a fraction of the largest, are rounding errors


@dataclass(frozen=True, slots=True)
class FisherShape:
    """The sizes of the head, and of what is kept of its Fisher matrix."""

    hidden: int
    """D."""
    vocabulary: int
    """V."""
    rank: int
    """Most eigenvectors of B."""
    coordinates: int
    """Most pairs of eigenvectors of B and A."""
    seed: int
    """Seed of Ω."""

    @property
    def is_full(self) -> bool:
        """Whether B is summed whole."""
        return self.vocabulary <= FULL_VOCABULARY

    @property
    def numbers(self) -> int:
        """Number of coordinates."""
        return min(self.coordinates, self.width * self.hidden)

    @property
    def width(self) -> int:
        """Number of eigenvectors of B."""
        return min(self.rank, self.vocabulary)

    @property
    def sum_shape(self) -> tuple[int, int]:
        """Shape of what is summed for B: p pᵀ, or p (pᵀΩ)."""
        return self.vocabulary, self.vocabulary if self.is_full else self.width + OVERSAMPLING

    @property
    def tile_rows(self) -> int:
        """Positions whose probabilities are multiplied at once."""
        return max(16, _TILE_BYTES // (8 * self.vocabulary))

    def test_matrix(self) -> Array:
        """Ω: (V, r + 32) float32, standard normal, a function of the seed."""
        shape = self.sum_shape
        return np.random.Generator(np.random.Philox(self.seed)).standard_normal(shape, dtype=np.float32)

    def bytes(self) -> int:
        """Memory of the sums, of Ω, of a tile and of the eigendecompositions."""
        rows, columns = self.sum_shape
        tile = self.tile_rows * (20 * self.vocabulary + 8 * columns) + 3 * _TILE_BYTES
        sums = 8 * (rows * columns + rows + self.hidden**2)
        decompositions = 8 * 6 * self.hidden**2 + 12 * self.vocabulary * self.width
        decompositions += 8 * 4 * rows * columns if self.is_full else 12 * rows * columns + 8 * 8 * columns**2
        return tile + sums + decompositions


class FisherSums:
    """Accumulates A and B in float64; see the module's docstring for the formulas."""

    def __init__(self, shape: FisherShape) -> None:
        """All sums are zero."""
        self.shape, self.count = shape, 0.0
        self.inputs = np.zeros((shape.hidden, shape.hidden))
        self.probabilities = np.zeros(shape.vocabulary)
        self.products = np.zeros(shape.sum_shape)
        self._omega = np.zeros((0, 0), np.float32)

    def accumulate(self, outputs: BatchOutputs) -> None:
        """Add the batch's positions, at most `POSITIONS` of each example."""
        positions, weights = sampled_positions(outputs.example_ids, outputs.examples)
        for start in range(0, len(positions), self.shape.tile_rows):
            tile = slice(start, start + self.shape.tile_rows)
            p = torch.softmax(outputs.logits(positions[tile]).double(), 1)
            self._add(outputs.hidden()[positions[tile]].double(), p, weights[tile])
        self.count += float(weights.sum())

    def _add(self, hidden: torch.Tensor, p: torch.Tensor, weight: torch.Tensor) -> None:
        """Add a tile: hidden states (p, D) and probabilities (p, V) with weights (p,), float64."""
        self.inputs += ((hidden * weight[:, None]).T @ hidden).cpu().numpy()
        self.probabilities += (weight @ p).cpu().numpy()
        right = p if self.shape.is_full else self._times_omega(p)
        right = right * weight[:, None]
        products = torch.from_numpy(self.products)  # shares memory
        for part in _blocks(self.products):
            products[part] += (p[:, part].T @ right).cpu()

    def _times_omega(self, p: torch.Tensor) -> torch.Tensor:
        """(p, V) @ Ω, in float64."""
        if not self._omega.size:
            self._omega = self.shape.test_matrix()
        product = p.new_zeros(len(p), self._omega.shape[1])
        for part in _blocks(self._omega):
            product += p[:, part] @ torch.from_numpy(self._omega[part]).to(p.device, p.dtype)
        return product

    def merge(self, other: FisherSums) -> None:
        """Add the sums of other examples."""
        self.count += other.count
        self.inputs += other.inputs
        self.probabilities += other.probabilities
        self.products += other.products

    def state_dict(self) -> dict[str, Array]:
        """The sums, without copies."""
        return {
            "count": np.array(self.count), "inputs": self.inputs, "probabilities": self.probabilities,
            "products": self.products,
        }  # fmt: skip

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
        self.inputs, self.probabilities = np.array(arrays["inputs"]), np.array(arrays["probabilities"])
        self.products = np.array(arrays["products"])

    def finish(self) -> dict[str, Array]:
        """The eigenbases and the pairs of coordinates in descending order of λ_b λ_a: `input_basis` (D, D') and `output_basis`
        (V, r') float32, `input_at` and `output_at` (m,) int64, `eigenvalues` (m,) float64.
        """
        count = max(self.count, 1.0)
        input_values, input_basis = _leading(self.inputs / count, self.shape.hidden)
        output_values, output_basis = self._output_basis(count)
        products = np.outer(output_values, input_values)
        order = np.argsort(-products, axis=None, kind="stable")[: self.shape.numbers]
        output_at, input_at = np.unravel_index(order, products.shape)
        return {
            "input_basis": input_basis[:, : input_at.max() + 1].astype(np.float32, copy=False),
            "output_basis": output_basis[:, : output_at.max() + 1].astype(np.float32, copy=False),
            "input_at": input_at.astype(np.int64), "output_at": output_at.astype(np.int64),
            "eigenvalues": products[output_at, input_at],
        }  # fmt: skip

    def _output_basis(self, count: float) -> tuple[Array, Array]:
        """The leading eigenvalues (r,) and eigenvectors (V, r) of B."""
        mean = self.probabilities / count
        if self.shape.is_full:
            matrix = self.products / -count
            matrix[np.diag_indices(len(matrix))] += mean
            return _leading(matrix, self.shape.width)
        self._omega = np.zeros((0, 0), np.float32)  # made again below
        omega, product = self.shape.test_matrix(), self.products / -count
        for part in _blocks(product):
            product[part] += mean[part, None] * omega[part]
        return _nystrom(product, omega, self.shape.width)


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


def _leading(matrix: Array, rank: int) -> tuple[Array, Array]:
    """The `rank` largest eigenvalues of a symmetric matrix, descending, at least 0, and their eigenvectors in columns."""
    size = len(matrix)
    chosen = None if rank >= size else (size - rank, size - 1)
    values, vectors = scipy.linalg.eigh(matrix, subset_by_index=chosen, overwrite_a=True, check_finite=False)
    return np.maximum(values[::-1], 0), _with_signs(vectors[:, ::-1])


def _nystrom(product: Array, omega: Array, rank: int) -> tuple[Array, Array]:
    """The leading eigenvalues (rank,) float64 and eigenvectors (V, rank) float32 of a positive semidefinite B from Y = B Ω, which
    is overwritten; where Y has a lower rank, the last ones are 0.
    """
    columns = product.shape[1]
    core = np.zeros((columns, columns))
    for part in _blocks(product):
        core += omega[part].T.astype(np.float64) @ product[part]
    values, vectors = scipy.linalg.eigh((core + core.T) / 2, check_finite=False)
    roots = np.where(values > _CUT * max(values[-1], 0), np.sqrt(values.clip(1e-300)), np.inf)
    gram = np.zeros((columns, columns))
    for part in _blocks(product):
        product[part] = product[part] @ (vectors / roots)  # B ≈ product productᵀ
        gram += product[part].T @ product[part]
    values, rotation = (array[..., ::-1][..., :rank] for array in scipy.linalg.eigh(gram, check_finite=False))
    roots = np.where(values > _CUT * max(values[0], 0), np.sqrt(values.clip(1e-300)), np.inf)
    basis = np.zeros((len(product), rank), np.float32)
    for part in _blocks(product):
        basis[part, : len(values)] = product[part] @ (rotation / roots)
    return np.pad(np.where(np.isfinite(roots), values, 0), (0, rank - len(values))), _with_signs(basis)


def _blocks(matrix: Array) -> Iterator[slice]:
    """Blocks of rows of at most `_TILE_BYTES` in float64."""
    rows = max(1, _TILE_BYTES // (8 * matrix.shape[1]))
    for start in range(0, len(matrix), rows):
        yield slice(start, start + rows)


def _with_signs(vectors: Array) -> Array:
    """Columns (n, k) turned, in place, so that the entry of each that is largest in size is positive."""
    for column in vectors.T:
        if column[np.abs(column).argmax()] < 0:
            column *= -1
    return vectors


@dataclass(frozen=True, eq=False, slots=True)
class ProjectedResidual:
    """The residual p − onehot(y) at τ = 1, projected: (p, r). Compared by identity: the basis belongs to one run."""

    basis: torch.Tensor
    """(V, r) float32."""

    def __call__(self, logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(p, V), (p,) → ((p, r),). At the target, p − 1 is computed as minus the sum of the others, which is exact near 1."""
        residual = torch.softmax(logits, 1)
        at = torch.arange(len(residual), device=residual.device)
        residual[at, targets] = 0
        residual[at, targets] = -residual.sum(1)
        return (residual @ self.basis,)
