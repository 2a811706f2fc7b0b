"""Utility of subsets against real retraining: scikit-learn's digits, a small network, six ways to draw subsets.

A pool of 700 images and 300 noisy copies of some; a network of 64-32-10, part-way trained on other images; 96 subsets of 100 rows
a regime, each trained on from there, by three seeds. Tasks: each digit by itself, and all of them. The first 48 subsets may
calibrate λ, the others are held out, and every figure is of these. The images that say what a task is are others than those
whose losses are taken. All predictions ride the same path of headwater's: `ingest` of arrays (grasp, rise, repsim) and of vectors
made here (the head's exact gradients, whole gradients, label histograms), one pass each over masks.

    python examples/benchmarks/digits_subsets.py --out /scratch

Outcomes are kept regime by regime; a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import machine
import numpy as np
import subset_figures
import torch

POOL, COPIES, SIZE, SUBSETS, SEEDS = 700, 300, 100, 96, 3
STEPS, RATE, NOISE = 60, 0.3, 0.1
REGIMES = ("random", "clustered", "duplicated", "clustered, duplicated", "40 distinct", "balanced, 40 distinct")
TASKS = ("all", *map(str, range(10)))
FEATURES = ("grasp", "repsim", "rise", "vectors@head", "vectors@whole", "vectors@labels")


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
    """Pool with copies, images that say what tasks are, images whose losses are taken, and the network that is trained on."""
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
    half = (POOL + 60 + len(y)) // 2
    targets, judges = ((x[rows], y[rows]) for rows in (slice(POOL + 60, half), slice(half, None)))
    return {"x": torch.cat([x[:POOL], x[copied] + noise]), "y": torch.cat([y[:POOL], y[copied]]), "origin": origin.numpy(),
            "net": start, "targets": targets, "judges": judges}  # fmt: skip


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
    x, y = world["judges"]
    with torch.inference_mode():
        each = torch.nn.functional.cross_entropy(net(x), y, reduction="none").numpy()
    return np.array([each.mean(), *(each[(y == digit).numpy()].mean() for digit in range(10))])


def ingested(world: dict[str, Any], work: Path) -> dict[str, dict[str, Path]]:
    """Stores of all features, and each task's query files, by headwater's command line."""
    net, x, y, (tx, ty) = world["net"], world["x"], world["y"], world["targets"]
    head = {"weight": net.head.weight.detach().numpy(), "bias": net.head.bias.detach().numpy()}
    found: dict[str, dict[str, Path]] = {}
    for kind in ("model", "head", "whole", "labels"):
        folder = work / kind
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        found[kind] = {"store": folder / "S"}
        for name, images, labels in (("pool", x, y), *((task, *_task(task, tx, ty)) for task in TASKS)):
            arrays = {
                "model": lambda a, b: {"hidden": net.hidden(a).detach().numpy(), "labels": b.numpy(), **head},
                "head": lambda a, b: {"vectors": -gradients(net, a, b, "head.weight")},
                "whole": lambda a, b: {"vectors": -gradients(net, a, b)},
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


def gradients(net: Net, x: torch.Tensor, y: torch.Tensor, only: str = "") -> np.ndarray:
    """(n, P): the gradient of each example's loss by every parameter, or by those of one name."""
    weights = {name: one.detach() for name, one in net.named_parameters()}

    def loss(own: dict[str, torch.Tensor], a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(torch.func.functional_call(net, own, (a[None],)), b[None])

    each = torch.func.vmap(torch.func.grad(loss), (None, 0, 0))(weights, x, y)
    return torch.cat([one.flatten(1) for name, one in each.items() if only in name], 1).numpy()


def features(stores: dict[str, dict[str, Path]]) -> dict[str, subset_figures.Feature]:
    """Each feature's means of subsets and vectors of tasks."""
    from headwater.engine.models.language_model import ModelChoice
    from headwater.engine.selection.linear_features import LinearFeatures
    from headwater.engine.selection.targets import TaskFile, read_targets
    from headwater.store.feature_store import FeatureStore

    found = {}
    for name in FEATURES:
        method, _, kind = name.partition("@")
        files = stores[kind or "model"]
        rows = LinearFeatures(FeatureStore.open(str(files["store"])), method)
        choice = ModelChoice("", "cpu")
        read = [read_targets(rows, TaskFile(str(files[task]), model=choice)) for task in TASKS]
        found[name] = subset_figures.Feature(rows, np.stack([one.vectors[0] for one in read]))
    return found


def run(work: Path, seed: int) -> dict[str, Any]:
    """Every regime: train, predict, judge."""
    world = data(seed)
    known, found = features(ingested(world, work / "stores")), {}
    for at, regime in enumerate(REGIMES):
        masks, file = drawn(regime, world, seed * 100 + at), work / f"outcomes-{at}.npz"
        if not file.exists() or not np.array_equal(np.load(file)["masks"], masks):
            np.savez(file, masks=masks, outcomes=outcomes(world, masks))
        different = subset_figures.distinct(masks, world["origin"])
        found[regime] = subset_figures.judged(
            known, masks, np.load(file)["outcomes"], TASKS, different, work / f"{regime}.npz"
        )
        print(f"{regime}: {subset_figures.line(found[regime])}", flush=True)
    return found


def main(arguments: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Train, predict, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=machine.OUT)
    parser.add_argument("--draws", type=int, default=3, help="of the data, each with all its regimes")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    found = []
    for seed in range(given.draws):
        work = given.out.resolve() / f"digits-{seed}"
        work.mkdir(parents=True, exist_ok=True)
        found.append(run(work, seed))
    told = {"machine": machine.describe(), "found": found}
    machine.save(given.out, "digits_subsets", told, subset_figures.table(found))
    subset_figures.draw(given.out.resolve() / "digits-0", REGIMES, given.out / "digits_subsets.png")
    return found


if __name__ == "__main__":
    main()
