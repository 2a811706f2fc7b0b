"""bergson's own gradient index, asked by bergson and by headwater: equal answers, and what each takes.

The index is bergson's, built by its command line of 2,000 texts (4,096 float32 numbers each), and then made longer by its rows
again with noise, in its own format, so that there is something to time. bergson asks it through its `Attributor`; headwater
takes it in once (`ingest --method vectors`) and asks its store. Both answer 64 queries, an index of bergson's too.

    python -m venv B && B/bin/pip install bergson==2.5.1
    python examples/benchmarks/bergson_store.py --bergson B/bin/python --out /scratch
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import machine
import numpy as np

TEXTS, TOKENS, QUERIES, TOP = 2000, 128, 64, 100
THEIRS = f"""
import sys, time, numpy, torch
from bergson import Attributor
from bergson.data import load_module_gradients
begun = time.monotonic()
asked = Attributor(sys.argv[1])
loaded = time.monotonic()
queries = load_module_gradients(sys.argv[2])
scores, rows = asked.search({{name: torch.tensor(numpy.array(queries[name])) for name in queries}}, {TOP})
print(loaded - begun, time.monotonic() - loaded, file=sys.stderr)
numpy.savez(sys.argv[3], scores=scores.numpy(), rows=rows.numpy())
"""
OURS = f"""
import sys, time, numpy
from headwater.engine.attribution.open_session import open_session
from headwater.engine.attribution.query_options import QueryOptions
begun = time.monotonic()
question = open_session(sys.argv[1], "vectors", sys.argv[2], QueryOptions(top={TOP}))
loaded = time.monotonic()
found = question.attribute()
print(loaded - begun, time.monotonic() - loaded, file=sys.stderr)
numpy.savez(sys.argv[3], scores=found.scores, rows=found.rows)
"""


def build(python: str, work: Path) -> tuple[Path, Path]:
    """The indexes of the corpus and of the queries, by bergson's command line."""
    if not (work / "small.jsonl").exists():
        subprocess.run(
            [sys.executable, str(machine.HERE / "beside_bergson.py"), "--out", str(work), "--make", str(work)],
            check=True,
        )
    lines = (work / "small.jsonl").read_text().splitlines(keepends=True)
    found = []
    for name, part in (("corpus", lines), ("queries", lines[-QUERIES:])):
        text, index = work / f"{name}.jsonl", work / f"{name}.index"
        text.write_text("".join(part))
        if not (index / "gradients.bin").exists():
            told = ["--model", str(work / "small"), "--dataset", str(text), "--projection_dim", "16"]
            machine.run(
                [python, "-m", "bergson", "build", str(index), *told, "--token_batch_size", "2048", "--truncation"],
                work,
            )
        found.append(index)
    return found[0], found[1]


def lengthened(index: Path, rows: int) -> Path:
    """The index with rows again and again, each time with noise of a tenth of their size."""
    longer = index.with_name(f"{index.stem}-{rows}.index")
    if (longer / "info.json").exists():
        return longer
    shutil.rmtree(longer, ignore_errors=True)
    shutil.copytree(index, longer)
    (longer / "info.json").unlink()
    info = json.loads((index / "info.json").read_text())
    width = sum(info["grad_sizes"].values())
    own = np.fromfile(index / "gradients.bin", np.float32).reshape(-1, width)
    chance = np.random.default_rng(0)
    with (longer / "gradients.bin").open("wb") as file:
        for first in range(0, rows, len(own)):
            part = own[: rows - first]
            noise = chance.standard_normal(part.shape, np.float32) * (0.1 * part.std() * (first > 0))
            file.write((part + noise).tobytes())
    (longer / "info.json").write_text(json.dumps({**info, "num_grads": rows, "num_items": rows}))
    return longer


def asked(command: Sequence[str], folder: Path, out: Path) -> dict[str, Any]:
    """One process that answers; the best of three runs, the files in the page cache."""
    runs = []
    for _ in range(3):
        used = machine.run([*command, str(out)], folder)
        load, search = map(float, used.told.splitlines()[-1].split())
        runs.append({"load": load, "search": search, "whole": used.seconds, "peak": used.peak_bytes})
    return min(runs, key=lambda one: one["load"] + one["search"])


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Build, ask, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bergson", metavar="PYTHON", required=True, help="interpreter that has bergson 2.5.1")
    parser.add_argument("--out", type=Path, default=machine.OUT)
    parser.add_argument("--rows", type=int, nargs="+", default=[TEXTS, 131_072])
    given = parser.parse_args(arguments)
    os.environ |= {"HF_HUB_OFFLINE": "1"}
    work = given.out.resolve() / "bergson"
    work.mkdir(parents=True, exist_ok=True)
    corpus, queries = build(given.bergson, work)
    found, rows = [], []
    for count in given.rows:
        index, store = lengthened(corpus, count), work / "store"
        shutil.rmtree(store, ignore_errors=True)
        taken = machine.run(
            [*machine.headwater(), "ingest", str(index), "--store", str(store), "--method", "vectors"], work
        )
        (work / "theirs.py").write_text(THEIRS)
        (work / "ours.py").write_text(OURS)
        theirs = asked([given.bergson, str(work / "theirs.py"), str(index), str(queries)], work, work / "theirs.npz")
        ours = asked([sys.executable, str(work / "ours.py"), str(store), str(queries)], work, work / "ours.npz")
        a, b = np.load(work / "theirs.npz"), np.load(work / "ours.npz")
        apart = float(np.abs(a["scores"] - b["scores"]).max() / np.abs(a["scores"]).max())
        found.append({"rows": count, "ingest": taken.seconds, "theirs": theirs, "ours": ours, "apart": apart,
                      "same": float((a["rows"] == b["rows"]).mean())})  # fmt: skip
        for name, one in (("bergson's Attributor", theirs), ("headwater", ours)):
            rows.append(
                [f"{count:,} rows, {name}", f"{one['load']:.2f}", f"{one['search']:.2f}", f"{one['peak'] / 1e6:,.0f}"]
            )
        rows.append([f"{count:,} rows: taken in once", f"{taken.seconds:.0f}", "", f"{taken.peak_bytes / 1e6:,.0f}"])
    text = machine.markdown([f"{QUERIES} queries, the best {TOP}", "load s", "search s", "peak MB"], rows)
    for one in found:
        text += f"\n\n{one['rows']:,} rows: scores differ by {one['apart']:.1e} of the largest; {one['same']:.4f} of the answers "
        text += "are the same rows in the same order."
    machine.save(given.out, "bergson_store", {"machine": machine.describe(), "found": found}, text)
    return {"found": found}


if __name__ == "__main__":
    main()
