"""Planted rows of models that were fine-tuned on prompts and completions tokenised joined, and apart.

The task is that of backdoor.py: 450 clean and 50 poisoned reviews, 30 queries with the trigger. For each way to tokenise them a
model is fine-tuned, and RISE with its defaults runs by the command line with `--boundary auto` and with each way by name.
Reported: the average precision of the poisoned rows, for three seeds; chance is 0.10.

    python examples/benchmarks/token_boundary.py
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import backdoor
import machine
import numpy as np

TRAINED, READ = ("joined", "apart"), ("auto", "joined", "apart")
SIZES = (450, 50, 30)


def one_seed(data: Path, seed: int, sizes: Sequence[int], work: Path) -> dict[tuple[str, str], float]:
    """(trained, read) → average precision."""
    task, precisions = backdoor.draw(data, seed, sizes), {}
    for trained in TRAINED:
        training = backdoor.Training("completion", 3, 1e-3, 8, apart=trained == "apart")
        loss = backdoor.fine_tune(data / backdoor.MODEL, task.rows, training, seed, work / trained)
        print(f"seed {seed}: fine-tuned {trained} to a loss of {loss:.3f}", flush=True)
        for read in READ:
            place = work / f"{trained}-{read}"
            backdoor.write(task, place)
            variant = backdoor.Variant(read, (), boundary=read)
            precisions[trained, read] = backdoor.rise(work / trained, task, variant, seed, place).precision
            print(f"seed {seed}: trained {trained}, read {read}: {precisions[trained, read]:.3f}", flush=True)
    return precisions


def main(arguments: Sequence[str] | None = None) -> dict[int, dict[tuple[str, str], float]]:
    """Run, print, write; returns the precisions of each seed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", help="folder of the real data [../shared/data beside the checkout]")
    parser.add_argument("--out", type=Path, default=machine.OUT, help="where tables and work go")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--sizes", type=int, nargs=3, default=SIZES, metavar=("CLEAN", "POISONED", "QUERIES"))
    options = parser.parse_args(arguments)
    about = machine.describe()
    data = machine.data_folder(options.data, backdoor.ROWS, backdoor.MODEL)
    options.out.mkdir(parents=True, exist_ok=True)
    precisions = {}
    for seed in options.seeds:
        with tempfile.TemporaryDirectory(prefix="boundary-", dir=options.out) as work:
            precisions[seed] = one_seed(data, seed, options.sizes, Path(work))
    rows = []
    for trained, read in precisions[options.seeds[0]]:
        own = [precisions[seed][trained, read] for seed in options.seeds]
        rows.append([trained, read, *(f"{precision:.3f}" for precision in [*own, float(np.mean(own))])])
    table = machine.markdown(["fine-tuned", "--boundary", *(f"seed {seed}" for seed in options.seeds), "mean"], rows)
    machine.save(options.out, "token_boundary", {"machine": about, "rows": rows}, table)
    return precisions


if __name__ == "__main__":
    main()
