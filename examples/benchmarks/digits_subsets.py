"""Utility of subsets against real retraining: scikit-learn's digits, a small network, six ways to draw subsets.

A pool of 700 images and 300 noisy copies of some; a network of 64-32-10, part-way trained on other images; 96 subsets of 100 rows
a regime, each trained on from there, by three seeds. Tasks: each digit by itself, and all of them. The first 48 subsets may
calibrate λ, the others are held out, and every figure below is of these. All predictions ride the same path of headwater's:
`ingest` of arrays (grasp, rise, repsim) and of vectors made here (whole gradients, label histograms), one pass each over masks.

    python examples/benchmarks/digits_subsets.py --out /scratch

Outcomes are kept regime by regime; a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import machine
import numpy as np
import torch

POOL, COPIES, SIZE, SUBSETS, SEEDS, FIRST = 700, 300, 100, 96, 3, 48
STEPS, RATE, NOISE = 60, 0.3, 0.1
REGIMES = ("random", "clustered", "duplicated", "clustered, duplicated", "40 distinct", "balanced, 40 distinct")
TASKS = ("all", *map(str, range(10)))
FEATURES = ("grasp", "repsim", "rise", "vectors@whole", "vectors@labels")


class Net(torch.nn.Module):
    """64-32-10."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = torch.nn.Linear(64, 32), torch.nn.Linear(32, 10)

    def hidden(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.body(x))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.hidden(x))
        return out


def fitted(net: Net, x: torch.Tensor, y: torch.Tensor, seed: int, steps: int = STEPS) -> Net:
    """Trained on by plain gradient descent in batches of 50; lr·steps is 18."""
    own = Net()
    own.load_state_dict(net.state_dict())
    optimizer, chance = torch.optim.SGD(own.parameters(), lr=RATE), np.random.default_rng(seed)
    for _ in range(steps):
        rows = torch.from_numpy(chance.choice(len(x), min(50, len(x)), replace=False))
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(own(x[rows]), y[rows]).backward()
        optimizer.step()
    return own


def data(seed: int) -> dict[str, Any]:
    """Pool with copies, targets, and images for the network that is trained on."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    chance = np.random.default_rng(seed)
    order = chance.permutation(len(labels))
    x, y = torch.from_numpy(images[order] / 16).float(), torch.from_numpy(labels[order]).long()
    copied = torch.from_numpy(chance.integers(0, POOL // 10, COPIES))  # a tenth of the pool, again and again
    noise = NOISE * torch.from_numpy(chance.standard_normal((COPIES, 64))).float()
    origin = torch.cat([torch.arange(POOL), copied])
    torch.manual_seed(seed)
    start = fitted(Net(), x[POOL : POOL + 60], y[POOL : POOL + 60], seed, 20)
    rest = slice(POOL + 60, None)
    return {"x": torch.cat([x[:POOL], x[copied] + noise]), "y": torch.cat([y[:POOL], y[copied]]), "origin": origin.numpy(),
            "net": start, "targets": (x[rest], y[rest])}  # fmt: skip


def balanced(world: dict[str, Any], seed: int) -> np.ndarray:
    """(S, N) counts: ten rows of every class, which are four rows, each once or more."""
    chance, labels = np.random.default_rng(seed), world["y"].numpy()[:POOL]
    counts = np.zeros((SUBSETS, POOL + COPIES), int)
    for subset in range(SUBSETS):
        for digit in range(10):
            rows = chance.choice(np.flatnonzero(labels == digit), 4, replace=False)
            counts[subset, rows] = 1 + chance.multinomial(6, chance.dirichlet(np.ones(4)))
    return counts


def drawn(regime: str, world: dict[str, Any], seed: int) -> np.ndarray:
    """(S, N) counts of `SIZE` rows in all; where rows repeat, noisy copies stand for repetition."""
    if "balanced" in regime:
        return balanced(world, seed)
    chance, labels, origin = np.random.default_rng(seed), world["y"].numpy(), world["origin"]
    masks = np.zeros((SUBSETS, POOL + COPIES), bool)
    crowd = np.flatnonzero(np.bincount(origin, minlength=POOL) > 1)
    for subset in range(SUBSETS):
        classes = chance.permutation(10)[: chance.integers(2, 6)] if "clustered" in regime else np.arange(10)
        inside = np.isin(labels, classes)
        if "duplicated" in regime:  # few originals with all their copies, and single rows for the rest
            share = chance.random()
            own = [row for row in chance.permutation(crowd) if inside[row]]
            for row in own:
                if masks[subset].sum() >= share * SIZE:
                    break
                masks[subset, origin == row] = True
        elif regime == "40 distinct":
            for row in chance.permutation(crowd)[:40]:
                masks[subset, origin == row] = True
        rows = np.flatnonzero(masks[subset])
        if len(rows) > SIZE:
            masks[subset, chance.permutation(rows)[SIZE:]] = False
        single = chance.permutation(np.flatnonzero(inside & ~masks[subset] & (np.arange(len(labels)) < POOL)))
        masks[subset, single[: SIZE - masks[subset].sum()]] = True
    return masks.astype(int)


def outcomes(world: dict[str, Any], masks: np.ndarray) -> np.ndarray:
    """(seeds, S, T): each task's loss after training on each subset."""
    found = np.zeros((SEEDS, len(masks), len(TASKS)))
    for seed in range(SEEDS):
        for at, mask in enumerate(masks):
            rows = torch.from_numpy(np.repeat(np.arange(len(mask)), mask))
            found[seed, at] = losses(fitted(world["net"], world["x"][rows], world["y"][rows], seed), world)
    return found


def losses(net: Net, world: dict[str, Any]) -> np.ndarray:
    x, y = world["targets"]
    with torch.inference_mode():
        each = torch.nn.functional.cross_entropy(net(x), y, reduction="none").numpy()
    return np.array([each.mean(), *(each[(y == digit).numpy()].mean() for digit in range(10))])


def ingested(world: dict[str, Any], work: Path) -> dict[str, dict[str, Path]]:
    """Stores of all features, and each task's query files, by headwater's command line."""
    net, x, y, (tx, ty) = world["net"], world["x"], world["y"], world["targets"]
    head = {"weight": net.head.weight.detach().numpy(), "bias": net.head.bias.detach().numpy()}
    found: dict[str, dict[str, Path]] = {}
    for kind in ("model", "whole", "labels"):
        folder = work / kind
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        found[kind] = {"store": folder / "S"}
        for name, images, labels in (("pool", x, y), *((task, *_task(task, tx, ty)) for task in TASKS)):
            arrays = {
                "model": lambda a, b: {"hidden": net.hidden(a).detach().numpy(), "labels": b.numpy(), **head},
                "whole": lambda a, b: {"vectors": -whole_gradients(net, a, b)},
                "labels": lambda a, b: {"vectors": np.eye(10, dtype=np.float32)[b.numpy()]},
            }[kind](images, labels)
            found[kind][name] = folder / f"{name}.npz"
            np.savez(folder / f"{name}.npz", **arrays)
        methods = ["grasp", "repsim", "rise"] if kind == "model" else ["vectors"]
        words = ["ingest", str(folder / "pool.npz"), "--store", str(folder / "S")]
        machine.run([*machine.headwater(), *words, *(part for name in methods for part in ("--method", name))], work)
    return found


def _task(task: str, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    own = torch.ones(len(y), dtype=torch.bool) if task == "all" else y == int(task)
    return x[own], y[own]


def whole_gradients(net: Net, x: torch.Tensor, y: torch.Tensor) -> np.ndarray:
    """(n, P): every parameter's gradient of each example's loss."""
    weights = {name: one.detach() for name, one in net.named_parameters()}

    def loss(own: dict[str, torch.Tensor], a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(torch.func.functional_call(net, own, (a[None],)), b[None])

    each = torch.func.vmap(torch.func.grad(loss), (None, 0, 0))(weights, x, y)
    return torch.cat([one.flatten(1) for one in each.values()], 1).numpy()


def predictors(
    stores: dict[str, dict[str, Path]], world: dict[str, Any]
) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Name → function of masks (S, N) that gives utilities (S, T)."""
    from headwater.engine.intake.corpus import Template
    from headwater.engine.intake.model import ModelChoice
    from headwater.engine.utility.features import LinearFeatures
    from headwater.engine.utility.surrogate import utilities
    from headwater.engine.utility.targets import read_targets
    from headwater.store.feature_store import FeatureStore
    from scipy.sparse import csr_array

    found: dict[str, Callable[[np.ndarray], np.ndarray]] = {}
    for feature in FEATURES:
        method, _, kind = feature.partition("@")
        files = stores[kind or "model"]
        features = LinearFeatures(FeatureStore.open(str(files["store"])), method)
        read = [
            read_targets(features, str(files[task]), "", ModelChoice("", "cpu"), Template(), lambda rows: None)
            for task in TASKS
        ]
        vectors = np.stack([one.vectors[0] for one in read])
        known: dict[int, np.ndarray] = {}

        def means(masks: np.ndarray, features: Any = features, known: dict[int, np.ndarray] = known) -> np.ndarray:
            key = hash(masks.tobytes())
            if key not in known:
                known[key] = features.means(csr_array(masks.astype(float)), lambda rows: None)
            return known[key]

        for name, penalty in ((f"{feature}, additive", 0.0), (f"{feature}, λ = 1", 1.0)):
            found[name] = lambda masks, means=means, vectors=vectors, penalty=penalty: utilities(
                means(masks), vectors, penalty
            )
        if feature == "grasp":
            found["grasp's means"] = means
            found["grasp's tasks"] = lambda masks, vectors=vectors: vectors
    origin = world["origin"]
    distinct = lambda masks: np.array([[len(set(origin[mask > 0]))] * len(TASKS) for mask in masks], float)  # noqa: E731
    found["number of distinct rows"] = distinct
    found["random"] = lambda masks: np.random.default_rng(0).random((len(masks), len(TASKS)))
    return found


def run(work: Path, seed: int) -> dict[str, Any]:
    """Every regime: each predictor's correlation with the held-out outcomes, task by task, with intervals and the ceiling."""
    from headwater.engine.evaluation.agreement import agreement
    from headwater.engine.evaluation.metrics import noise_ceiling, spearman
    from headwater.engine.utility.calibrate import calibrated
    from headwater.engine.utility.surrogate import utilities

    world = data(seed)
    before, found = losses(world["net"], world), {}
    predicted = predictors(ingested(world, work / "stores"), world)
    means, tasks = predicted.pop("grasp's means"), predicted.pop("grasp's tasks")
    for at, regime in enumerate(REGIMES):
        masks, file = drawn(regime, world, seed * 100 + at), work / f"outcomes-{seed}-{at}.npy"
        if not file.exists():
            np.save(file, outcomes(world, masks))
        by_seed = np.load(file)
        gains = before - by_seed.mean(0)
        held = slice(FIRST, None)
        chosen = calibrated(means(masks)[:FIRST], tasks(masks), gains[:FIRST], TASKS)
        every = {name: function(masks) for name, function in predicted.items()}
        every["grasp, calibrated"] = utilities(means(masks), tasks(masks), chosen.penalty)
        lines = {}
        for name, values in every.items():
            each = np.nan_to_num(spearman(values[held], gains[held]))
            broad = agreement("subsets", values[held, :1], by_seed[:, held, :1], "loss", 1000).mean
            lines[name] = {"broad": each[0], "low": broad.low, "high": broad.high, "all": float(each.mean())}
        found[regime] = {"lines": lines, "lambda": chosen.penalty, "ceiling": noise_ceiling(by_seed[:, held])[1],
                         "rose": float((gains > 0).mean())}  # fmt: skip
        print(f"{regime}: λ {chosen.penalty:g}, grasp {lines['grasp, λ = 1']['broad']:.2f}, additive "
              f"{lines['grasp, additive']['broad']:.2f}", flush=True)  # fmt: skip
    return found


def show(found: dict[str, Any]) -> str:
    """A row a predictor; of each regime the broad task with its interval, and the mean over all tasks."""
    names = list(found[REGIMES[0]]["lines"])
    rows = []
    for name in names:
        cells = []
        for regime in REGIMES:
            line = found[regime]["lines"][name]
            cells.append(f"{line['broad']:.2f} ({line['low']:.2f} to {line['high']:.2f}); {line['all']:.2f}")
        rows.append([name, *cells])
    rows.append(["noise allows", *(f"{found[regime]['ceiling']:.2f}" for regime in REGIMES)])
    rows.append(["λ calibrated", *(f"{found[regime]['lambda']:g}" for regime in REGIMES)])
    return machine.markdown(["broad task (95 %); mean of all tasks", *REGIMES], rows)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Train, predict, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=machine.OUT)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    work = given.out.resolve() / "digits"
    work.mkdir(parents=True, exist_ok=True)
    found = run(work, given.seed)
    machine.save(given.out, "digits_subsets", {"machine": machine.describe(), "found": found}, show(found))
    return found


if __name__ == "__main__":
    main()
