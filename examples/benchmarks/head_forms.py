"""Forms of the head's gradient, computed from whole gradients in float64 by NumPy alone. Knows no store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np
from head_tasks import Array, HeadTask, Positions

SKETCH = 48
"""Buckets per side of the CountSketches."""


@dataclass(frozen=True, slots=True)
class Whitening:
    """A whitened gradient, each side damped by itself."""

    outputs: int = 0
    """Eigenvectors of the residuals' side; 0: all."""
    inputs: int = 0
    """Eigenvectors of the hidden states' side; 0: all."""
    damping: float = 0.1
    """Of each side, as a multiple of the mean of its eigenvalues."""
    through_head: bool = False
    """Whether residuals are read through the head."""
    unit_positions: bool = False
    """Whether each position's whitened residual has unit norm."""
    cosine: bool = False
    """Whether rows have unit norm."""


def probabilities(weight: Array, positions: Positions) -> Array:
    """(P, V) float64."""
    logits = positions.hidden.astype(np.float64) @ weight.T.astype(np.float64)
    p = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(p / p.sum(1, keepdims=True))


def gradients(residual: Array, positions: Positions) -> Array:
    """(n, V, D) float64: Σ r hᵀ of each example."""
    out = np.zeros((positions.examples, residual.shape[1], positions.hidden.shape[1]))
    starts = np.searchsorted(positions.example_ids, np.arange(positions.examples + 1))
    for example, (start, stop) in enumerate(pairwise(starts)):
        out[example] = residual[start:stop].T @ positions.hidden[start:stop]
    return out


@dataclass(frozen=True)
class Head:
    """A task's head gradients and its Fisher matrix."""

    task: HeadTask

    @cached_property
    def p(self) -> Array:
        return probabilities(self.task.weight, self.task.corpus)

    @cached_property
    def corpus(self) -> Array:
        return gradients(self.p - np.eye(self.p.shape[1])[self.task.corpus.targets], self.task.corpus)

    @cached_property
    def queries(self) -> Array:
        p = probabilities(self.task.weight, self.task.queries)
        return gradients(p - np.eye(p.shape[1])[self.task.queries.targets], self.task.queries)

    @cached_property
    def bases(self) -> tuple[Array, Array, Array, Array]:
        """Eigenvalues and eigenvectors of B, then of A, descending."""
        hidden = self.task.corpus.hidden.astype(np.float64)
        residuals = (np.diag(self.p.sum(0)) - self.p.T @ self.p) / len(self.p)
        (b, output_basis), (a, input_basis) = np.linalg.eigh(residuals), np.linalg.eigh(hidden.T @ hidden / len(hidden))
        return b[::-1].clip(0), output_basis[:, ::-1], a[::-1].clip(0), input_basis[:, ::-1]

    def rotated(self, gradient: Array) -> Array:
        """(n, V·D): coordinates in the eigenbasis."""
        _, output_basis, _, input_basis = self.bases
        turned = np.matmul(np.matmul(output_basis.T, gradient), input_basis)
        return np.asarray(turned.reshape(len(gradient), -1))

    @cached_property
    def coordinates(self) -> tuple[Array, Array]:
        return self.rotated(self.queries), self.rotated(self.corpus)

    def leading(self, count: int, rank: int = 0) -> tuple[Array, Array]:
        """The places and eigenvalues of the `count` largest λ_b λ_a (0: all), of the `rank` first eigenvectors of B."""
        b, _, a, _ = self.bases
        values = np.outer(b[: rank or len(b)], a).ravel()
        places = np.argsort(-values, kind="stable")[: count or len(values)]
        return places, values[places]

    def kfac(self, damping: float, count: int = 0, rank: int = 0) -> Array:
        """(Q, N) influence."""
        places, values = self.leading(count, rank)
        queries, corpus = (part[:, places] for part in self.coordinates)
        return products(queries / (values + damping * values.mean()), corpus)

    def whitened(self, how: Whitening) -> Array:
        """(Q, N): inner products of whitened gradients."""
        _, _, a, input_basis = self.bases
        values, projection = self.read_through_head() if how.through_head else self.bases[:2]
        sides = []
        for eigenvalues, basis, count in ((values, projection, how.outputs), (a, input_basis, how.inputs)):
            leading = eigenvalues[: count or len(eigenvalues)]
            sides.append(basis[:, : len(leading)] / np.sqrt(leading + how.damping * leading.mean()))
        rows = []
        for part in (self.task.queries, self.task.corpus):
            p = probabilities(self.task.weight, part)
            left = (p - np.eye(p.shape[1])[part.targets]) @ sides[0]
            left = unit(left) if how.unit_positions else left
            rows.append(gradients(left, replace(part, hidden=part.hidden @ sides[1])))
        return products(*(unit(part) if how.cosine else part for part in rows))

    def read_through_head(self) -> tuple[Array, Array]:
        """Eigenvalues of Wᵀ B W, descending, and W times its eigenvectors (V, D)."""
        weight = self.task.weight.astype(np.float64)
        spread = weight.T @ ((np.diag(self.p.sum(0)) - self.p.T @ self.p) / len(self.p)) @ weight
        values, vectors = np.linalg.eigh(spread)
        return values[::-1].clip(0), weight @ vectors[:, ::-1]

    def corrected(self, moments: Callable[[], Array]) -> Array:
        """(Q, N) influence with E[ĝ²] in place of λ_b λ_a (EK-FAC, George et al. 2018), of 1,024 coordinates."""
        places, _ = self.leading(1024)
        values = moments()[places]
        queries, corpus = (part[:, places] for part in self.coordinates)
        return products(queries / (values + 0.1 * values.mean()), corpus)

    def own_moments(self) -> Array:
        """(V·D,): the mean square of the examples' coordinates."""
        return np.asarray((self.coordinates[1] ** 2).mean(0))

    def sampled_moments(self) -> Array:
        """(V·D,): E[ĝ²] of one position, with labels drawn from the model."""
        chance = np.random.default_rng(0)
        labels = (self.p.cumsum(1) < chance.random((len(self.p), 1))).sum(1).clip(max=self.p.shape[1] - 1)
        _, output_basis, _, input_basis = self.bases
        residual = (self.p - np.eye(self.p.shape[1])[labels]) @ output_basis
        hidden = self.task.corpus.hidden.astype(np.float64) @ input_basis
        return np.asarray(((residual**2).T @ hidden**2 / len(hidden)).ravel())

    def empirical(self, damping: float) -> Array:
        """(Q, N): influence by the second moment of the examples' own gradients, by the identity of Woodbury."""
        rows = self.corpus.reshape(len(self.corpus), -1)
        gram = rows @ rows.T
        shift = damping * np.trace(gram) / rows.shape[1]
        inverse = np.linalg.solve(gram + shift * np.eye(len(gram)), gram)
        product = products(self.queries, self.corpus)
        return np.asarray(product - product @ inverse)

    def preconditioned(self) -> Array:
        """(Q, V, D): the queries' gradients times the inverse of B ⊗ A, damped by its mean eigenvalue."""
        b, output_basis, a, input_basis = self.bases
        weights = 1 / (np.outer(b, a) + np.outer(b, a).mean())
        turned = self.coordinates[0].reshape(self.queries.shape) * weights
        return np.asarray(np.matmul(np.matmul(output_basis, turned), input_basis.T))

    def hashed(self, queries: Array) -> Array:
        """(Q, N) inner products of CountSketches of both sides, of queries (Q, V, D) and the corpus."""
        chance, sketches = np.random.default_rng(0), list[Array]()
        for size in queries.shape[1:]:
            sketch = np.zeros((size, SKETCH))
            sketch[np.arange(size), chance.integers(0, SKETCH, size)] = chance.choice([-1.0, 1.0], size)
            sketches.append(sketch)
        short = [np.matmul(np.matmul(sketches[0].T, part), sketches[1]) for part in (queries, self.corpus)]
        return products(short[0], short[1])


def products(queries: Array, corpus: Array) -> Array:
    """(Q, N) inner products."""
    return np.asarray(queries.reshape(len(queries), -1) @ corpus.reshape(len(corpus), -1).T)


def unit(rows: Array) -> Array:
    """Rows of unit norm, flattened."""
    flat = rows.reshape(len(rows), -1)
    return np.asarray(flat / np.linalg.norm(flat, axis=1, keepdims=True).clip(1e-30))
