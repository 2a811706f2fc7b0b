"""Memory against the plan: 64 queries to a store far larger than the budget, and ingestions of 1,000 to 10,000 rows.

    python examples/benchmarks/bounded_memory.py --out /scratch        # 250,000 rows of 24,576 bytes: 7 GB on disk
    python examples/benchmarks/bounded_memory.py --rows 20000          # 0.5 GB

The store's rows are synthetic unit vectors, its model a tiny GPT-NeoX with random weights, so that the command line can ask
it. Every measurement is a fresh process: it imports what the command imports, loads the compiled kernels, and takes its
resident memory then for the interpreter's share; what the peak exceeds that by is held against the plan. The command itself
is run too, with its peak as the system tells it, nothing subtracted. Answers under both budgets must be equal.

Then the commands whose results, groups, subsets or texts grow (`memory_commands.py`): each is refused a byte, which must cost
little, and run in the smallest budget that the refusal names, or in the one that is shown (`command_memory.py`).
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import machine
import memory_commands
from beside_bergson import WORK, make_corpus, make_model, measured
from command_memory import Measured
from command_memory import measured as measured_command

SKETCH = {"kr": 64, "kh": 128, "kg": 32, "exact": False}
"""128 · (64 + 32) float16 numbers: rows of 24,576 bytes."""
QUERIES, WORDS, TOP = 64, 16, 10
SIZES = (1000, 3000, 10_000)
"""Rows of the ingestions. The first is two windows, which do not fill the queue of the writing thread; the others do."""
BUDGETS = ("512MB", "4GB", "160MB")
"""The last makes blocks smaller than the first two do."""


def interpreter_share() -> int:
    """Resident bytes once all that a command imports is there and its kernels are loaded; the peak starts anew."""
    import numpy as np
    import torch
    from headwater.engine.arrays.kernels.heaps import Heaps
    from headwater.engine.arrays.precision.precisions import precision_of
    from headwater.engine.arrays.scan.scorers import scorer_of
    from headwater.engine.runtime.memory import reset_peak, resident_bytes
    from headwater.engine.sketches.residual import Loss, SparseResidual
    from headwater.store.layout import Block, column
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: F401
    from transformers.models.gpt_neox import modeling_gpt_neox  # noqa: F401

    with torch.inference_mode():
        logits, targets = torch.randn(16, 64) @ torch.randn(64, 64), torch.zeros(16, dtype=torch.int64)
        for reduction in (Loss(), SparseResidual(0.1, 8, 0.9, 4)):
            reduction(logits, targets)
    scores, rows = np.empty((1, 8), np.float32), np.ones((8, 64), np.float16)
    scorer_of(precision_of("auto", column("c", (64,), "float16")), np.ones((1, 64))).score(
        Block(0, {"c": rows}), scores
    )
    Heaps(1, 2).push(scores, 8, 0)
    reset_peak()
    return resident_bytes()


def spent() -> float:
    """CPU seconds of this process so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def attribute_here(store: str, queries: str, memory: str, answers: str) -> dict[str, Any]:
    """In a fresh process: ask, write the answers, and say what it took."""
    share = interpreter_share()
    from headwater.engine.attribution.open_session import open_session
    from headwater.engine.attribution.query_options import QueryOptions
    from headwater.engine.results.result_files import ResultFile
    from headwater.engine.results.result_tables import RESULT_FIELDS, result_rows
    from headwater.engine.runtime.memory import parse_bytes, peak_bytes
    from headwater.engine.runtime.run import Run

    begun, cpu = time.monotonic(), spent()
    question = open_session(store, "rise", queries, QueryOptions(TOP), Run(parse_bytes(memory)))
    results = question.attribute()
    seconds = time.monotonic() - begun
    with ResultFile(answers, RESULT_FIELDS) as file:
        for part in result_rows(results, question.store):
            file.write(part)
    row = 2 * SKETCH["kh"] * (SKETCH["kr"] + SKETCH["kg"])
    return {
        "run": f"attribute --memory {memory}", "rows": question.rows, "planned": question.plan.total, "share": share,
        "measured": peak_bytes() - share, "seconds": seconds, "cpu_seconds": spent() - cpu,
        "bytes_per_second": question.rows * row / seconds,
        "parts": {part.name: part.bytes for part in question.plan.parts},
    }  # fmt: skip


def ingest_here(corpus: str, model: str, store: str, settings: str = "{}") -> dict[str, Any]:
    """In a fresh process: ingest, and say what it took."""
    share = interpreter_share()
    from headwater.engine.ingest.ingest_job import IngestJob, prepare
    from headwater.engine.models.language_model import ModelChoice
    from headwater.engine.runtime.memory import peak_bytes

    begun, cpu = time.monotonic(), spent()
    prepared = prepare(IngestJob([corpus], store, ModelChoice(model), {"rise": json.loads(settings)}))
    outcome = prepared.open().run()
    seconds = time.monotonic() - begun
    return {
        "run": "ingest", "rows": outcome.rows, "planned": prepared.plan.total, "share": share,
        "measured": peak_bytes() - share, "seconds": seconds, "cpu_seconds": spent() - cpu,
        "bytes_per_second": 0.0, "parts": {part.name: part.bytes for part in prepared.plan.parts},
    }  # fmt: skip


def make_here(work: str, rows: str) -> dict[str, Any]:
    """In a fresh process: the model, the corpora, the queries, and the synthetic store."""
    folder, count = Path(work), int(rows)
    model, store = folder / "tiny", folder / "bounded.store"
    make_model(model, 64, 2, 512)
    make_corpus(folder / "bounded_queries.jsonl", model, QUERIES, WORDS, seed=3)
    for size in SIZES:
        make_corpus(folder / f"bounded_{size}.jsonl", model, size, WORDS)
    if store.exists():
        shutil.rmtree(store)
    begun = time.monotonic()
    fill(str(store), str(folder / "bounded_1000.jsonl"), str(model), count)
    return {"seconds": time.monotonic() - begun}


def fill(path: str, corpus: str, model: str, count: int) -> None:
    """A store as `ingest` makes it, with random unit rows in place of sketches: rotations of 2,048 drawn ones."""
    import numpy as np
    from headwater.engine.ingest.ingest_job import IngestJob, prepare
    from headwater.engine.models.language_model import ModelChoice
    from headwater.store.writer import GroupWriter

    store = prepare(IngestJob([corpus], path, ModelChoice(model), {"rise": SKETCH})).open().store
    pool = np.random.default_rng(0).standard_normal((2048, SKETCH["kh"] * (SKETCH["kr"] + SKETCH["kg"])), np.float32)
    pool = (pool / np.linalg.norm(pool, axis=1, keepdims=True)).astype(np.float16)
    with GroupWriter(store, "examples") as examples, GroupWriter(store, "methods/rise") as sketches:
        for start in range(0, count, len(pool)):
            n = min(len(pool), count - start)
            sketches.append({"signature": np.roll(pool[:n], 97 * (start // len(pool)), axis=1)})
            names = [f"r{row}" for row in range(start, start + n)]
            numbers = {"line": [1] * n, "offset": [0] * n, "tokens": [WORDS] * n, "counted": [WORDS - 1] * n}
            texts = [f"{name} is a synthetic row that stands for a text of some length. " * 4 for name in names]
            examples.append({"id": names, "source": ["made"] * n, "prompt": [""] * n, "text": texts, **numbers,
                             "loss": np.zeros(n, np.float32)})  # fmt: skip
        examples.commit(complete=True)
        sketches.commit(complete=True)


def fresh(task: str, *values: str) -> dict[str, Any]:
    """Run one of the functions above in a process of its own.

    Raises:
        SystemExit: it failed.
    """
    done = subprocess.run([sys.executable, __file__, "--here", task, *values], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"{task} failed")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def answers(path: Path) -> tuple[list[tuple[str, str]], list[float]]:
    """(query, example) ids in order, and their scores."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [(row["query_id"], row["example_id"]) for row in rows], [row["score"] for row in rows]


def attributions(work: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The scan under both budgets, whether the answers agree, and the command itself."""
    store, queries = str(work / "bounded.store"), str(work / "bounded_queries.jsonl")
    runs = [fresh("attribute", store, queries, memory, str(work / f"answers_{memory}.jsonl")) for memory in BUDGETS]
    command = [sys.executable, "-m", "headwater", "attribute", store, "--queries", queries, "--memory", BUDGETS[0]]
    whole = measured("attribute", [*command, "--top", str(TOP), "-o", str(work / "answers_cli.jsonl")], None, 1)
    found = [answers(work / f"answers_{memory}.jsonl") for memory in (*BUDGETS, "cli")]
    (ids, scores), others = found[0], found[1:]
    facts = {
        "same_ids": all(other == ids for other, _ in others),
        "largest_score_difference": max(abs(a - b) for _, s in others for a, b in zip(scores, s, strict=True)),
        "command_peak": whole.peak_bytes,
        "command_peak_allowed": runs[0]["planned"] + runs[0]["share"],
    }
    return runs, facts


def ingestions(work: Path) -> list[dict[str, Any]]:
    """Ingestions of growing size."""
    runs = []
    for size in SIZES:
        store = work / f"bounded_{size}.store"
        shutil.rmtree(store, ignore_errors=True)
        runs.append(fresh("ingest", str(work / f"bounded_{size}.jsonl"), str(work / "tiny"), str(store)))
        shutil.rmtree(store)
    return runs


def commands(work: Path) -> dict[str, Measured]:
    """The commands whose output grows, each refused and run, in a process of its own."""
    memory_commands.make(work)
    cases = memory_commands.cases(work)
    return {name: measured_command(case.warm, case.command, case.budget) for name, case in cases.items()}


def show_commands(runs: dict[str, Measured]) -> None:
    """Print a line per command."""
    print(f"{'command':<26}{'refused':>10}{'smallest':>10}{'budget':>10}{'measured':>10}{'share':>8}")
    for name, run in runs.items():
        print(f"{name:<26}" + "".join(f"{size / 1e6:>8.1f}MB" for size in (run.refusal, run.smallest, run.budget, run.peak))
              + f"{run.share / 1e6:>6.0f}MB{'' if run.peak <= run.budget else '  EXCEEDED'}")  # fmt: skip


def show(runs: list[dict[str, Any]], facts: dict[str, Any]) -> None:
    """Print the table and the facts."""
    print(f"{'run':<26}{'rows':>9}{'planned':>10}{'measured':>10}{'share':>8}{'wall s':>8}{'CPU s':>8}{'MB/s':>8}")
    for r in runs:
        print(f"{r['run']:<26}{r['rows']:>9,}{r['planned'] / 1e6:>8.0f}MB{r['measured'] / 1e6:>8.0f}MB"
              f"{r['share'] / 1e6:>6.0f}MB{r['seconds']:>8.1f}{r['cpu_seconds']:>8.1f}"
              f"{r['bytes_per_second'] / 1e6:>8.0f}")  # fmt: skip
    for name, value in facts.items():
        print(
            f"{name.replace('_', ' ')}: {value / 1e6:.0f}MB" if "peak" in name else f"{name.replace('_', ' ')}: {value}"
        )


def main() -> None:
    """Parse, run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=WORK, help="folder for the store, the model and the results")
    parser.add_argument("--rows", type=int, default=250_000, help="rows of the synthetic store")
    parser.add_argument("--keep", action="store_true", help="keep the synthetic store")
    parser.add_argument("--here", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        tasks = {"attribute": attribute_here, "ingest": ingest_here, "make": make_here}
        print(json.dumps(tasks[options.here[0]](*options.here[1:])))
        return
    work: Path = options.out.resolve()
    work.mkdir(parents=True, exist_ok=True)
    needed, free = options.rows * 25_000 + 10**9, shutil.disk_usage(work).free
    if free < needed:
        raise SystemExit(f"{work} has {free / 1e9:.1f} GB left, this needs {needed / 1e9:.1f}: see --rows, --out")
    made = fresh("make", str(work), str(options.rows))
    print(f"store of {options.rows:,} rows written in {made['seconds']:.0f} s")
    runs, facts = attributions(work)
    if not options.keep:
        shutil.rmtree(work / "bounded.store")
    runs += ingestions(work)
    facts["ingest_peak_growth"] = runs[-1]["measured"] - runs[-len(SIZES)]["measured"]
    show(runs, facts)
    measurements = commands(work)
    show_commands(measurements)
    grown = {name: asdict(run) for name, run in measurements.items()}
    (work / "bounded_memory.json").write_text(
        json.dumps({"machine": machine.describe(), "runs": runs, "commands": grown, **facts}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
