"""LDS of each step from whole gradients to short rows: restriction to the head, basis, truncation, rank, damping, sketch.

The forms are computed from whole gradients of the head in float64, by NumPy alone; the last ones are rows that headwater stores
and scores. The tasks are those of `head_tasks.py`. What was made stays:

    python examples/benchmarks/head_curvature.py --out /scratch
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import head_tasks
import machine
import numpy as np
from head_tasks import Array, HeadTask, Positions

SKETCH = 48
"""Buckets per side of the CountSketches."""
ROWS: dict[str, tuple[str, tuple[str, ...]]] = {
    "headkfac": ("headkfac", ()),
    "headkfac, m = 256": ("headkfac", ("headkfac.m", "256")),
    "headkfac, m = 4,096": ("headkfac", ("headkfac.m", "4096")),
    "headkfac, cosine": ("headkfac", ("headkfac.cosine", "true")),
    "headkfac, int8": ("headkfac", ("headkfac.precision", "int8")),
    "headgn": ("headgn", ()),
    "headcos": ("headcos", ()),
    "rise": ("rise", ()),
    "rise, τ = 1, floor 1": ("rise", ("rise.tau", "1.0", "rise.floor", "1.0")),
    "grasp": ("grasp", ()),
}
"""Rows that headwater stores: label → method and settings."""


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

    def kfac(self, damping: float = 0.1, coordinates: int = 0, rank: int = 0, corrected: Array | None = None) -> Array:
        """(Q, N) influence, or by other eigenvalues than λ_b λ_a."""
        b, _, a, _ = self.bases
        values = np.outer(b, a)
        values[rank or len(values) :] = 0
        leading = np.argsort(-values, axis=None)[: coordinates or (rank or len(b)) * len(a)]
        queries, corpus = self.coordinates
        chosen = (values.ravel() if corrected is None else corrected)[leading]
        return np.asarray((queries[:, leading] / (chosen + damping * chosen.mean())) @ corpus[:, leading].T)

    def sampled_moments(self) -> Array:
        """(V·D,): E[ĝ²] of one position, with labels drawn from the model (EK-FAC, George et al. 2018)."""
        chance = np.random.default_rng(0)
        cut = (self.p.cumsum(1) < chance.random((len(self.p), 1))).sum(1).clip(max=self.p.shape[1] - 1)
        _, output_basis, _, input_basis = self.bases
        residual = (self.p - np.eye(self.p.shape[1])[cut]) @ output_basis
        hidden = self.task.corpus.hidden.astype(np.float64) @ input_basis
        return np.asarray(((residual**2).T @ hidden**2 / len(hidden)).ravel())

    def empirical(self, damping: float) -> Array:
        """(Q, N): influence by the second moment of the examples' own gradients, by the identity of Woodbury."""
        rows = self.corpus.reshape(len(self.corpus), -1)
        gram = rows @ rows.T
        shift = damping * np.trace(gram) / rows.shape[1]
        inverse = np.linalg.solve(gram + shift * np.eye(len(gram)), gram)
        product = self.queries.reshape(len(self.queries), -1) @ rows.T
        return np.asarray(product - product @ inverse)

    def sketches(self) -> tuple[Array, Array]:
        """(V, 48) and (D, 48): CountSketches."""
        chance = np.random.default_rng(0)
        made = []
        for size in self.queries.shape[1:]:
            matrix = np.zeros((size, SKETCH))
            matrix[np.arange(size), chance.integers(0, SKETCH, size)] = chance.choice([-1.0, 1.0], size)
            made.append(matrix)
        return made[0], made[1]


def forms(head: Head) -> Iterator[tuple[str, Array]]:
    """Label and scores (Q, N) of each form."""
    flat = [part.reshape(len(part), -1) for part in (head.queries, head.corpus)]
    yield "head, gradient dot", flat[0] @ flat[1].T
    units = [part / np.linalg.norm(part, axis=1, keepdims=True).clip(1e-30) for part in flat]
    yield "head, gradient cosine", units[0] @ units[1].T
    left, right = head.sketches()
    short = [np.einsum("vk,nvd,dl->nkl", left, part, right, optimize=True).reshape(len(part), -1)
             for part in (head.queries, head.corpus)]  # fmt: skip
    yield "head, gradient dot, CountSketch 48 × 48", short[0] @ short[1].T
    yield "empirical Fisher, damping 0.1", head.empirical(0.1)
    yield "empirical Fisher, damping 1", head.empirical(1.0)
    for damping in (0.001, 0.01, 0.1, 1.0, 10.0):
        yield f"K-FAC, all coordinates, damping {damping:g}", head.kfac(damping)
    for count in (64, 256, 512, 1024, 2048, 4096):
        if count < head.queries[0].size:
            yield f"K-FAC, {count:,} coordinates", head.kfac(coordinates=count)
    for rank in (2, 4, 8, 16, 32, 64, 128, 256):
        if rank < len(head.bases[0]):
            yield f"K-FAC, B of rank {rank}", head.kfac(rank=rank)
    yield "K-FAC, corrected eigenvalues (sampled labels)", head.kfac(corrected=head.sampled_moments())
    rows = (head.coordinates[1] ** 2).mean(0)
    yield "K-FAC, corrected eigenvalues (the examples' own gradients)", head.kfac(corrected=rows)
    yield from _hashed(head, left, right)
    yield "K-FAC cosine, all coordinates", _kfac_cosine(head)


def _hashed(head: Head, left: Array, right: Array) -> Iterator[tuple[str, Array]]:
    """The preconditioned query, and then CountSketches of both sides."""
    b, output_basis, a, input_basis = head.bases
    weights = 1 / (np.outer(b, a) + 0.1 * np.outer(b, a).mean())
    turned = head.coordinates[0].reshape(head.queries.shape) * weights
    back = np.matmul(np.matmul(output_basis, turned), input_basis.T)
    short = [np.einsum("vk,nvd,dl->nkl", left, part, right, optimize=True).reshape(len(part), -1)
             for part in (back, head.corpus)]  # fmt: skip
    yield "K-FAC of the query, then CountSketch 48 × 48", short[0] @ short[1].T


def _kfac_cosine(head: Head) -> Array:
    b, _, a, _ = head.bases
    values = np.outer(b, a).ravel()
    root = np.sqrt(values + 0.1 * values.mean())
    units = [part / root for part in head.coordinates]
    units = [part / np.linalg.norm(part, axis=1, keepdims=True).clip(1e-30) for part in units]
    return np.asarray(units[0] @ units[1].T)


def stored(task: HeadTask, folder: Path) -> Iterator[tuple[str, Array, int]]:
    """Label, scores (Q, N) and bytes of a row, by headwater's command line."""
    from headwater.engine.arrays.scan.stored_rows import StoredRows
    from headwater.engine.evaluation.matrices import read_array
    from headwater.store.feature_store import FeatureStore, method_group

    for label, (method, settings) in ROWS.items():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        store, scores = str(folder / "S"), str(folder / "scores.zarr")
        options = [part for pair in zip(*[iter(settings)] * 2, strict=True) for part in ("-o", *pair)]
        machine.run(
            [*machine.headwater(), "ingest", *task.ingest, "--store", store, "--method", method, *options], folder
        )
        machine.run(
            [*machine.headwater(), "attribute", store, *task.ask, "--method", method, "--all-scores", scores], folder
        )
        columns = StoredRows(FeatureStore.open(store), method_group(method)).all_columns()
        yield label, read_array(scores, "scores"), sum(reader.column.row_bytes for reader in columns)


def measured(name: str, data: Path, work: Path) -> list[dict[str, Any]]:
    """All figures of one task."""
    from headwater.engine.evaluation.agreement import evaluate_lds

    task, lines = head_tasks.made(name, data, work), list[dict[str, Any]]()

    def judge(label: str, scores: Array, size: int) -> None:
        agreement = evaluate_lds(scores, task.masks, task.outcomes, resamples=20)
        mean, ceiling = agreement.mean.value, agreement.ceiling
        lines.append({"task": name, "form": label, "lds": mean, "ceiling": ceiling, "bytes": size})
        print(f"{name:12}{label:62}{mean:.3f}", flush=True)

    for label, scores in forms(Head(task)):
        judge(label, scores, 0)
    for label, scores, size in stored(task, work / "stores" / name):
        judge(label, scores, size)
    return lines


def table(lines: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str:
    """Forms × tasks, as Markdown."""
    labels = dict.fromkeys(line["form"] for line in lines)
    figures = {(line["task"], line["form"]): line for line in lines}
    ceilings = {line["task"]: line["ceiling"] for line in lines}
    rows = [f"| LDS | {' | '.join(f'{name} (ceiling {ceilings[name]:.3f})' for name in names)} | bytes a row |",
            "|---" * (len(names) + 2) + "|"]  # fmt: skip
    for label in labels:
        cells = [f"{figures[name, label]['lds']:.3f}" if (name, label) in figures else "" for name in names]
        size = max(line["bytes"] for line in lines if line["form"] == label)
        rows.append(f"| {label} | {' | '.join(cells)} | {f'{size:,}' if size else ''} |")
    return "\n".join(rows)


def main(arguments: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Make the tasks, judge every form, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=machine.OUT)
    parser.add_argument("--data")
    parser.add_argument("--tasks", nargs="+", default=["mnist", "names", "characters"])
    given = parser.parse_args(arguments)
    data, start = machine.data_folder(given.data, "mnist", "names"), time.monotonic()
    lines = [line for name in given.tasks for line in measured(name, data, given.out.resolve())]
    figures = {"machine": machine.describe(), "seconds": time.monotonic() - start, "lines": lines}
    machine.save(given.out, "head_curvature", figures, table(lines, given.tasks))
    return lines


if __name__ == "__main__":
    main()
