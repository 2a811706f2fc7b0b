"""Runs cases in processes of their own, with a limit for each, and counts what came of them. Knows no case's content."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from fuzz.cases import Case
from fuzz.outcomes import HANG, OUTCOMES, TRACEBACK

START_SECONDS, CASE_SECONDS = 600, 120
TESTS = Path(__file__).resolve().parents[1]


@contextmanager
def environment(folder: Path) -> Iterator[None]:
    """What the processes inherit: the tests and the world's own method on Python's path, one thread each, no network."""
    path = os.pathsep.join(filter(None, [str(TESTS), str(folder / "site"), os.environ.get("PYTHONPATH", "")]))
    settings = {
        "PYTHONPATH": path,
        "PYTHONHASHSEED": "0",
        "OMP_NUM_THREADS": "1",
        "NUMBA_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "NUMBA_THREADING_LAYER": "workqueue",
    }
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


class Worker:
    """A process that runs cases in a folder; it is started again when a case has ended it or hangs."""

    def __init__(self, folder: Path) -> None:
        """`folder`: where the world is, or will be built."""
        self.folder = folder
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start the process, which builds the world if it is not there."""
        with (self.folder / "worker.log").open("w") as log:
            command = [sys.executable, "-m", "fuzz.worker", str(self.folder)]
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )
        if self._line(START_SECONDS) != "ready\n":
            raise RuntimeError(self._log())

    def run(self, part: str, seed: int) -> Case:
        """One case."""
        if self._process is None:
            self.start()
        assert self._process and self._process.stdin
        self._process.stdin.write(json.dumps([part, seed]) + "\n")
        self._process.stdin.flush()
        line = self._line(CASE_SECONDS)
        if line:
            return Case(**json.loads(line))
        code = self._process.poll()
        self.stop()
        return Case(
            part,
            seed,
            "?",
            "?",
            "?",
            HANG if code is None else TRACEBACK,
            f"the process ended with {code}: {self._log()}",
        )

    def stop(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _line(self, seconds: float) -> str:
        """The process's next line; '' if it ended, or none came in time."""
        assert self._process and self._process.stdout
        output: IO[str] = self._process.stdout
        ready, _, _ = select.select([output], [], [], seconds)
        return output.readline() if ready else ""

    def _log(self) -> str:
        return (self.folder / "worker.log").read_text("utf-8", "replace")[-3000:]


def table(cases: list[Case], by: str) -> str:
    """Counts of outcomes, one line for each value of a field of cases."""
    counts = Counter((getattr(case, by), case.outcome) for case in cases)
    outcomes = [name for name in OUTCOMES if any(outcome == name for _, outcome in counts)]
    names = sorted({name for name, _ in counts})
    width = max(len(name) for name in [*names, by])
    lines = [f"{by:<{width}} " + " ".join(f"{name:>11}" for name in (*outcomes, "all"))]
    for name in [*names, "all"]:
        row = [
            sum(n for (key, end), n in counts.items() if end == outcome and name in (key, "all"))
            for outcome in outcomes
        ]
        lines.append(f"{name:<{width}} " + " ".join(f"{n:>11,}" for n in (*row, sum(row))))
    return "\n".join(lines)
