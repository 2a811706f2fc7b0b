"""LDS of each step from whole gradients to short rows: restriction to the head, basis, truncation, rank, damping, sketch.

The forms are computed from whole gradients of the head in float64, by NumPy alone; the last ones are rows that headwater stores
and scores. The tasks are those of `head_tasks.py`. What was made stays:

    python examples/benchmarks/head_curvature.py --out /scratch
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, TypeAlias

import head_tasks
import machine
import numpy as np
from head_tasks import Array, HeadTask, Positions

Form: TypeAlias = tuple[Callable[[], Array], Callable[[], int]]
"""Functions that give scores (Q, N), and the bytes of a row."""
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

    def kfac_cosine(self, count: int) -> Array:
        """(Q, N) cosine of whitened coordinates."""
        places, values = self.leading(count)
        queries, corpus = (unit(part[:, places] / np.sqrt(values + 0.1 * values.mean())) for part in self.coordinates)
        return products(queries, corpus)

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


def forms(head: Head) -> dict[str, Form]:
    """Label → the scores (Q, N) of a form, when they are needed."""
    lines: dict[str, Callable[[], Array]] = {
        "head, gradient dot": lambda: products(head.queries, head.corpus),
        "head, gradient cosine": lambda: products(unit(head.queries), unit(head.corpus)),
        "head, gradient dot, CountSketch 48 × 48": lambda: head.hashed(head.queries),
        "empirical Fisher, damping 0.1": lambda: head.empirical(0.1),
        "empirical Fisher, damping 1": lambda: head.empirical(1.0),
    }
    for damping in (0.001, 0.01, 0.1, 1.0, 10.0):
        lines[f"K-FAC, all coordinates, damping {damping:g}"] = partial(head.kfac, damping)
    for count in (64, 256, 512, 1024, 2048, 4096):
        lines[f"K-FAC, {count:,} coordinates, damping 0.1"] = partial(head.kfac, 0.1, count)
    for damping in (0.001, 0.01, 1.0, 10.0):
        lines[f"K-FAC, 1,024 coordinates, damping {damping:g}"] = partial(head.kfac, damping, 1024)
    for rank in (4, 16, 64, 256):
        if rank < len(head.bases[0]):
            lines[f"K-FAC, 1,024 coordinates, B of rank {rank}"] = partial(head.kfac, 0.1, 1024, rank)
    moments = {"sampled labels": head.sampled_moments, "the examples' own gradients": head.own_moments}
    for kind, of in moments.items():
        lines[f"K-FAC, 1,024 coordinates, eigenvalues corrected by {kind}"] = partial(head.corrected, of)
    lines["K-FAC of the query, then CountSketch 48 × 48"] = lambda: head.hashed(head.preconditioned())
    lines["K-FAC cosine, 1,024 coordinates"] = lambda: head.kfac_cosine(1024)
    return {label: (scores, lambda: 0) for label, scores in lines.items()}


def products(queries: Array, corpus: Array) -> Array:
    """(Q, N) inner products."""
    return np.asarray(queries.reshape(len(queries), -1) @ corpus.reshape(len(corpus), -1).T)


def unit(rows: Array) -> Array:
    """Rows of unit norm, flattened."""
    flat = rows.reshape(len(rows), -1)
    return np.asarray(flat / np.linalg.norm(flat, axis=1, keepdims=True).clip(1e-30))


def stored(task: HeadTask, folder: Path) -> dict[str, Form]:
    """Label → scores (Q, N) and bytes of a row, by headwater's command line."""
    return {
        label: (partial(_scores, task, folder, *line), partial(_row_bytes, folder, line[0]))
        for label, line in ROWS.items()
    }


def _scores(task: HeadTask, folder: Path, method: str, settings: Sequence[str]) -> Array:
    from headwater.engine.evaluation.matrices import read_array

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    store, scores = str(folder / "S"), str(folder / "scores.zarr")
    options = [part for pair in zip(*[iter(settings)] * 2, strict=True) for part in ("-o", *pair)]
    machine.run([*machine.headwater(), "ingest", *task.ingest, "--store", store, "--method", method, *options], folder)
    machine.run(
        [*machine.headwater(), "attribute", store, *task.ask, "--method", method, "--all-scores", scores], folder
    )
    return read_array(scores, "scores")


def _row_bytes(folder: Path, method: str) -> int:
    from headwater.engine.arrays.scan.stored_rows import StoredRows
    from headwater.store.feature_store import FeatureStore, method_group

    columns = StoredRows(FeatureStore.open(str(folder / "S")), method_group(method)).all_columns()
    return sum(reader.column.row_bytes for reader in columns)


def measured(name: str, data: Path, work: Path) -> list[dict[str, Any]]:
    """All figures of one task; those that were measured before are read."""
    from headwater.engine.evaluation.agreement import evaluate_lds

    task, file = head_tasks.made(name, data, work), work / f"head_curvature-{name}.json"
    lines: dict[str, dict[str, Any]] = json.loads(file.read_text()) if file.exists() else {}
    for label, (scores, size) in chain(forms(Head(task)).items(), stored(task, work / "stores" / name).items()):
        if label not in lines:
            agreement = evaluate_lds(scores(), task.masks, task.outcomes, resamples=20)
            lines[label] = {"task": name, "form": label, "lds": agreement.mean.value, "ceiling": agreement.ceiling,
                            "bytes": size()}  # fmt: skip
            file.write_text(json.dumps(lines, indent=1))
        print(f"{name:12}{label:62}{lines[label]['lds']:.3f}", flush=True)
    return list(lines.values())


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
