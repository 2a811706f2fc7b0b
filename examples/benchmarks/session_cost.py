"""What the first and the second question to an open store cost in Python, and what a command costs that asks the same.

    python examples/benchmarks/session_cost.py --model MODEL --corpus CORPUS --out /scratch

One open store loads its model at the first question that needs it, and keeps it. A command loads it each time.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import headwater as hw
import machine

QUESTIONS = ("What do you think of the river?", "Why is the stone silver?", "Tell me of the garden.")


def seconds_of(questions: Sequence[str], store: hw.Store) -> list[float]:
    """Wall seconds of each question, one after the other."""
    times = []
    for question in questions:
        start = time.perf_counter()
        store.attribute(question, method="rise", top=5)
        times.append(time.perf_counter() - start)
    return times


def main(arguments: Sequence[str] | None = None) -> dict[str, float]:
    """Print the figures; returns them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder, hub id or GGUF file")
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--out", type=Path, required=True)
    chosen = parser.parse_args(arguments)
    path = chosen.out / "S"
    shutil.rmtree(path, ignore_errors=True)
    hw.ingest(chosen.corpus, path, model=chosen.model, progress=False).close()
    start = time.perf_counter()
    store = hw.open(path, progress=False)
    opening = time.perf_counter() - start
    first, *later = seconds_of(QUESTIONS, store)
    command = machine.run(
        [*machine.headwater(), "attribute", str(path), "--query", QUESTIONS[0], "--top", "5"], chosen.out
    )
    figures = {
        "opening the store": opening, "first question": first, "second question": later[0], "third question": later[1],
        "a command that asks one": command.seconds,
    }  # fmt: skip
    print(machine.described(machine.describe()))
    for name, seconds in figures.items():
        print(f"{name:<24} {seconds:8.3f} s")
    return figures


if __name__ == "__main__":
    main()
