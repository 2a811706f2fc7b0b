"""Every method that is installed, on the same corpora, models and queries: quality, seconds, bytes, memory, in one table.

By the command line alone: `ingest`, `attribute --all-scores`, `evaluate`. The tasks are those of `tasks.py`. What was
measured is kept, and a run that was stopped goes on:

    python examples/benchmarks/compare.py --out /scratch
    python examples/benchmarks/compare.py --tasks backdoor --seeds 0 1 --methods rise gradcos tfidf

Build seconds, memory and bytes are those of a task's first seed, for which every method is ingested alone.
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
import tasks

VARIANTS = {
    "rise": ("rise", ()),
    "rise, int8": ("rise", ("rise.precision=int8",)),
    "rise, 8,192 signs": ("rise", ("rise.precision=sign",)),
    "rise, τ = 1, floor 1": ("rise", ("rise.tau=1.0", "rise.floor=1.0")),
}
"""RISE comes in several forms; every other method with its defaults."""
SEVERAL = ("backdoor",)
"""Tasks whose seeds are all run; the others are run once."""
TEXTS = ("tfidf", "bm25")


def methods() -> dict[str, tuple[str, tuple[str, ...]]]:
    """Name in the table → method, settings: the variants, and all others that are installed and sound."""
    from headwater.engine.registry import list_methods

    others = {one.name: (one.name, ()) for one in list_methods() if not one.fault and one.name != "rise"}
    return {**VARIANTS, **others}


def measure(task: tasks.Task, method: str, settings: Sequence[str], folder: Path) -> dict[str, Any]:
    """One method on one task: its figure with its interval, and what it took."""
    folder.mkdir(parents=True, exist_ok=True)
    store, scores = folder / "store", folder / "scores.zarr"
    for old in (store, scores):
        shutil.rmtree(old, ignore_errors=True)
    stored = "rise" if method in TEXTS else method  # texts need a store, whatever its rows
    small = ["-o", "rise.kr", "8", "-o", "rise.kh", "8", "-o", "rise.kg", "0"] if method in TEXTS else []
    options = [part for one in settings for part in ("-o", *one.split("=", 1))]
    ingest = ["ingest", task.corpus, "--store", str(store), "--model", task.model, "--method", stored, *task.fields]
    built = machine.run([*machine.headwater(), *ingest, *small, *options], folder)
    asked = ["attribute", str(store), "--queries", task.queries, "--method", method, *task.fields]
    queried = machine.run([*machine.headwater(), *asked, "--all-scores", str(scores)], folder)
    judge = ["evaluate", *task.judge, "--scores", str(scores), "-o", str(folder / "figures.json")]
    judge += ["--store", str(store)] if task.judge[0] == "retrieval" else []
    machine.run([*machine.headwater(), *judge], folder)
    figures = json.loads((folder / "figures.json").read_text())
    means = figures["means"] if "means" in figures else {"lds": figures["mean"]}
    shutil.rmtree(store)
    shutil.rmtree(scores)
    none = method in TEXTS
    return {"figure": means[task.figure], "means": means, "ceiling": figures.get("ceiling"),
            "bytes": 0 if none else _bytes(method, settings, task), "build_seconds": 0.0 if none else built.seconds,
            "build_cpu": 0.0 if none else built.cpu_seconds, "build_peak": 0 if none else built.peak_bytes,
            "query_seconds": queried.seconds, "query_peak": queried.peak_bytes}  # fmt: skip


def _bytes(method: str, settings: Sequence[str], task: tasks.Task) -> int:
    """Bytes of an example's row."""
    from headwater.engine.intake.model import load_untrained
    from headwater.engine.registry import load

    given = {name.partition(".")[2]: value for name, _, value in (one.partition("=") for one in settings)}
    typed = {name: float(value) if value.replace(".", "").isdigit() else value for name, value in given.items()}
    forms = load(method).from_settings(typed).forms(load_untrained(task.model).head.sizes)
    return sum(column.row_bytes for form in forms.values() for column in form.columns)


def run(
    names: Sequence[str], wanted: Sequence[str], seeds: Sequence[int], data: Path, work: Path
) -> list[dict[str, Any]]:
    """All of it; what is there already is read."""
    found = []
    for name in names:
        for seed in seeds if name in SEVERAL else seeds[:1]:
            for label, (method, settings) in methods().items():
                if wanted and label not in wanted:
                    continue
                told = work / "figures" / f"{name}-{seed}-{label.replace(' ', '_').replace(',', '')}.json"
                if not told.exists():
                    task = tasks.made(name, seed, data, work)
                    line = measure(task, method, settings, work / f"{name}-{seed}" / "run")
                    told.parent.mkdir(parents=True, exist_ok=True)
                    told.write_text(json.dumps({"task": name, "seed": seed, "method": label, **line}))
                found.append(json.loads(told.read_text()))
                print(f"{name} {seed} {label}: {found[-1]['figure']['value']:.3f}", flush=True)
    return found


def show(found: Sequence[dict[str, Any]], names: Sequence[str]) -> str:
    """One table: a row a method, a column a task; then what each took on the first task."""
    labels = list(dict.fromkeys(line["method"] for line in found))
    rows = []
    for label in labels:
        own = [line for line in found if line["method"] == label]
        first = next(line for line in own if line["seed"] == own[0]["seed"])
        cells = [_cell([line for line in own if line["task"] == name]) for name in names]
        rows.append([label, *cells, f"{first['bytes']:,}", f"{first['build_seconds']:.0f}",
                     f"{first['query_seconds']:.0f}", f"{max(first['build_peak'], first['query_peak']) / 1e6:.0f}"])  # fmt: skip
    return machine.markdown(["method", *names, "bytes a row", "build s", "query s", "peak MB"], rows)


def _cell(lines: Sequence[dict[str, Any]]) -> str:
    """Of several seeds the mean and the range; of one its interval."""
    if not lines:
        return ""
    values = [line["figure"]["value"] for line in lines]
    if len(lines) > 1:
        return f"{np.mean(values):.3f} ({min(values):.2f} to {max(values):.2f})"
    return f"{values[0]:.3f} ({lines[0]['figure']['low']:.2f} to {lines[0]['figure']['high']:.2f})"


def draw(found: Sequence[dict[str, Any]], names: Sequence[str], path: Path) -> None:
    """The same as a picture: a panel a task."""
    from matplotlib.figure import Figure

    labels = list(dict.fromkeys(line["method"] for line in found))
    figure = Figure(figsize=(3.6 * len(names) + 1.5, 0.32 * len(labels) + 1.4), layout="constrained")
    for axis, name in zip(figure.subplots(1, len(names), sharey=True, squeeze=False)[0], names, strict=True):
        for at, label in enumerate(labels):
            own = [line["figure"] for line in found if line["method"] == label and line["task"] == name]
            if own:
                axis.barh(at, np.mean([one["value"] for one in own]), color="#4878a8")
                axis.plot([one["value"] for one in own], [at] * len(own), "o", color="#d08030", markersize=3)
        axis.set(title=name, yticks=range(len(labels)))
        axis.set_yticklabels(labels)
        axis.invert_yaxis()
    figure.savefig(path, dpi=150)


def main(arguments: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Run, print, write; returns what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="the real data")
    parser.add_argument("--out", type=Path, default=machine.OUT, help="where stores, figures and tables go")
    parser.add_argument("--tasks", nargs="*", default=list(tasks.MAKERS), choices=list(tasks.MAKERS))
    parser.add_argument("--methods", nargs="*", default=[], help="these alone, as the table names them")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2, 3, 4])
    given = parser.parse_args(arguments)
    data = machine.data_folder(given.data, "models/stories260K")
    found = run(given.tasks, given.methods, given.seeds, data, given.out.resolve() / "compare")
    machine.save(given.out, "compare", {"machine": machine.describe(), "found": found}, show(found, given.tasks))
    draw(found, given.tasks, given.out / "compare.png")
    return found


if __name__ == "__main__":
    main()
