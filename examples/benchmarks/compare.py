"""Every method that is installed, on the same corpora, models and queries: quality, seconds, bytes, memory, in one table.

The tasks are those of `tasks.py`. What was measured is kept, and a run that was stopped goes on:

    python examples/benchmarks/compare.py --out /scratch
    python examples/benchmarks/compare.py --tasks backdoor --seeds 0 1 --methods rise gradcos tfidf

A task's first seed is run by the command line, every method in processes of its own: build and query seconds (of processor
time), memory and bytes are those of the first task. Of further seeds only the quality is wanted: methods share what they can.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import machine
import tasks
from compare_table import draw, show, value

VARIANTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "rise": ("rise", ()),
    "rise, int8": ("rise", ("rise.precision=int8",)),
    "rise, 8,192 signs": ("rise", ("rise.precision=sign",)),
    "rise, τ = 1, floor 1": ("rise", ("rise.tau=1.0", "rise.floor=1.0")),
    "rise, whitened": ("rise", ("rise.whiten=0.1",)),
    "rise, τ = 1, floor 1, whitened": ("rise", ("rise.tau=1.0", "rise.floor=1.0", "rise.whiten=0.1")),
    "rise, τ = 1, floor 1, signs": ("rise", ("rise.tau=1.0", "rise.floor=1.0", "rise.precision=sign")),
    "stride": ("stride", ()),
    "stride, ω": ("stride", ("stride.omega=example",)),
    "headkfac, cosine": ("headkfac", ("headkfac.cosine=true",)),
}
"""RISE comes in several forms, STRIDE with and without weights of examples, headkfac also as a cosine; every other method with
its defaults.
"""
SEVERAL = ("backdoor",)
"""Tasks whose seeds are all run; the others are run once."""
TEXTS = ("tfidf", "bm25")
FITTED = ("stride",)
"""What `ingest` fits, and stores no rows of."""
ABSENT = ("rise", "stride", "vectors")
"""Not among the others: RISE and STRIDE have their variants, and `vectors` are rows made elsewhere."""
Variant: TypeAlias = tuple[str, tuple[str, ...]]


def methods(wanted: Sequence[str]) -> dict[str, Variant]:
    """Name in the table → method, settings: the variants, and all others that are installed and sound; or those wanted."""
    from headwater.engine.interface.registry import list_methods

    others = {one.name: (one.name, ()) for one in list_methods() if not one.fault and one.name not in ABSENT}
    every: dict[str, Variant] = {**VARIANTS, **others}
    return {label: variant for label, variant in every.items() if not wanted or label in wanted}


def measure(task: tasks.Task, method: str, settings: Sequence[str], folder: Path) -> dict[str, Any]:
    """One method on one task, by the command line: its figure with its interval, and what it took."""
    store, scores = folder / "store", folder / "scores.zarr"
    stored = "repsim" if method in TEXTS else method  # texts need a store, whatever its rows
    options = [part for one in settings for part in ("--set", *one.split("=", 1))]
    ingest = ["ingest", task.corpus, "--store", str(store), "--model", task.model, "--method", stored, *task.fields]
    built = machine.run([*machine.headwater(), *ingest, *options], folder)
    asked = ["attribute", str(store), "--queries", task.queries, "--method", method, *task.fields]
    queried = machine.run([*machine.headwater(), *asked, "--all-scores", str(scores)], folder)
    row = 0 if method in TEXTS else _row_bytes(store, method)
    told = {"build": built.cpu_seconds if row else 0.0, "query": queried.cpu_seconds, "bytes": row,
            "peak": max(queried.peak_bytes, built.peak_bytes if row else 0)}  # fmt: skip
    return {**judged(task, store, scores), **told}


def _row_bytes(store: Path, method: str) -> int:
    """Of an example; what was fitted, shared out among all of them."""
    if method in FITTED:
        files = sum(
            file.stat().st_size for file in (store / "methods" / method).rglob("operators/**/*") if file.is_file()
        )
        from headwater.store.feature_store import EXAMPLES, FeatureStore

        return files // FeatureStore.open(str(store)).rows(EXAMPLES)
    from headwater.engine.arrays.scan.stored_rows import StoredRows
    from headwater.store.feature_store import FeatureStore, method_group

    return sum(
        reader.column.row_bytes
        for reader in StoredRows(FeatureStore.open(str(store)), method_group(method)).all_columns()
    )


def judged(task: tasks.Task, store: Path, scores: Path) -> dict[str, Any]:
    """The task's figures of these scores."""
    from headwater.engine.evaluation.evaluate import (
        OutcomesFile,
        RankingFiles,
        lds_from_files,
        retrieval_from_files,
        select_labels,
    )

    if "masks" in task.judge:
        found = lds_from_files(str(scores), task.judge["masks"], OutcomesFile(task.judge["outcomes"])).facts()
        return {"figure": found["mean"], "means": {"lds": found["mean"]}, "ceiling": found["ceiling"]}
    words = {"labels": "", "column": "", "queries": "", "pattern": "", **task.judge}
    labels = select_labels(words["labels"], words["column"], words["queries"], words["pattern"])
    retrieval, _ = retrieval_from_files(RankingFiles(scores=str(scores), store=str(store)), labels)
    means = retrieval.facts()["means"]
    return {"figure": means[task.figure], "means": means, "ceiling": None}


def measure_together(task: tasks.Task, every: dict[str, Variant], folder: Path) -> dict[str, dict[str, Any]]:
    """The figures of several methods, in this process: those of different names share one forward pass."""
    passes: list[dict[str, str]] = []
    found = {
        label: measure(task, method, settings, folder / label)
        for label, (method, settings) in every.items()
        if method in FITTED
    }
    for label, (method, _) in every.items():
        if method in FITTED:
            continue
        free = next((one for one in passes if method not in one), None)
        passes.append({method: label}) if free is None else free.update({method: label})
    for at, labels in enumerate(passes):
        store = folder / f"store{at}"
        _ingest(task, {method: every[label][1] for method, label in labels.items()}, store)
        for method, label in labels.items():
            scores = folder / "scores.zarr"
            shutil.rmtree(scores, ignore_errors=True)
            _export(task, store, method, scores)
            found[label] = judged(task, store, scores)
    return found


def _ingest(task: tasks.Task, settings: dict[str, tuple[str, ...]], store: Path) -> None:
    from headwater.engine.ingest.ingest_job import IngestJob, prepare
    from headwater.engine.ingest.text_settings import TextSettings
    from headwater.engine.models.language_model import ModelChoice

    stored = {method: _typed(given) for method, given in settings.items() if method not in TEXTS} or {"repsim": {}}
    job = IngestJob([task.corpus], str(store), ModelChoice(task.model, "cpu"), stored, TextSettings(_template(task)))
    prepare(job).ingest()


def _export(task: tasks.Task, store: Path, method: str, scores: Path) -> None:
    from headwater.engine.attribution.open_session import open_session
    from headwater.engine.attribution.query_options import QueryOptions, SearchOptions
    from headwater.engine.ingest.text_settings import TextSettings

    options = QueryOptions(text=TextSettings(_template(task)), search=SearchOptions(all_scores=True))
    question = open_session(str(store), method, task.queries, options)
    question.export(str(scores))


def _template(task: tasks.Task) -> Any:
    from headwater.engine.data.documents import Template

    return Template(**{name.removeprefix("--"): value for name, value in zip(*[iter(task.fields)] * 2, strict=True)})


def _typed(given: Sequence[str]) -> dict[str, Any]:
    """Settings as the command line reads them."""
    from headwater.engine.commands.options import method_settings

    names = tuple({one.partition(".")[0] for one in given})
    pairs = tuple((name, value) for name, _, value in (one.partition("=") for one in given))
    return {
        setting: value for settings in method_settings(names, pairs).values() for setting, value in settings.items()
    }


def run(asked: Mapping[str, Sequence[int]], wanted: Sequence[str], data: Path, work: Path) -> list[dict[str, Any]]:
    """All of it, by task and its seeds; what is there already is read."""
    found = []
    for name, seeds in asked.items():
        for seed in seeds:
            chosen = {told_in(work, name, seed, label): (label, variant) for label, variant in methods(wanted).items()}
            left = {label: variant for path, (label, variant) in chosen.items() if not path.exists()}
            folder = work / f"{name}-{seed}" / "run"
            shutil.rmtree(folder, ignore_errors=True)
            task = tasks.made(name, seed, data, work) if left else None
            if task and seed == seeds[0]:
                for label, (method, settings) in left.items():
                    line = measure(task, method, settings, folder)
                    shutil.rmtree(folder)
                    keep(work, name, seed, label, line)
            elif task:
                for label, line in measure_together(task, left, folder).items():
                    keep(work, name, seed, label, line)
                shutil.rmtree(folder)
            found += [json.loads(path.read_text()) for path in chosen]
    return found


def told_in(work: Path, name: str, seed: int, label: str) -> Path:
    """Where a figure is kept."""
    return work / "figures" / f"{name}-{seed}-{label.replace(' ', '_').replace(',', '')}.json"


def keep(work: Path, name: str, seed: int, label: str, line: dict[str, Any]) -> None:
    """Write a figure of a task, a seed and a method."""
    path = told_in(work, name, seed, label)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".part").write_text(json.dumps({"task": name, "seed": seed, "method": label, **line}))
    path.with_suffix(".part").replace(path)
    print(f"{name} {seed} {label}: {value(line):.3f}", flush=True)


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
    asked = {name: given.seeds if name in SEVERAL else given.seeds[:1] for name in given.tasks}
    found = run(asked, given.methods, data, given.out.resolve() / "compare")
    machine.save(given.out, "compare", {"machine": machine.describe(), "found": found}, show(found, given.tasks))
    draw(found, given.tasks, given.out / "compare.png")
    return found


if __name__ == "__main__":
    main()
