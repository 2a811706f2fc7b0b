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
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

import head_tasks
import machine
from head_forms import Head, Whitening, products, unit
from head_tasks import Array, HeadTask

Form: TypeAlias = tuple[Callable[[], Array], Callable[[], int]]
"""Functions that give scores (Q, N), and the bytes of a row."""
ROWS: dict[str, tuple[str, tuple[str, ...]]] = {
    "headkfac": ("headkfac", ()),
    "headkfac, m = 256": ("headkfac", ("headkfac.m", "256")),
    "headkfac, m = 2,048": ("headkfac", ("headkfac.m", "2048")),
    "headkfac, cosine": ("headkfac", ("headkfac.cosine", "true")),
    "headkfac, int8": ("headkfac", ("headkfac.precision", "int8")),
    "headgn": ("headgn", ()),
    "headcos": ("headcos", ()),
    "rise": ("rise", ()),
    "rise, τ = 1, floor 1": ("rise", ("rise.tau", "1.0", "rise.floor", "1.0")),
    "grasp": ("grasp", ()),
}
"""Rows that headwater stores: label → method and settings."""
SHAPES = ((16, 16), (32, 32), (64, 32), (32, 64), (64, 64))
"""Eigenvectors of the residuals' side and of the hidden states' side."""


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
    for count in (256, 1024, 2048, 4096):
        lines[f"K-FAC, the {count:,} largest λ_b λ_a"] = partial(head.kfac, 0.1, count)
    for rank in (4, 16, 64, 256):
        if rank < len(head.bases[0]):
            lines[f"K-FAC, the 1,024 largest λ_b λ_a, B of rank {rank}"] = partial(head.kfac, 0.1, 1024, rank)
    for through_head, side in ((False, "residuals"), (True, "errors")):
        for shape in SHAPES:
            how = Whitening(*widths(head, shape, through_head), through_head=through_head)
            lines[f"each side whitened, {side}, {shape[0]} × {shape[1]}"] = partial(head.whitened, how)
    how = Whitening(*widths(head, (32, 32), False))
    for damping in (0.01, 1.0):
        lines[f"each side whitened, residuals, 32 × 32, damping {damping:g}"] = partial(
            head.whitened, replace(how, damping=damping)
        )
    lines["each side whitened, residuals, all coordinates"] = partial(head.whitened, Whitening())
    lines["each side whitened, residuals, 32 × 32, cosine"] = partial(head.whitened, replace(how, cosine=True))
    lines["each side whitened, residuals, 32 × 32, unit positions"] = partial(
        head.whitened, replace(how, unit_positions=True)
    )
    moments = {"sampled labels": head.sampled_moments, "the examples' own gradients": head.own_moments}
    for kind, of in moments.items():
        lines[f"K-FAC, the 1,024 largest λ_b λ_a, corrected by {kind}"] = partial(head.corrected, of)
    lines["K-FAC of the query, then CountSketch 48 × 48"] = lambda: head.hashed(head.preconditioned())
    return {label: (scores, lambda: 0) for label, scores in lines.items()}


def widths(head: Head, shape: tuple[int, int], through_head: bool) -> tuple[int, int]:
    """The sides' numbers of eigenvectors, as `headkfac` chooses them."""
    from headwater.engine.sketches.widths import side_widths

    vocabulary, hidden = head.task.weight.shape
    (outputs,), inputs = side_widths([(hidden if through_head else vocabulary, shape[0])], (hidden, shape[1]))
    return outputs, inputs


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
    options = [part for pair in zip(*[iter(settings)] * 2, strict=True) for part in ("--set", *pair)]
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
