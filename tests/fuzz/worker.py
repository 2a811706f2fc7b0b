"""The process that runs cases one after the other. Run as `python -m fuzz.worker FOLDER`: it builds the world there unless it is
there already, then reads one JSON line per case, [part, seed], and answers with one. Knows no table."""

from __future__ import annotations

import json
import os
import resource
import shutil
import sys
import time
import warnings
from pathlib import Path

for _threads in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):  # read at import: a second thread only spins for tiny arrays
    os.environ[_threads] = "1"
os.environ["HF_HUB_OFFLINE"], os.environ["TOKENIZERS_PARALLELISM"] = "1", "false"

MEMORY = 12 << 30
"""Bytes of address space: a file that makes a command take more is an error, not the end of the machine."""


def serve(folder: Path) -> None:
    """Build or reopen the world in a folder, and answer requests until there are no more."""
    from fuzz.budgets import budgeted
    from fuzz.cases import Runner, mutated
    from fuzz.hostile import hostile
    from fuzz.snapshot import Snapshot
    from fuzz.world import build

    work, pristine = folder / "work", folder / "pristine"
    if not pristine.exists():
        work.mkdir(parents=True)
        build(work)
        shutil.copytree(work, folder / "copying", symlinks=True)
        (folder / "copying").rename(pristine)
    os.chdir(work)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    warnings.simplefilter("always")
    runner = Runner(Snapshot(work, pristine))
    parts = {"mutations": mutated, "hostile": hostile, "budgets": budgeted}
    print("ready", file=sys.__stdout__, flush=True)
    for line in sys.stdin:
        part, seed = json.loads(line)
        start = time.monotonic()
        case = parts[part](runner, seed)
        case.seconds = time.monotonic() - start
        print(case.to_json(), file=sys.__stdout__, flush=True)


if __name__ == "__main__":
    serve(Path(sys.argv[1]).resolve())
