"""How predicted utilities of subsets are judged against real retraining, told and drawn: shared by digits and text.

Predictions ride headwater's own path: stored features, one pass over masks, the surrogate, the calibration. Knows no data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import machine
import numpy as np

FIRST, DRAWS = 48, 1000
"""Subsets that may calibrate λ; the others are held out. Draws of the bootstrap over subsets."""


@dataclass(frozen=True, slots=True)
class Feature:
    """A stored feature with its tasks."""

    rows: Any
    """LinearFeatures."""
    tasks: np.ndarray
    """(T, D): each task's vector."""
    known: dict[int, np.ndarray] = field(default_factory=dict)

    def means(self, masks: np.ndarray) -> np.ndarray:
        """(S, D): the subsets' means, in one pass over the store."""
        from headwater.engine.selection.subset_counts import PackedMasks

        key = hash(masks.tobytes())
        if key not in self.known:
            self.known[key] = self.rows.means(PackedMasks.of(masks.astype(bool)))
        return self.known[key]


def distinct(masks: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """(S,): how many different rows each subset has, copies counted as their originals."""
    return np.array([len(set(origin[mask > 0])) for mask in masks], float)


def judged(
    known: dict[str, Feature],
    masks: np.ndarray,
    outcomes: np.ndarray,
    tasks: Sequence[str],
    different: np.ndarray,
    file: Path,
) -> dict[str, Any]:
    """Every predictor's correlation with what training did, on the held-out subsets; what is drawn goes to `file`.

    masks (S, N) counts, outcomes (seeds, S, T) losses of which the first task is the broad one, different (S,).
    """
    from headwater.engine.evaluation.metrics import noise_ceiling
    from headwater.engine.selection.calibration import SubsetOutcomes, choose_penalty
    from headwater.engine.selection.surrogate import utilities

    gains, held = -outcomes.mean(0), slice(FIRST, None)
    every = {
        f"{name}, {told}": utilities(one.means(masks), one.tasks, penalty)
        for name, one in known.items()
        for told, penalty in (("additive", 0.0), ("λ = 1", 1.0))
    }
    grasp = known["grasp"]
    chosen = choose_penalty(SubsetOutcomes(grasp.means(masks)[:FIRST], grasp.tasks, gains[:FIRST], tuple(tasks)))
    every["grasp, calibrated"] = utilities(grasp.means(masks), grasp.tasks, chosen.penalty)
    every["number of distinct rows"] = np.repeat(different[:, None], len(tasks), 1)
    every["random"] = np.random.default_rng(0).random(gains.shape)
    np.savez(
        file, gains=gains[held, 0], additive=every["grasp, additive"][held, 0], grasp=every["grasp, λ = 1"][held, 0]
    )
    lines = {name: _line(values[held], gains[held]) for name, values in every.items()}
    apart = _line(every["grasp, λ = 1"][held], gains[held], every["grasp, additive"][held])
    return {
        "lines": lines,
        "difference": apart,
        "lambda": chosen.penalty,
        "ceiling": noise_ceiling(outcomes[:, held])[1],
    }


def _line(values: np.ndarray, gains: np.ndarray, less: np.ndarray | None = None) -> dict[str, float]:
    """Broad task with its interval over subsets, mean of all tasks; of two predictors, how far the first is ahead."""
    from headwater.engine.arrays.ranks import spearman

    def taken(at: Any) -> np.ndarray:
        own: np.ndarray = np.nan_to_num(spearman(values[at], gains[at]))
        return own if less is None else own - np.nan_to_num(spearman(less[at], gains[at]))

    chance, each = np.random.default_rng(0), taken(slice(None))
    drawn = np.array([taken(chance.integers(0, len(gains), len(gains)))[0] for _ in range(DRAWS)])
    low, high = np.quantile(drawn, (0.025, 0.975))
    return {"broad": float(each[0]), "low": float(low), "high": float(high), "all": float(each.mean())}


def share(found: dict[str, Any]) -> float:
    """(Û − additive) / (1 − additive), of the means over all tasks."""
    grasp, additive = (found["lines"][f"grasp, {name}"]["all"] for name in ("λ = 1", "additive"))
    return float((grasp - additive) / (1 - additive))


def line(found: dict[str, Any]) -> str:
    """A regime in one line."""
    grasp, additive = (found["lines"][f"grasp, {name}"]["broad"] for name in ("λ = 1", "additive"))
    apart = found["difference"]
    return (f"broad {grasp:.2f}, additive {additive:.2f}, apart {apart['broad']:.2f} ({apart['low']:.2f} to "
            f"{apart['high']:.2f}); all tasks {share(found):.2f} of what additive leaves; λ {found['lambda']:g}, "
            f"ceiling {found['ceiling']:.2f}")  # fmt: skip


def table(draws: Sequence[dict[str, Any]]) -> str:
    """A row a predictor; of each regime the broad task and the mean over all tasks, both as means over draws of the data.

    In brackets the interval over subsets, or, of several draws, the lowest and the highest.
    """
    regimes = list(draws[0])
    rows = []
    for name in draws[0][regimes[0]]["lines"]:
        rows.append([name, *(_cell([one[regime]["lines"][name] for one in draws]) for regime in regimes)])
    rows.append(["λ = 1 over additive", *(_cell([one[regime]["difference"] for one in draws]) for regime in regimes)])
    rows.append(["of what additive leaves", *(_mean([share(one[regime]) for one in draws]) for regime in regimes)])
    rows.append(
        ["noise allows (mean of tasks)", *(_mean([one[regime]["ceiling"] for one in draws]) for regime in regimes)]
    )
    rows.append(["λ calibrated", *(" ".join(f"{one[regime]['lambda']:g}" for one in draws) for regime in regimes)])
    return machine.markdown(["broad task; mean of all tasks", *regimes], rows)


def _cell(lines: Sequence[dict[str, float]]) -> str:
    broad = [one["broad"] for one in lines]
    low, high = (min(broad), max(broad)) if len(lines) > 1 else (lines[0]["low"], lines[0]["high"])
    return f"{np.mean(broad):.2f} ({low:.2f} to {high:.2f}); {_mean([one['all'] for one in lines])}"


def _mean(values: Sequence[float]) -> str:
    return f"{np.mean(values):.2f}"


def draw(work: Path, regimes: Sequence[str], picture: Path) -> None:
    """Predicted against true utility of the held-out subsets, broad task, a panel a regime."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(
        2, -(-len(regimes) // 2), figsize=(4 * -(-len(regimes) // 2), 7), layout="constrained"
    )
    for panel, regime in zip(panels.flat, regimes, strict=False):
        held = np.load(work / f"{regime}.npz")
        for name, colour in (("additive", "0.6"), ("grasp", "#d08030")):
            values = held[name]
            label = "GRASP, λ = 1" if name == "grasp" else "additive"
            panel.scatter(
                (values - values.mean()) / values.std(),
                held["gains"] - held["gains"].mean(),
                s=12,
                c=colour,
                label=label,
            )
        panel.set(title=regime, xlabel="predicted (standard units)", ylabel="fall of the loss (nats, from the mean)")
    panels.flat[0].legend(frameon=False)
    figure.savefig(picture, dpi=110)
    pyplot.close(figure)
