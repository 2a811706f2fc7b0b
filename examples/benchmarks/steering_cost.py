"""What STRIDE costs beside per-example gradients of the same corpus, and from how many examples on it is the cheaper one.

    python examples/benchmarks/steering_cost.py --out /scratch

Three models, texts of 128 tokens, one thread, whole commands; of each method two or three runs are taken, whose differences
leave starting and loading out. Gradients (`logra`, `trak`) cost so much an example; STRIDE's fit costs a pass an example, and
steps that do not know how many examples there are. So the cost of a corpus of any size follows from what is measured here, on
corpora of some hundred texts and with few operators and steps (`--subsets`, and 2 and 6 updates), since all three are linear in
their counts; `--whole` measures one fit of all steps to see that it is so.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # of the commands
os.environ["MKL_NUM_THREADS"] = "1"
os.environ["NUMBA_NUM_THREADS"] = "1"

import machine
from beside_bergson import make_corpus, make_model

TOKENS, SUBSETS, UPDATES, CHECKED, DEGREE, MEMBERS = 128, 1000, 150, 50, 10, 32
SIZES = {
    "64 × 5, V 512": (64, 5, 512, 256),
    "256 × 4, V 4,096": (256, 4, 4096, 128),
    "512 × 6, V 50,304": (512, 6, 50304, 40),
}
"""Width, layers, vocabulary; texts of the smaller corpus, the larger has four times as many."""
SCALES = (10_000, 100_000, 1_000_000)


def ingested(count: int, method: str, settings: Sequence[str], model: Path, work: Path) -> machine.Usage:
    """A store of so many texts, with a method's rows."""
    shutil.rmtree(work / "S", ignore_errors=True)
    words = ["ingest", str(model / f"{count}.jsonl"), "--store", str(work / "S"), "--model", str(model)]
    return machine.run([*machine.headwater(), *words, "--max-length", str(TOKENS), "--method", method, *settings], work)


def gradient_cost(method: str, few: int, model: Path, work: Path) -> dict[str, float]:
    """CPU seconds of an example, and the peak."""
    small, large = (ingested(count, method, (), model, work) for count in (few, 4 * few))
    return {"example": (large.cpu_seconds - small.cpu_seconds) / (3 * few), "peak": large.peak_bytes}


def fitted(subsets: int, updates: int, work: Path) -> machine.Usage:
    """A fit to the store that is there."""
    shutil.rmtree(work / "S/methods/stride", ignore_errors=True)
    settings = {"subsets": subsets, "updates": updates, "checked": 0}
    options = [part for name, value in settings.items() for part in ("--set", f"stride.{name}", str(value))]
    return machine.run([*machine.headwater(), "fit", str(work / "S"), *options], work)


def stride_cost(subsets: int, few: int, model: Path, work: Path) -> dict[str, float]:
    """CPU seconds of an example, the store's own pass counted, and of an operator's step; and the peak of the longest fit."""
    whole = ingested(4 * few, "repsim", (), model, work).cpu_seconds
    large, longer = fitted(subsets, 2, work), fitted(subsets, 6, work)
    part = ingested(few, "repsim", (), model, work).cpu_seconds
    small = fitted(subsets, 2, work)
    return {"example": max(0.0, whole + large.cpu_seconds - part - small.cpu_seconds) / (3 * few),
            "step": (longer.cpu_seconds - large.cpu_seconds) / (4 * subsets), "peak": longer.peak_bytes}  # fmt: skip


def query_cost(subsets: int, few: int, model: Path, work: Path) -> float:
    """CPU seconds of a query and an operator, of the fit that is there."""
    fitted(subsets, 2, work)
    taken = []
    for count in (few, 4 * few):
        asked = ["attribute", str(work / "S"), "--method", "stride", "--queries", str(model / f"{count}.jsonl")]
        taken.append(machine.run([*machine.headwater(), *asked, "-o", str(work / "out.csv")], work).cpu_seconds)
    return max(0.0, taken[1] - taken[0]) / (3 * few * subsets)


def total(one: dict[str, float], rows: int) -> float:
    """CPU seconds of a corpus, of STRIDE with its defaults."""
    return rows * one["example"] + one.get("step", 0.0) * UPDATES * (SUBSETS + CHECKED)


def run(names: Sequence[str], subsets: int, whole: bool, work: Path) -> dict[str, dict[str, Any]]:
    """Every model, every method."""
    found = {}
    for name in names:
        hidden, layers, vocabulary, few = SIZES[name]
        model = work / f"{hidden}-{layers}-{vocabulary}"
        make_model(model, hidden, layers, vocabulary)
        for count in (few, 4 * few):
            make_corpus(model / f"{count}.jsonl", model, count, TOKENS)
        one: dict[str, Any] = {method: gradient_cost(method, few, model, work) for method in ("logra", "trak")}
        count = max(
            DEGREE, min(subsets, DEGREE * few // MEMBERS)
        )  # so that operators see as many rows of the smaller corpus
        one["stride"] = {**stride_cost(count, few, model, work), "query": query_cost(count, few, model, work)}
        if whole and name == names[0]:
            seconds = fitted(subsets, UPDATES, work).cpu_seconds - fitted(subsets, 2, work).cpu_seconds
            one["whole"] = seconds / (one["stride"]["step"] * count * (UPDATES - 2))
        found[name] = one
        print(name, json.dumps(one), flush=True)
    return found


def show(found: dict[str, dict[str, Any]]) -> str:
    """What each unit costs; and what whole corpora would."""
    units, corpora = [], []
    for name, one in found.items():
        stride, gradients = one["stride"], [one["logra"], one["trak"]]
        apart = one["logra"]["example"] - stride["example"]
        even = total(stride, 0) / apart if apart > 0 else float("inf")
        peaks = " / ".join(f"{each['peak'] / 1e6:.0f}" for each in (stride, *gradients))
        units.append([name, f"{1e3 * stride['example']:.1f}", f"{1e3 * stride['step']:.2f}", f"{1e6 * stride['query']:.0f}",
                      *(f"{1e3 * each['example']:.1f}" for each in gradients), peaks, f"{even:,.0f}"])  # fmt: skip
        corpora.append(
            [name, *(f"{total(stride, rows) / 3600:.1f} / {total(gradients[0], rows) / 3600:.1f}" for rows in SCALES)]
        )
    header = ["model", "STRIDE: ms an example", "ms an operator's step", "µs a query and operator", "LoGra: ms an example",
              "TRAK: ms an example", "peak MB, STRIDE / LoGra / TRAK", "cheaper than LoGra from … examples"]  # fmt: skip
    wide = ["CPU hours, STRIDE / LoGra", *(f"{rows:,} examples" for rows in SCALES)]
    told = "\n\n".join([machine.markdown(header, units), machine.markdown(wide, corpora)])
    ratio = next((one["whole"] for one in found.values() if "whole" in one), None)
    return told + (
        f"\n\nA fit of {UPDATES} steps took {ratio:.2f} times what follows from its first six." if ratio else ""
    )


def main(arguments: Sequence[str] | None = None) -> dict[str, dict[str, Any]]:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=machine.OUT)
    parser.add_argument("--models", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--subsets", type=int, default=40, help="operators of the fits that are measured")
    parser.add_argument("--whole", action="store_true", help="measure a fit of all steps, of the first model, too")
    given = parser.parse_args(arguments)
    work = given.out.resolve() / "steering_cost"
    work.mkdir(parents=True, exist_ok=True)
    found = run(given.models, given.subsets, given.whole, work)
    machine.save(given.out, "steering_cost", {"machine": machine.describe(), "found": found}, show(found))
    return found


if __name__ == "__main__":
    main()
