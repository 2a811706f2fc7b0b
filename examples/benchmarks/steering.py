"""STRIDE by the command line, against retraining and against what was planted: figures over K, bases and ω, beside other methods.

    python examples/benchmarks/steering.py --out /scratch

| task     | of `tasks.py`                        | truth                                                              |
|----------|--------------------------------------|--------------------------------------------------------------------|
| names    | `lds`: 600 names; three models,      | `headwater ground-truth`: 64 halves of them, 5 trainings each       |
|          | trained part-way                     |                                                                    |
| backdoor | 450 reviews and 50 poisoned ones;    | which are poisoned                                                 |
|          | three models, tuned on them          |                                                                    |

Each figure is `ingest`, `fit`, `attribute --all-scores` and `evaluate`, in processes of their own, two at a time; what was
measured is kept, and a run that was stopped goes on. Methods beside it are those of `compare.py`, measured there if need be.
The N/K curve takes fewer and fewer operators, down to one for every hundred names.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import compare
import machine
import numpy as np
import steering_tables
import tasks

BESIDE = ("headgn", "headcos", "trak", "logra", "gradcos", "repsim", "rise", "rise, τ = 1, floor 1", "grasp", "tfidf")
SEEDS = (0, 1, 2)
CHOICES = ("depth=0.5", "space=activations,depth=0.5", "linearity=0.1", "stability=1.0", "basis_rate=0.0")
"""What the paper leaves open or does otherwise, one at a time, on names at K = 300."""


@dataclass(frozen=True, slots=True)
class Run:
    """One fit and what is asked of it."""

    task: str
    seed: int
    subsets: int
    omega: str = "one"
    bases: int = 1
    degree: int = 10
    updates: int = 150
    choice: str = ""
    """Settings that are not the default, NAME=VALUE,…"""

    @property
    def name(self) -> str:
        """Of its file."""
        rest = f"-{self.degree}-{self.updates}" if (self.degree, self.updates) != (10, 150) else ""
        return f"{self.task}-{self.seed}-{self.subsets}-{self.omega}-{self.bases}{rest}" + f"-{self.choice}" * bool(
            self.choice
        )


def runs() -> list[Run]:
    """All of them, the long ones first."""
    names = [
        Run("lds", 0, 1000, bases=3),
        *(Run("lds", seed, subsets) for subsets in (1000, 300, 100) for seed in SEEDS),
    ]
    curve = [Run("lds", 0, subsets, degree=3) for subsets in (60, 20, 6)]
    hasty = [Run("lds", 0, 300, updates=updates) for updates in (3, 15)]  # what do diagnostics say of a bad fit?
    planted = [Run("backdoor", seed, subsets, "example") for subsets in (1000, 500, 300) for seed in SEEDS]
    unweighted = [Run("backdoor", seed, 300) for seed in SEEDS]
    choices = [Run("lds", 0, 300, choice=choice) for choice in CHOICES]
    return [*names, *planted, *unweighted, *curve, *hasty, *choices]


def measure(run: Run, data: Path, work: Path) -> dict[str, Any]:
    """One figure, from nothing."""
    task, folder = tasks.made(run.task, run.seed, data, work), work / "steering" / run.name
    shutil.rmtree(folder, ignore_errors=True)
    store, scores, fields = folder / "store", folder / "scores.zarr", list(task.fields)
    command = machine.headwater()
    machine.run(
        [*command, "ingest", task.corpus, "--store", str(store), "--model", task.model, "--method", "repsim", *fields],
        folder,
    )
    settings: dict[str, Any] = {
        "subsets": run.subsets,
        "omega": run.omega,
        "degree": run.degree,
        "updates": run.updates,
        "seed": run.seed,
    }
    settings |= {name: value for name, _, value in (one.partition("=") for one in run.choice.split(",") if one)}
    members: dict[str, list[str]] = {"stride": []}
    if run.bases > 1:
        models = [tasks.made(run.task, seed, data, work).model for seed in range(run.bases)]
        members = {f"stride@{seed}": ["--base", model] for seed, model in enumerate(models)}
    fits = []
    for member, base in members.items():
        options = [part for name, value in settings.items() for part in ("--set", f"{member}.{name}", str(value))]
        fits.append(machine.run([*command, "fit", str(store), "--method", member, *base, *options], folder))
    asked = [
        "attribute",
        str(store),
        "--method",
        "stride",
        "--queries",
        task.queries,
        *fields,
        "--all-scores",
        str(scores),
        *(("--members", "all") if run.bases > 1 else ()),
    ]
    queried = machine.run([*command, *asked], folder)
    import zarr

    diagnostics = zarr.open_group(str(scores), mode="r").attrs["diagnostics"]
    peak = max(run_of.peak_bytes for run_of in (*fits, queried))
    took = {"fit": sum(fit.cpu_seconds for fit in fits), "query": queried.cpu_seconds, "peak": peak}
    file_bytes = sum(file.stat().st_size for file in store.rglob("operators/**/*") if file.is_file()) // int(
        diagnostics["rows"]
    )
    found = {**compare.judged(task, store, scores), **took, "bytes": file_bytes, "diagnostics": diagnostics}
    shutil.rmtree(folder)
    return found


def kept(run: Run, data: Path, work: Path) -> dict[str, Any]:
    """A figure, measured now or before."""
    file = work / "steering" / "figures" / f"{run.name}.json"
    if not file.exists():
        found = measure(run, data, work)
        file.parent.mkdir(parents=True, exist_ok=True)
        hidden = file.with_suffix(".part")
        hidden.write_text(json.dumps(found))
        hidden.replace(file)
        print(f"{run.name}: {found['figure']['value']:.3f}, fit {found['fit']:.0f} CPU s", flush=True)
    told: dict[str, Any] = json.loads(file.read_text())
    label = {"one": "stride", "example": "stride, ω"}[run.omega]
    if (
        run == Run(run.task, run.seed, 1000, run.omega)
        and not compare.told_in(work, run.task, run.seed, label).exists()
    ):
        line = {**told, "build": told["fit"]}  # what compare.py would measure
        compare.keep(
            work, run.task, run.seed, label, {key: line[key] for key in line if key not in ("diagnostics", "fit")}
        )
    return told


def draw(found: dict[Run, dict[str, Any]], path: Path) -> None:
    """LDS over N/K; and figures beside the diagnostics."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.6), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    curve = sorted((one["diagnostics"]["rows"] / run.subsets, one["figure"]["value"]) for run, one in found.items()
                   if (run.task, run.seed, run.bases, run.updates) == ("lds", 0, 1, 150))  # fmt: skip
    left.plot([at for at, _ in curve], [value for _, value in curve], "o-")
    left.set(xscale="log", xlabel="examples for each operator, N/K", ylabel="LDS, names")
    for axis, sign, label in (
        (middle, "reliability", "two fittings agree"),
        (right, "explained", "held-out measurements explained"),
    ):
        for task, colour in (("lds", "#4878a8"), ("backdoor", "#d08030")):
            own = [(np.median([v for v in one["diagnostics"][sign] if v is not None] or [np.nan]), one["figure"]["value"])
                   for run, one in found.items() if run.task == task]  # fmt: skip
            axis.plot([at for at, _ in own], [value for _, value in own], "o", color=colour, label=task)
        axis.set(xlabel=label, ylabel="LDS or average precision")
        axis.legend(frameon=False)
    figure.savefig(path, dpi=150)


def main(arguments: Sequence[str] | None = None) -> dict[Run, dict[str, Any]]:
    """Run, print, write; returns what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="the real data")
    parser.add_argument("--out", type=Path, default=machine.OUT, help="where stores, figures and tables go")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--only", default="", help="runs whose names begin so")
    given = parser.parse_args(arguments)
    data = machine.data_folder(given.data, "models/stories260K")
    work = given.out.resolve() / "compare"
    for library in ("OMP", "MKL", "NUMBA") if given.processes > 1 else ():
        os.environ[f"{library}_NUM_THREADS"] = "1"  # of the commands: two of one thread each take less than one of two
    beside = [] if given.only else compare.run({"lds": SEEDS, "backdoor": SEEDS}, BESIDE, data, work)
    chosen = [run for run in runs() if run.name.startswith(given.only)]
    for name, seed in dict.fromkeys((run.task, seed) for run in chosen for seed in {run.seed, *range(run.bases)}):
        tasks.made(name, seed, data, work)  # once, before several runs want it
    with ThreadPoolExecutor(given.processes) as pool:
        found = dict(zip(chosen, pool.map(lambda run: kept(run, data, work), chosen), strict=True))
    if not given.only:
        facts = [{"run": run.name, **one} for run, one in found.items()]
        machine.save(
            given.out,
            "steering",
            {"machine": machine.describe(), "found": facts, "beside": beside},
            steering_tables.show(found, beside),
        )
        draw({run: one for run, one in found.items() if not run.choice}, given.out / "steering.png")
    return found


if __name__ == "__main__":
    main()
