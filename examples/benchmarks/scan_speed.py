"""How fast the engine scans, beside the ceilings of the machine and what users would pick instead, in one run.

1. ceilings: the library's products
2. the engine over a store of 8 GB in 1 GB, k = 100: `readinto` of its files, reading alone, Q = 1, 64 and 1000, warm and cold
3. the same rows in FAISS (flat, 16 and 8 bits, in RAM and memory-mapped), a torch loop over a memmap, dask over the Zarr store,
   bergson's Attributor (with --bergson PYTHON, an interpreter that has it)
4. 100 queries over a million rows of 8,192 sign bits
5. time against rows, 10⁵ to 10⁷, and against queries, 1 to 1000

    python examples/benchmarks/scan_speed.py --out /scratch                 # 20 GB of disk, a quarter of an hour
    python examples/benchmarks/scan_speed.py --rows 100000 --only engine

The machine may be shared: every figure is the best of `--rounds`, and only ratios within a run mean anything.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import machine
import numpy as np
import rivals
import stores

DEPTH, K, REQUEST = 4096, 100, 1 << 20
MEMORY = "1GB"
ASKED = (1, 64, 1000)
RESCORED = 1000
SIGNS = "8,192 signs, 1,000 rescored"
HELD = "held in RAM"
STATES = ("warm", "cold")


def taken(run: Callable[[], object], rounds: int, before: Callable[[], None] = lambda: None) -> tuple[float, float]:
    """(wall, CPU) seconds of the fastest of some rounds."""
    found = []
    for _ in range(rounds):
        before()
        wall, cpu = time.perf_counter(), time.process_time()
        run()
        found.append((time.perf_counter() - wall, time.process_time() - cpu))
    return min(found)


def read_all(files: Sequence[Path]) -> Callable[[], None]:
    """Every byte of the files into one buffer of `REQUEST` bytes."""

    def run() -> None:
        buffer = np.empty(REQUEST, np.uint8)
        for file in files:
            with file.open("rb", buffering=0) as opened:
                while opened.readinto(buffer.data):
                    pass

    return run


def ceilings(rounds: int) -> list[dict[str, Any]]:
    """Operations a second of the library's products; what reading is worth is measured beside each scan."""
    import torch

    lines = []
    rows = torch.randn(8192, DEPTH)
    for count in (64, 1000):
        matrix = torch.randn(count, DEPTH)
        wall, _ = taken(lambda matrix=matrix: rows @ matrix.T, 3 * rounds)
        lines.append(
            {"what": f"float32 product, Q = {count}", "per_second": 8192 * DEPTH * count / wall, "unit": "MAC/s"}
        )
    small = (rows * 30).clamp(-127, 127).to(torch.int8)[:1024]
    matrix = torch.ones(DEPTH, 64, dtype=torch.int8)
    wall, _ = taken(lambda: torch._int_mm(small, matrix), rounds)
    lines.append(
        {"what": "int8 product (torch._int_mm), Q = 64", "per_second": 1024 * DEPTH * 64 / wall, "unit": "MAC/s"}
    )
    return lines


def engine(
    stored: Any,
    rounds: int,
    label: str,
    asked: Sequence[int] = ASKED,
    states: Sequence[str] = STATES,
    small: Any = None,
) -> list[dict[str, Any]]:
    """Reading alone, then scans, warm and cold; each in blocks that the budget gives.

    With `small`, a form of the rows: searches in two stages, the second over `stored`.
    """
    files = [] if HELD in states else [f for rows in (stored, small) if rows for f in _scanned(rows)]
    lines = []
    for count in asked if small else (0, *asked):
        for state in states:
            if state == "cold" and count == 1000:
                continue  # bound by the product
            forget = (lambda: stores.forget(files)) if state == "cold" else _still
            told = f"{label}, {state}, " + (f"Q = {count}" if count else "reading alone")
            if state != HELD and not small:  # in turn, for how pages lie in the cache changes what a copy costs
                wall, cpu = taken(read_all(files), rounds, forget)
                lines.append(_line(f"readinto, before {told}", stored, 0, wall, cpu))
            wall, cpu = taken(_asking(stored, small, count), rounds, forget)
            lines.append(_line(told, stored, count, wall, cpu))
    return lines


def _scanned(stored: Any) -> list[Path]:
    return [file for part in stored.precisions["c"].scanned for file in stores.chunk_files(stored, part)]


def _asking(stored: Any, small: Any, count: int) -> Callable[[], object]:
    """One scan or search for so many queries, or a scan that only reads."""
    from headwater.engine.arrays.scan.scan_loop import scan
    from headwater.engine.arrays.scan.scorers import scorer_of
    from headwater.engine.arrays.scan.stored_rows import first_plan_within_budget, scan_shapes
    from headwater.engine.arrays.scan.top_k import top_k
    from headwater.engine.arrays.scan.two_stage import CompressedColumn, SearchDepth, two_stage
    from headwater.engine.runtime.memory import Plan, parse_bytes
    from headwater.engine.runtime.run import SILENT_STAGE

    scanned = small or stored
    plans = ((scanned.scan_plan(max(1, count), RESCORED if small else K, s), s) for s in scan_shapes(scanned))
    _, shape = first_plan_within_budget(plans, Plan(()), parse_bytes(MEMORY))
    if not count:
        return lambda: scan(stored.scanned("c"), shape, lambda: _nothing, SILENT_STAGE)
    matrix = stores.queries(count, stored.precisions["c"].depth)
    if small:
        return lambda: two_stage(
            CompressedColumn(small, stored, "c"), matrix, SearchDepth(K, RESCORED), shape, SILENT_STAGE
        )
    return lambda: top_k(stored.scanned("c"), scorer_of(stored.precisions["c"], matrix), K, shape, SILENT_STAGE)


def _line(what: str, stored: Any, count: int, wall: float, cpu: float) -> dict[str, Any]:
    size = sum(reader.column.row_bytes for reader in stored.scanned("c")) * stored.rows
    return {"what": what, "queries": count, "seconds": wall, "cpu_seconds": cpu, "rows_per_second": stored.rows / wall,
            "bytes_per_second": size / wall,
            "macs_per_second": stored.rows * count * stored.precisions["c"].depth / wall}  # fmt: skip


def _still() -> None:
    """Before a round for which nothing is to be done."""


def ours(few: Any, rounds: int, asked: Sequence[int]) -> list[dict[str, Any]]:
    """The engine over the rows that rivals have, in files and held in memory."""
    signs = stores.signs_of(few)
    lines = engine(few, rounds, "headwater int8", asked)
    lines += engine(few, rounds, f"headwater {SIGNS}", asked, small=signs)
    few.cache("c")
    signs.cache("c")
    lines += engine(few, rounds, "headwater int8", asked, (HELD,))
    return lines + engine(few, rounds, f"headwater {SIGNS}", asked, (HELD,), small=signs)


def _nothing(rows: object) -> None:
    """A worker that does nothing."""


def here(task: str, *words: str) -> None:
    """In a fresh process: one scan, and its peak memory over what was there before it."""
    from headwater.engine.arrays.scan.scan_loop import scan
    from headwater.engine.arrays.scan.scorers import scorer_of
    from headwater.engine.arrays.scan.stored_rows import first_plan_within_budget, scan_shapes
    from headwater.engine.arrays.scan.top_k import TopKWorker, top_k
    from headwater.engine.runtime.memory import Plan, parse_bytes, peak_bytes, reset_peak, resident_bytes
    from headwater.engine.runtime.run import SILENT_STAGE

    path, rows, depth, precision, count, memory = words
    stored = stores.fill(Path(path), int(rows), int(depth), precision)
    matrix = stores.queries(int(count), int(depth))
    shapes = scan_shapes(stored)
    plan, shape = first_plan_within_budget(
        ((stored.scan_plan(len(matrix), K, s), s) for s in shapes), Plan(()), parse_bytes(memory)
    )
    scorer = scorer_of(stored.precisions["c"], matrix[:7])
    scan(stored.scanned("c"), shape, lambda: TopKWorker(scorer, K), SILENT_STAGE, stop=64)  # compiles
    reset_peak()
    before, wall, cpu = resident_bytes(), time.perf_counter(), time.process_time()
    top_k(stored.scanned("c"), scorer_of(stored.precisions["c"], matrix), K, shape, SILENT_STAGE)
    found = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu, "planned": plan.total,
             "measured": peak_bytes() - before, "rows": int(rows), "queries": int(count), "precision": precision,
             "resident": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}  # fmt: skip
    print(json.dumps(found))


def fresh(path: Path, rows: int, depth: int, precision: str, count: int, memory: str) -> dict[str, Any]:
    """:func:`here` in a process of its own."""
    words = [
        sys.executable,
        __file__,
        "--here",
        "scan",
        str(path),
        str(rows),
        str(depth),
        precision,
        str(count),
        memory,
    ]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def scaling(work: Path, most: int) -> list[dict[str, Any]]:
    """Seconds and peak memory over rows, at 64 queries, then over queries; rows of 256 int8."""
    lines = []
    for rows in (10**5, 10**6, 10**7):
        if rows <= most:
            lines.append(fresh(work / f"n{rows}", rows, 256, "int8", 64, "256MB"))
    rows = min(most, 10**6)
    lines += [fresh(work / f"n{rows}", rows, 256, "int8", count, "256MB") for count in (1, 10, 100, 1000)]
    return lines


def show(found: dict[str, Any]) -> str:
    """All tables."""
    parts = []
    if "ceilings" in found:
        rows = [[f["what"], f"{f['per_second'] / 1e9:,.2f} G{f['unit']}"] for f in found["ceilings"]]
        parts.append(machine.markdown(["ceiling", "figure"], rows))
    for key in ("engine", "rivals"):
        if key in found:
            rows = [[f["what"], f"{f['rows_per_second']:,.0f}", f"{f['bytes_per_second'] / 1e9:.2f}",
                     f"{f['macs_per_second'] / 1e9:.1f}", f"{f['cpu_seconds']:.1f}"] for f in found[key]]  # fmt: skip
            parts.append(machine.markdown([f"{key}", "rows/s", "GB/s", "GMAC/s", "CPU s"], rows))
    for key in ("signs", "scaling"):
        if key in found:
            rows = [[f"{f['rows']:,} rows, {f['queries']} queries, {f['precision']}", f"{f['seconds']:.2f}",
                     f"{f['cpu_seconds']:.2f}", f"{f['planned'] / 1e6:.0f}", f"{f['measured'] / 1e6:.0f}"]
                    for f in found[key]]  # fmt: skip
            parts.append(machine.markdown([key, "s", "CPU s", "planned MB", "measured MB"], rows))
    return "\n\n".join(parts)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Run, print, write; returns what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=machine.OUT, help="where stores and tables go")
    parser.add_argument("--rows", type=int, default=2_000_000, help="rows of 4,096 int8 in the large store")
    parser.add_argument("--few", type=int, default=131_072, help="rows that all rivals hold in RAM")
    parser.add_argument("--asked", type=int, nargs="*", default=list(ASKED), help="numbers of queries")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", nargs="*", default=["ceilings", "engine", "rivals", "signs", "scaling"])
    parser.add_argument("--bergson", metavar="PYTHON", help="interpreter that has bergson")
    parser.add_argument("--here", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.here:
        here(*given.here)
        return {}
    work: Path = given.out.resolve() / "scan"
    work.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {"machine": machine.describe()}
    if {"ceilings", "engine"} & {*given.only}:
        large = stores.fill(work / "large", given.rows, DEPTH, "int8")
        os.sync()
        if "ceilings" in given.only:
            found["ceilings"] = ceilings(given.rounds)
        if "engine" in given.only:
            found["engine"] = engine(large, given.rounds, "int8", given.asked)
            found["engine"] += engine(large, given.rounds, SIGNS, given.asked, small=stores.signs_of(large))
            halves = stores.fill(work / "half", given.few, DEPTH, "float16")
            found["engine"] += engine(halves, given.rounds, "float16", given.asked)
    if "rivals" in given.only:
        found["rivals"] = ours(stores.fill(work / "few", given.few, DEPTH, "int8"), given.rounds, given.asked)
        found["rivals"] += rivals.measure(work, given.few, DEPTH, K, given.asked, given.rounds, given.bergson)
    if "signs" in given.only:
        found["signs"] = [fresh(work / "signs", min(given.rows, 10**6), DEPTH, "sign", 100, "256MB") for _ in range(2)]
    if "scaling" in given.only:
        found["scaling"] = scaling(work, 5 * given.rows)
    machine.save(given.out, "scan_speed", found, show(found))
    return found


if __name__ == "__main__":
    main()
