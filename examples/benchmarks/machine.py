"""The machine that a benchmark runs on: what it is, where its data lie, what a command takes on it, where reports go.

`run` measures one command with the kernel's own counters. A child's peak memory starts at its parent's (Linux keeps the
high-water mark across exec), so a parent that holds torch would be measured in place of the command; the command is
therefore started by this very file as a small process of its own:

    python examples/benchmarks/machine.py usage.json headwater verify S

Knows nothing of headwater but its name, and loads nothing heavy.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parents[1]
DATA = CHECKOUT.parent / "shared" / "data"
OUT = HERE / "out"
"""Ignored by git."""
_PACKAGES = ("headwater", "torch", "transformers", "numpy", "numba", "zarr")


def describe() -> dict[str, Any]:
    """CPU, cores, memory, versions, commit, threads asked for, load and date, as JSON values."""
    from importlib.metadata import PackageNotFoundError, version

    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "absent"
    return {
        "cpu": _field("/proc/cpuinfo", "model name") or platform.processor() or platform.machine(),
        "cores": _cores(),
        "memory_gib": round(int((_field("/proc/meminfo", "MemTotal") or "0").split()[0]) / 2**20, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **versions,
        "commit": _commit(),
        "threads": os.environ.get("OMP_NUM_THREADS", "default"),
        "load": round(os.getloadavg()[0], 2),
        "date": time.strftime("%Y-%m-%d"),
    }


def described(machine: dict[str, Any]) -> str:
    """One line of :func:`describe`."""
    return (
        f"{machine['cpu']}, {machine['cores']} cores (load {machine['load']} at the start, OMP_NUM_THREADS "
        f"{machine['threads']}), {machine['memory_gib']} GiB; Python {machine['python']}, torch {machine['torch']}, "
        f"headwater {machine['headwater']} at {machine['commit']}; {machine['date']}"
    )


def _field(path: str, name: str) -> str:
    """The first `name: value` of a /proc file; empty where there is none."""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _commit() -> str:
    """Short hash of the checkout, with + where tracked files differ from it."""
    git = ["git", "-C", str(CHECKOUT)]
    try:
        told = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
        dirty = subprocess.run([*git, "diff", "--quiet", "HEAD"], capture_output=True).returncode
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return told.stdout.strip() + "+" * bool(dirty)


def data_folder(given: str | None, *needed: str) -> Path:
    """The folder of real data; ends the program in one line where it, or a part that is needed, is absent."""
    folder = Path(given) if given else DATA
    absent = [str(folder / part) for part in needed if not (folder / part).exists()]
    if absent:
        raise SystemExit(f"no {absent[0]}: this benchmark needs the real data; --data DIR says where they are")
    return folder


def records(path: Path) -> list[dict[str, Any]]:
    """Of a file of JSON lines."""
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@dataclass(frozen=True, slots=True)
class Usage:
    """What one command took."""

    seconds: float
    """Wall clock."""
    cpu_seconds: float
    """User and system, all threads."""
    peak_bytes: int
    """Largest resident set."""
    told: str
    """What it wrote to stderr."""


def run(command: Sequence[str], folder: Path) -> Usage:
    """Run a command to its end and measure it; its output goes to files in `folder`.

    Raises:
        SystemExit: it failed; with the end of its stderr.
    """
    folder.mkdir(parents=True, exist_ok=True)
    usage, out, err = (folder / name for name in (".usage.json", ".stdout", ".stderr"))
    with out.open("wb") as stdout, err.open("wb") as stderr:
        launcher = [sys.executable, "-I", "-S", str(Path(__file__).resolve()), str(usage.resolve()), *command]
        code = subprocess.run(launcher, stdout=stdout, stderr=stderr).returncode
    told = err.read_text(errors="replace")
    if code:
        raise SystemExit(f"{' '.join(command)}: exit {code}\n{told[-2000:]}")
    return Usage(**json.loads(usage.read_text()), told=told)


def _launch(usage: str, command: Sequence[str]) -> int:
    """Be the small parent: start, wait, write the counters."""
    start = time.monotonic()
    pid = os.posix_spawnp(command[0], command, os.environ)
    _, status, used = os.wait4(pid, 0)
    unit = 1 if sys.platform == "darwin" else 1024
    told = {
        "seconds": time.monotonic() - start,
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "peak_bytes": used.ru_maxrss * unit,
    }
    Path(usage).write_text(json.dumps(told))
    return os.waitstatus_to_exitcode(status)


def headwater() -> list[str]:
    """The real command line, as this interpreter has it."""
    return [sys.executable, "-m", "headwater"]


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table: the first column flush left, the others right."""
    lines = [list(header), ["---"] + ["---:"] * (len(header) - 1), *map(list, rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def save(out: Path, name: str, results: dict[str, Any], text: str) -> None:
    """Write `name`.json and `name`.md, and print the latter; `results["machine"]` is what :func:`describe` gave."""
    out.mkdir(parents=True, exist_ok=True)
    text = f"{text}\n\n{described(results['machine'])}\n"
    (out / f"{name}.json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    (out / f"{name}.md").write_text(text)
    print(text)


if __name__ == "__main__":
    sys.exit(_launch(sys.argv[1], sys.argv[2:]))
