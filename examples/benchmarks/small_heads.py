"""Small heads, exact and sketched, against retraining: LDS of the head methods on classifiers that are given as arrays.

    python examples/benchmarks/small_heads.py --out /scratch

Two heads, each a logistic regression that scikit-learn trains to its minimum:
reviews  SST-2 in two classes; TF-IDF reduced by a truncated SVD to 512 numbers, so V = 2 and D = 512
digits   MNIST as it is: V = 10 and D = 784
The truth: 64 random halves of the corpus, each trained from nothing, and the losses of held-out queries; three draws of corpus,
queries and halves. LDS: Spearman between the sum of a half's scores and its negative loss, mean over queries, then over draws.

A method stands in three columns. *Formula*: its scores by NumPy in float64 from whole gradients. *Rows*: its rows by default, by
`headwater ingest` of arrays. *Sketched*: its rows with the setting `exact` off, over three seeds of the sketch (`headkfac` has
none). Where V·D numbers fit into a row, rows must have the LDS of the formula, within 0.01.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import machine
import numpy as np

SKETCHED = ("rise", "headcos", "headgn", "grasp")
METHODS = (*SKETCHED, "headkfac")
DRAWS, HALVES, SKETCHES, NUMBERS = 3, 64, 3, 1024
DAMPING, TAU, MASS, LEAST, LAMBDA_RH, LAMBDA_GH = 0.1, 0.1, 0.92, 4, 1.0, 0.3  # the methods' defaults


@dataclass(frozen=True, slots=True)
class Task:
    """A corpus and queries of one draw, and the head that is trained on the whole corpus."""

    hidden: np.ndarray
    """(N, D) float32."""
    labels: np.ndarray
    """(N,)."""
    query_hidden: np.ndarray
    """(Q, D) float32."""
    query_labels: np.ndarray
    """(Q,)."""
    weight: np.ndarray
    """(V, D) float32."""
    bias: np.ndarray
    """(V,) float32."""


def features(name: str, data: Path, width: int) -> tuple[np.ndarray, np.ndarray]:
    """(n, D) float32 and labels (n,) of all records of a task."""
    if name == "digits":
        with np.load(data / "mnist/mnist.npz") as arrays:
            return (arrays["images"][:4000] / 255).astype(np.float32), arrays["labels"][:4000].astype(np.int64)
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    files = [data / f"backdoor_sst2_badnet/{part}_clean.json" for part in ("train", "test")]
    rows = [row for file in files for row in json.loads(file.read_text(encoding="utf-8"))]
    words = TfidfVectorizer(token_pattern=r"\S+").fit_transform([row["instruction"] for row in rows])
    hidden = TruncatedSVD(width, random_state=0).fit_transform(words).astype(np.float32)
    return hidden, np.array([row["output"] == "Positive" for row in rows]).astype(np.int64)


def trained(hidden: np.ndarray, labels: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Weight (V, D) and bias (V,) of a logistic regression; of two classes, half of scikit-learn's vector for each."""
    from sklearn.linear_model import LogisticRegression

    fit = LogisticRegression(C=10.0, tol=1e-6, max_iter=1000).fit(hidden.astype(np.float64), labels)
    if classes == 2:
        return np.concatenate([-fit.coef_, fit.coef_]) / 2, np.concatenate([-fit.intercept_, fit.intercept_]) / 2
    return fit.coef_, fit.intercept_


def drawn(name: str, data: Path, sizes: tuple[int, int, int], seed: int) -> Task:
    """`sizes`: examples, queries, and the width of the reviews' vectors."""
    hidden, labels = features(name, data, sizes[2])
    rows = np.random.default_rng(seed).permutation(len(labels))
    corpus, queries = rows[: sizes[0]], rows[sizes[0] : sizes[0] + sizes[1]]
    classes = int(labels.max()) + 1
    head = [array.astype(np.float32) for array in trained(hidden[corpus], labels[corpus], classes)]
    return Task(hidden[corpus], labels[corpus], hidden[queries], labels[queries], head[0], head[1])


def outcomes(task: Task, masks: np.ndarray) -> np.ndarray:
    """(S, Q): the queries' losses after training on each of the subsets (S, N)."""
    from threadpoolctl import threadpool_limits

    losses = []
    for mask in masks:
        with threadpool_limits(1):  # fits of milliseconds, which threads slow down
            weight, bias = trained(task.hidden[mask], task.labels[mask], len(task.weight))
        logits = task.query_hidden.astype(np.float64) @ weight.T + bias
        losses.append(np.logaddexp.reduce(logits, 1) - logits[np.arange(len(logits)), task.query_labels])
    return np.array(losses)


def _residuals(z: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(n, V) softmax − onehot, of logits (n, V); the label's is minus the sum of the others."""
    r = np.exp(z - np.logaddexp.reduce(z, 1)[:, None])
    own = np.arange(len(r)), labels
    r[own] = 0
    r[own] = -r.sum(1)
    return r


def _truncated(z: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(n, V): RISE's residuals at τ, the support cut at MASS, renormalised (`plugins/rise.py`, items 1 to 3)."""
    s = z / TAU
    p = np.exp(s - s.max(1, keepdims=True))
    p[p < 1e-36] = 0  # as float32 has it
    p /= p.sum(1, keepdims=True) + 1e-8
    order = np.argsort(-p, axis=1, kind="stable")
    ordered = np.take_along_axis(p, order, 1)
    ahead = np.cumsum(ordered, 1) - ordered
    support = np.zeros(p.shape, bool)
    np.put_along_axis(support, order, (ahead < MASS) | (np.arange(p.shape[1]) < LEAST), 1)
    support[np.arange(len(p)), labels] = True
    p = p * support
    total, own = p.sum(1, keepdims=True), (np.arange(len(p)), labels)
    p[own] = 0
    p[own] = -p.sum(1)
    return p / total


def _unit(x: np.ndarray, floor: float = 1e-8) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), floor)


def formulas(task: Task) -> dict[str, np.ndarray]:
    """Method → (Q, N): scores in float64 from whole head gradients; of examples of one position, so that ⟨r hᵀ, s qᵀ⟩ is
    ⟨r, s⟩⟨h, q⟩.
    """
    weight, bias = task.weight.astype(np.float64), task.bias.astype(np.float64)
    h, q = task.hidden.astype(np.float64), task.query_hidden.astype(np.float64)
    sides = (h @ weight.T + bias, task.labels), (q @ weight.T + bias, task.query_labels)
    r, s = (_residuals(*side) for side in sides)
    products, gram = (s @ r.T) * (q @ h.T), (r @ r.T) * (h @ h.T)
    lengths = np.sqrt(np.diag(gram))
    query_lengths = np.linalg.norm(s, axis=1) * np.linalg.norm(q, axis=1)
    damping = DAMPING * np.trace(gram) / (weight.size * len(h))  # of the mean of the second moment's diagonal
    inverse = np.linalg.solve(gram + len(h) * damping * np.eye(len(h)), gram)
    rh, other_rh = (_truncated(*side) for side in sides)
    left = [np.hstack([LAMBDA_RH * _unit(x), LAMBDA_GH * _unit(x @ weight)]) for x in (rh, other_rh)]
    return {
        "rise": (_unit(left[1], 1e-200) @ _unit(left[0], 1e-200).T) * (_unit(q) @ _unit(h).T),
        "headcos": products / lengths / query_lengths[:, None],
        "headgn": (products - products @ inverse) / damping,
        "grasp": products / lengths,
        "headkfac": _kfac(sides, (r, s), (h, q)),
    }


def _kfac(
    sides: Sequence[tuple[np.ndarray, np.ndarray]], residuals: Sequence[np.ndarray], hidden: Sequence[np.ndarray]
) -> np.ndarray:
    """(Q, N): influence by K-FAC's Fisher matrix of the corpus, in its `NUMBERS` leading eigen coordinates. The arguments are
    of the corpus and of the queries.
    """
    logits = sides[0][0]
    p = np.exp(logits - np.logaddexp.reduce(logits, 1)[:, None])
    (b, output_basis) = np.linalg.eigh(np.diag(p.mean(0)) - p.T @ p / len(p))
    (a, input_basis) = np.linalg.eigh(hidden[0].T @ hidden[0] / len(p))
    values = np.outer(b.clip(0), a.clip(0)).ravel()
    leading = np.argsort(-values, kind="stable")[:NUMBERS]
    weights = values[leading] + DAMPING * values[leading].mean()
    rows = [((r @ output_basis)[:, :, None] * (h @ input_basis)[:, None, :]).reshape(len(r), -1)[:, leading]
            for r, h in zip(residuals, hidden, strict=True)]  # fmt: skip
    scores: np.ndarray = (rows[1] / weights) @ rows[0].T
    return scores


def stored(task: Task, folder: Path) -> dict[str, np.ndarray]:
    """Method → (Q, N): scores of headwater's rows; NAME by default, NAME@SEED of a sketch."""
    from headwater.engine.attribution.open_session import open_session
    from headwater.engine.attribution.query_options import QueryOptions, SearchOptions
    from headwater.engine.ingest.ingest_job import IngestJob, prepare
    from headwater.engine.models.language_model import ModelChoice

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    head = {"weight": task.weight, "bias": task.bias}
    np.savez(folder / "corpus.npz", hidden=task.hidden, labels=task.labels, **head)
    np.savez(folder / "queries.npz", hidden=task.query_hidden, labels=task.query_labels, **head)
    settings: dict[str, dict[str, Any]] = {name: {} for name in METHODS}
    settings |= {f"{name}@{seed}": {"exact": False, "seed": seed} for name in SKETCHED for seed in range(SKETCHES)}
    corpus, queries, store = (str(folder / name) for name in ("corpus.npz", "queries.npz", "S"))
    prepare(IngestJob([corpus], store, ModelChoice(""), settings)).ingest()
    options = QueryOptions(search=SearchOptions(all_scores=True))
    all_scores = {}
    for name in settings:
        blocks = open_session(store, name, queries, options).scores()
        all_scores[name] = np.concatenate([scores.astype(np.float64) for _, scores in blocks]).T
    return all_scores


def measured(name: str, data: Path, sizes: tuple[int, int, int], folder: Path, seed: int) -> dict[str, list[float]]:
    """Method → LDS of its formula, its rows, and each of its sketches, for one draw."""
    from headwater.engine.evaluation.metrics import lds, subset_sums

    task = drawn(name, data, sizes, seed)
    chance = np.random.default_rng([seed, 1])
    masks = np.zeros((HALVES, len(task.labels)), bool)
    for mask in masks:
        mask[chance.choice(len(mask), len(mask) // 2, replace=False)] = True
    losses = outcomes(task, masks)

    def judged(scores: np.ndarray) -> float:
        return float(np.nanmean(lds(subset_sums(scores, masks), -losses)))

    exact, rows = formulas(task), stored(task, folder)
    return {
        method: [judged(exact[method]), judged(rows[method])]
        + [judged(rows[f"{method}@{number}"]) for number in range(SKETCHES) if method in SKETCHED]
        for method in METHODS
    }


def table(figures_by_task: dict[str, dict[str, list[list[float]]]]) -> str:
    """A line for each task and method: means over draws, and over the sketch's seeds."""
    rows = []
    for task, methods in figures_by_task.items():
        for method, draws in methods.items():
            figures = np.array(draws)
            formula, default = figures[:, :2].mean(0)
            apart = np.abs(figures[:, 1] - figures[:, 0]).max()
            sketched = f"{figures[:, 2:].mean():.3f}" if method in SKETCHED else ""
            rows.append([task, method, f"{formula:.3f}", f"{default:.3f}", f"{apart:.4f}", sketched])
    return machine.markdown(["task", "method", "formula", "rows", "most apart in a draw", "sketched"], rows)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Train, ingest, judge, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of real data")
    parser.add_argument("--out", type=Path, default=machine.OUT)
    parser.add_argument("--tasks", nargs="+", default=["reviews", "digits"], choices=["reviews", "digits"])
    parser.add_argument("--sizes", nargs=3, type=int, default=[500, 200, 512], metavar=("ROWS", "QUERIES", "WIDTH"))
    given = parser.parse_args(arguments)
    data = machine.data_folder(given.data, "backdoor_sst2_badnet", "mnist/mnist.npz")
    figures_by_task: dict[str, Any] = {}
    for task in given.tasks:
        draws = [
            measured(task, data, tuple(given.sizes), given.out.resolve() / "small_heads", seed) for seed in range(DRAWS)
        ]
        figures_by_task[task] = {method: [draw[method] for draw in draws] for method in METHODS}
    machine.save(
        given.out, "small_heads", {"machine": machine.describe(), "figures": figures_by_task}, table(figures_by_task)
    )
    return figures_by_task


if __name__ == "__main__":
    main()
