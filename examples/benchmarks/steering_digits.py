"""STRIDE against retraining, on scikit-learn's digits as arrays: LDS over K, bases, solvers and controls.

    python examples/benchmarks/steering_digits.py --out /scratch

1,000 rows of a small network (64 → 64 → 10); 100 halves of them, five trainings of each from nothing, are the truth, kept in
the output folder. Bases are trained part-way, until the queries' loss is a sixteenth of what guessing costs; their hidden states,
labels and heads are arrays that `headwater ingest`, `fit` and `attribute --all-scores` read. Each figure is of three bases, each
with a design of its own; several bases together have their weights averaged. LDS: Spearman between the sum of a half's weights
and its negative mean loss over five trainings, mean over queries and bases, with a bootstrap interval over both. Other solvers
get the same measurements; *permuted*: each query's in a wrong order.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import machine
import numpy as np
import torch
import zarr
from closed_forms import closed_forms
from headwater.engine.fitting.fit_record import read_fit
from headwater.engine.fitting.hidden_states import PositionStates
from headwater.engine.interface.model_view import ModelShape
from headwater.engine.models.batch_outputs import LinearHead
from headwater.engine.recovery.design import PartitionDesign
from headwater.engine.recovery.membership import TableMembership, multiplied
from headwater.engine.recovery.recover import Recovery, recovered
from headwater.engine.steering.operators import Operators, measure
from headwater.store.feature_store import FeatureStore
from networks import Networks
from scipy.stats import spearmanr

ROWS, QUERIES, WIDTH, HALVES, SEEDS, STEPS, PART = 1000, 100, 64, 100, 5, 150, 40
SIZES, BASES, MANY, DRAWS = (10, 33, 100, 300, 1000), 5, 300, 3


def data() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rows and queries, images and labels."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    x, y = torch.from_numpy(images[order] / 16).float(), torch.from_numpy(labels[order]).long()
    return x[:ROWS], y[:ROWS], x[ROWS : ROWS + QUERIES], y[ROWS : ROWS + QUERIES]


def truth(work: Path) -> tuple[np.ndarray, np.ndarray]:
    """Masks (HALVES, ROWS) and query losses (SEEDS, HALVES, QUERIES)."""
    x, y, asked, right = data()
    chance, masks = np.random.default_rng(1), np.zeros((HALVES, ROWS), bool)
    for mask in masks:
        mask[chance.choice(ROWS, ROWS // 2, replace=False)] = True
    found = []
    for seed in range(SEEDS):
        file = work / f"losses-{seed}.npy"
        if not file.exists():
            parts = []
            for start in range(0, HALVES, 20):
                some = masks[start : start + 20]
                nets = Networks(1000 * seed + 7 * start + np.arange(len(some)), WIDTH).train(
                    x, y, some.astype(float), STEPS
                )
                with torch.no_grad():
                    parts.append(nets.losses(asked, right).numpy())
            hidden = file.with_suffix(".part.npy")
            np.save(hidden, np.concatenate(parts))
            hidden.replace(file)
        found.append(np.load(file))
    return masks, np.stack(found)


class Base:
    """One network, trained part-way, and what it makes of rows and queries."""

    def __init__(self, seed: int, steps: int) -> None:
        x, y, asked, right = data()
        net = Networks([seed], WIDTH).train(x, y, np.ones((1, ROWS)), steps)
        with torch.no_grad():
            self.loss = float(net.losses(asked, right).mean())
            self.rows, self.queries = net.hidden(x)[0].contiguous(), net.hidden(asked)[0].contiguous()
            self.images = x, asked
            weight, bias = net.weights[2][0].T.contiguous(), net.weights[3][0, 0].clone()
        self.head, self.labels, self.right = LinearHead(ModelShape(WIDTH, 10, 1, 1), weight, bias), y, right

    def gradients(self, hidden: torch.Tensor, labels: torch.Tensor) -> np.ndarray:
        """(n, 10 · (WIDTH + 1)) float64: of the head, bias and all."""
        residual = torch.softmax(self.head.logits(hidden), 1)
        residual[torch.arange(len(labels)), labels] -= 1
        wide = torch.cat([hidden, torch.ones(len(hidden), 1)], 1)
        return (residual[:, :, None] * wide[:, None, :]).flatten(1).double().numpy()

    def whole(self, which: int) -> np.ndarray:
        """(n, weights) float64: gradients of both layers, of rows (0) or queries (1)."""
        hidden, labels = (self.rows, self.labels) if which == 0 else (self.queries, self.right)
        residual = torch.softmax(self.head.logits(hidden), 1)
        residual[torch.arange(len(labels)), labels] -= 1
        error = (residual @ self.head.weight) * (hidden > 0)
        first = error[:, :, None] * torch.cat([self.images[which], torch.ones(len(hidden), 1)], 1)[:, None, :]
        return np.concatenate([first.flatten(1).double().numpy(), self.gradients(hidden, labels)], 1)

    def left(self, which: int) -> np.ndarray:
        """(n,) 1 − p of the label, float64."""
        hidden, labels = (self.rows, self.labels) if which == 0 else (self.queries, self.right)
        z = self.head.logits(hidden).double()
        return (-torch.expm1(torch.log_softmax(z, 1)[torch.arange(len(labels)), labels])).clamp(min=1e-9).numpy()

    def save(self, work: Path, seed: int) -> tuple[str, str]:
        """Rows and queries as files of arrays."""
        head = (
            {"weight": self.head.weight.numpy(), "bias": self.head.bias.numpy()} if self.head.bias is not None else {}
        )
        files = str(work / f"rows-{seed}.npz"), str(work / f"queries-{seed}.npz")
        np.savez(files[0], hidden=self.rows.numpy(), labels=self.labels.numpy(), **head)
        np.savez(files[1], hidden=self.queries.numpy(), labels=self.right.numpy(), **head)
        return files

    def measured(self, store: Path) -> np.ndarray:
        """y (Q, K) of what was fitted."""
        arrays = read_fit(FeatureStore.open(store), "stride").operators()
        operators = Operators(*(torch.from_numpy(arrays[name]) for name in ("basis", "alpha")))
        places = PositionStates(self.queries, self.right, self.queries)
        return measure(self.head, operators, places, torch.arange(QUERIES), QUERIES).double().numpy()


def asked(
    work: Path, files: Sequence[tuple[str, str]], settings: dict[str, Any]
) -> tuple[Path, np.ndarray, dict[str, Any]]:
    """By the command line: the store, weights (Q, N), and what speaks for them, with the fit's CPU seconds."""
    store, scores = work / "store", work / "scores.zarr"
    for folder in (store, scores):
        shutil.rmtree(folder, ignore_errors=True)
    several = len(files) > 1
    bases = ["--bases", ",".join(rows for rows, _ in files)] if several else []
    options = [part for name, value in settings.items() for part in ("--set", f"stride.{name}", str(value))]
    command = machine.headwater()
    machine.run([*command, "ingest", files[0][0], "--store", str(store), "--method", "repsim"], work)
    taken = machine.run([*command, "fit", str(store), "--method", "stride", *bases, *options], work).cpu_seconds
    queries = ",".join(asked for _, asked in files)
    together = ["--members", "all"] if several else []
    words = [
        "attribute",
        str(store),
        "--method",
        "stride",
        "--queries",
        queries,
        *together,
        "--all-scores",
        str(scores),
    ]
    machine.run([*command, *words], work)
    group = zarr.open_group(str(scores), mode="r")
    diagnostics: Any = group.attrs["diagnostics"]
    return store, np.array(group["scores"]).T, {**diagnostics, "seconds": taken}


def lds(weights: np.ndarray, masks: np.ndarray, losses: np.ndarray) -> np.ndarray:
    """(Q,) of each query."""
    told = weights @ masks.T.astype(float)
    return np.array([spearmanr(a, -b).statistic if np.ptp(a) > 0 else 0.0 for a, b in zip(told, losses.T, strict=True)])


def summed_up(each: Sequence[np.ndarray]) -> tuple[float, float, float]:
    """Of bases' queries the mean, and a 95 % bootstrap interval over bases and queries."""
    values, chance = np.stack(each), np.random.default_rng(0)
    bases, queries = values.shape
    drawn = chance.integers(0, bases, (1000, bases, 1)), chance.integers(0, queries, (1000, 1, queries))
    means = values[drawn].mean((1, 2))
    return float(values.mean()), *(float(one) for one in np.percentile(means, (2.5, 97.5)))


def rise(work: Path, files: tuple[str, str], tau: float) -> np.ndarray:
    """RISE's scores (Q, N), by the command line."""
    store, scores = work / "store", work / "scores.zarr"
    for folder in (store, scores):
        shutil.rmtree(folder, ignore_errors=True)
    options = ["--set", "rise.tau", str(tau), "--set", "rise.floor", "1.0"] if tau == 1 else []
    ingest = ["ingest", files[0], "--store", str(store), "--method", "rise", *options]
    ask = ["attribute", str(store), "--method", "rise", "--queries", files[1], "--all-scores", str(scores)]
    for words in (ingest, ask):
        machine.run([*machine.headwater(), *words], work)
    return np.array(zarr.open_group(str(scores), mode="r")["scores"]).T


def scored(
    work: Path, base: Base, seed: int, size: int, truth: tuple[np.ndarray, np.ndarray]
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """One base at one K: (Q,) of every solver; and what speaks for it."""
    masks, mean = truth
    degree = 10 if size >= 100 else 3
    store, weights, diagnostics = asked(
        work, [base.save(work, 77 + seed)], {"subsets": size, "degree": degree, "seed": seed}
    )
    held, y = TableMembership.of_design(PartitionDesign(ROWS, size, degree, seed)), base.measured(store)
    scores = {"stride": lds(weights, masks, mean)}
    scores["back-projection"] = lds(multiplied(held, (y - y.mean(1, keepdims=True)).T), masks, mean)
    for solver in ("lasso", "ridge", "iht"):
        scores[solver] = lds(recovered(held, y, Recovery(solver=solver)).dense(held), masks, mean)
    wrong = np.random.default_rng(0).permuted(y, axis=1)
    scores["lasso, permuted"] = lds(recovered(held, wrong, Recovery(solver="lasso")).dense(held), masks, mean)
    signs = {
        "agree": diagnostics["reliability"],
        "explained": diagnostics["explained"],
        "seconds": diagnostics["seconds"],
    }
    return scores, {name: float(np.mean(value)) for name, value in signs.items()}


def run(work: Path, sizes: Sequence[int], bases: int, steps: int) -> dict[str, Any]:
    """All of it."""
    masks, losses = truth(work)
    mean = losses.mean(0)
    half = [spearmanr(losses[::2].mean(0)[:, q], losses[1::2].mean(0)[:, q]).statistic for q in range(QUERIES)]
    drawn = [Base(77 + seed, steps) for seed in range(max(bases, DRAWS))]
    found: dict[str, Any] = {"ceiling": float(np.nanmean(half)), "base": drawn[0].loss, "closed": {}, "sizes": []}
    forms = [closed_forms(base) for base in drawn[:DRAWS]]
    for seed, base in enumerate(drawn[:DRAWS]):
        files = base.save(work, 77 + seed)
        forms[seed] |= {"RISE": rise(work, files, 0.1), "RISE, τ = 1": rise(work, files, 1.0)}
    for name in forms[0]:
        found["closed"][name] = summed_up([lds(one[name], masks, mean) for one in forms])
    for size in sizes:
        told = [scored(work, base, seed, size, (masks, mean)) for seed, base in enumerate(drawn[:DRAWS])]
        scores = {name: summed_up([scores[name] for scores, _ in told]) for name in told[0][0]}
        signs = {name: float(np.mean([signs[name] for _, signs in told])) for name in told[0][1]}
        found["sizes"].append({"K": size, "scores": scores, **signs})
        print(json.dumps(found["sizes"][-1]), flush=True)
    every, closed = drawn[:bases], np.zeros((QUERIES, ROWS))
    for each in every:
        near = closed_forms(each)["head Gauss–Newton"]
        closed += near / near.std()
    files = [each.save(work, 77 + seed) for seed, each in enumerate(every)]
    _, weights, _ = asked(work, files, {"subsets": MANY})
    found["bases"] = {"count": bases, "K": MANY, "stride": summed_up([lds(weights, masks, mean)]),
                      "head Gauss–Newton": summed_up([lds(closed, masks, mean)])}  # fmt: skip
    return found


def show(found: dict[str, Any]) -> str:
    """Tables."""
    names = list(found["sizes"][0]["scores"])
    rows = [[f"{one['K']:,}", *(_told(one["scores"][name]) for name in names), f"{one['explained']:.2f}",
             f"{one['agree']:.2f}", f"{one['seconds']:.0f}"] for one in found["sizes"]]  # fmt: skip
    many = found["bases"]
    closed = [[name, _told(told)] for name, told in found["closed"].items()]
    closed += [[f"{many['count']} bases, K = {many['K']}, stride", _told(many["stride"])],
               [f"{many['count']} bases, head Gauss–Newton", _told(many["head Gauss–Newton"])]]  # fmt: skip
    header = ["K", *names, "explained held out", "two fittings agree", "fit, CPU s"]
    ceiling = f"Noise allows about {found['ceiling']:.2f}; the base's query loss is {found['base']:.2f}."
    return "\n\n".join([machine.markdown(header, rows), machine.markdown(["beside it", "LDS"], closed), ceiling])


def _told(figure: Sequence[float]) -> str:
    return f"{figure[0]:.3f} ({figure[1]:.2f} to {figure[2]:.2f})"


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=machine.OUT)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--bases", type=int, default=BASES)
    parser.add_argument("--part", type=int, default=PART, help="steps that bases are trained for")
    given = parser.parse_args(arguments)
    work = given.out.resolve() / "steering"
    work.mkdir(parents=True, exist_ok=True)
    found = {"machine": machine.describe(), **run(work, given.sizes, given.bases, given.part)}
    machine.save(given.out, "steering_digits", found, show(found))
    return found


if __name__ == "__main__":
    main()
