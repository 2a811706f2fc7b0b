"""Planted rows of models that were fine-tuned on prompts and completions tokenised joined, and apart.

The task is that of backdoor.py: 450 clean and 50 poisoned reviews, 30 queries with the trigger. For each way to tokenise them a
model is fine-tuned, and RISE runs by the command line: with its defaults and `--boundary auto` or each way by name, and with
`--set rise.floor 0.01` and auto. Reported: the average precision of the poisoned rows, for three seeds; chance is 0.10.

    python examples/benchmarks/token_boundary.py
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import backdoor
import machine
import numpy as np

TRAINED = ("joined", "apart")
READ = (
    backdoor.Variant("defaults", ()),
    backdoor.Variant("defaults", (), boundary="joined"),
    backdoor.Variant("defaults", (), boundary="apart"),
    backdoor.Variant("floor 0.01", ("floor=0.01",)),
)
SIZES = (450, 50, 30)


Precisions: TypeAlias = dict[tuple[str, str, str], float]
"""(how the model was trained, settings, boundary) → average precision."""


def one_seed(data: Path, seed: int, sizes: Sequence[int], work: Path) -> Precisions:
    """The precisions of one seed."""
    task, precisions = backdoor.draw(data, seed, sizes), {}
    for trained in TRAINED:
        training = backdoor.Training("completion", 3, 1e-3, 8, apart=trained == "apart")
        loss = backdoor.fine_tune(data / backdoor.MODEL, task.rows, training, seed, work / trained)
        print(f"seed {seed}: fine-tuned {trained} to a loss of {loss:.3f}", flush=True)
        for number, variant in enumerate(READ):
            place = work / f"{trained}-{number}"
            backdoor.write(task, place)
            precision = backdoor.rise(work / trained, task, variant, seed, place).precision
            precisions[trained, variant.name, variant.boundary] = precision
            print(
                f"seed {seed}: trained {trained}, {variant.name}, --boundary {variant.boundary}: {precision:.3f}",
                flush=True,
            )
    return precisions


def main(arguments: Sequence[str] | None = None) -> dict[int, Precisions]:
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
    for key in precisions[options.seeds[0]]:
        own = [precisions[seed][key] for seed in options.seeds]
        rows.append([*key, *(f"{precision:.3f}" for precision in [*own, float(np.mean(own))])])
    table = machine.markdown(
        ["fine-tuned", "RISE", "--boundary", *(f"seed {seed}" for seed in options.seeds), "mean"], rows
    )
    machine.save(options.out, "token_boundary", {"machine": about, "rows": rows}, table)
    return precisions


if __name__ == "__main__":
    main()
