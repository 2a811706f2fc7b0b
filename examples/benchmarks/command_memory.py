"""Measures the memory of one command in a process of its own, above the interpreter's share: refused, and in the smallest budget.

    python examples/benchmarks/command_memory.py '{"warm": ["value", "tiny", …], "command": ["value", "S", …]}'

The process first runs the warm-up: the same command on a tiny input, which imports what the command imports, compiles its
kernels and starts its threads. Its resident memory then is the interpreter's share. Then the command is run with a budget in
which nothing works: its refusal must come before anything large is read, and names the smallest budget that works. With this
budget (or the one asked for) it is run again: the peak, less the share, must stay within it. Knows no command.
"""

from __future__ import annotations

import ctypes
import gc
import io
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

_SMALLEST = re.compile(r"smallest budget that works is (\S+)")
_OUTPUT = 2000  # last characters of a command's output that are shown


@dataclass(frozen=True, slots=True)
class Measured:
    """What a command took, refused and run."""

    refusal: int
    """Bytes above the interpreter's share at the peak of the refusal."""
    smallest: int
    """The smallest budget that works, as the refusal names it."""
    budget: int
    """The budget of the run."""
    peak: int
    """Bytes above the interpreter's share at the peak of the run."""
    share: int
    """The interpreter's share."""


def measured(warm: Sequence[object], command: Sequence[object], budget: str = "") -> Measured:
    """Run a command in a fresh process, after its warm-up there. `budget`: default is the smallest that works.

    Raises:
        SystemExit: the command failed, or the system does not report peaks.
    """
    task = json.dumps({"warm": list(map(str, warm)), "command": list(map(str, command)), "budget": budget})
    done = subprocess.run([sys.executable, str(Path(__file__).resolve()), task], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} was not measured:\n{done.stderr[-3000:]}")
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def _run(words: Sequence[str]) -> tuple[int, str]:
    """Run the command line in this process: exit status and the end of its output."""
    from headwater.cli import main

    code, output = 0, _Tail()
    with redirect_stdout(output), redirect_stderr(output):
        try:
            main.main(list(words), prog_name="headwater")
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
    return code, output.end


class _Tail(io.TextIOBase):
    """A text file of which only the end is kept."""

    def __init__(self) -> None:
        self.end = ""

    def write(self, text: str) -> int:
        self.end = (self.end + text)[-_OUTPUT:]
        return len(text)


def _peak(words: Sequence[str]) -> tuple[int, int, int, str]:
    """Run the command line: its peak above the resident memory before it, that memory, exit status, end of its output."""
    from headwater.engine.runtime.memory import peak_bytes, reset_peak, resident_bytes

    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # memory that was freed is not the interpreter's
    if not reset_peak():
        raise SystemExit("this system does not let a process forget its peak")
    share = resident_bytes()
    code, output = _run(words)
    return peak_bytes() - share, share, code, output


def _main() -> None:
    from headwater.engine.runtime.memory import parse_bytes

    task = json.loads(sys.argv[1])
    code, output = _run(task["warm"])
    if code:
        raise SystemExit(f"the warm-up failed: {output}")
    refusal, _, code, output = _peak([*task["command"], "--memory", "1B"])
    smallest = _SMALLEST.search(output)
    if code != 1 or not smallest:
        raise SystemExit(f"a budget of one byte was not refused: {output}")
    budget = task["budget"] or smallest[1]
    peak, share, code, output = _peak([*task["command"], "--memory", budget])
    if code:
        raise SystemExit(f"it failed with a budget of {budget}: {output}")
    print(json.dumps(asdict(Measured(refusal, parse_bytes(smallest[1]), parse_bytes(budget), peak, share))))


if __name__ == "__main__":
    _main()
