"""What users would pick instead of the engine's scan, over the same rows: FAISS, torch over a memmap, dask over Zarr, bergson.

Each is used as its documentation says, with all cores, and timed without what it does once (building its index). What is not
installed is left out, with a line that says so. Knows nothing of headwater but the rows of `stores.py`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import stores

LONGEST = 120.0
"""Seconds that a measurement may be expected to take; others are left out, and the table says so."""


def measure(
    work: Path, rows: int, depth: int, k: int, asked: Sequence[int], rounds: int, bergson: str | None
) -> list[dict[str, Any]]:
    """Lines of the table."""
    flat = _flat_file(work / "rows.f32", rows, depth)
    lines: list[dict[str, Any]] = []
    lines += _torch(flat, rows, depth, k, asked, rounds)
    lines += _dask(work, flat, rows, depth, k, rounds)
    lines += _faiss(work, flat, rows, depth, k, asked, rounds)
    if bergson:
        lines += _bergson(bergson, work, flat, rows, depth, k, asked)
    return lines


def _flat_file(path: Path, rows: int, depth: int) -> Path:
    """All rows as float32 in one file."""
    if not path.exists() or path.stat().st_size != 4 * rows * depth:
        out = np.memmap(path, np.float32, "w+", shape=(rows, depth))
        drawn = stores.pool(depth)
        for number, start in enumerate(range(0, rows, stores.POOL)):
            count = min(stores.POOL, rows - start)
            out[start : start + count] = np.roll(drawn, 37 * number, axis=1)[:count]
        out.flush()
    return path


def _line(
    what: str,
    run: Callable[[np.ndarray], object],
    count: int,
    rows: int,
    depth: int,
    rounds: int,
    cold: Path | None = None,
) -> dict[str, Any]:
    matrix = stores.queries(count, depth)
    found = []
    for _ in range(rounds):
        if cold:
            stores.forget([cold])
        wall, cpu = time.perf_counter(), time.process_time()
        run(matrix)
        found.append((time.perf_counter() - wall, time.process_time() - cpu))
    wall, cpu = min(found)
    return _told(f"{what}, Q = {count}", count, rows, depth, wall, cpu)


def _told(what: str, count: int, rows: int, depth: int, wall: float, cpu: float) -> dict[str, Any]:
    """A line; bytes as float32, whatever the rival holds."""
    return {
        "what": what, "queries": count, "seconds": wall, "cpu_seconds": cpu, "rows_per_second": rows / wall,
        "bytes_per_second": 4 * rows * depth / wall, "macs_per_second": rows * depth * count / wall,
    }  # fmt: skip


def _torch(flat: Path, rows: int, depth: int, k: int, asked: Sequence[int], rounds: int) -> list[dict[str, Any]]:
    import torch

    def run(matrix: np.ndarray) -> None:
        mapped = np.memmap(flat, np.float32, "c", shape=(rows, depth))
        queries, best = torch.from_numpy(matrix), None
        for start in range(0, rows, 8192):
            scores = queries @ torch.from_numpy(mapped[start : start + 8192]).T
            found = torch.topk(scores, k)
            both = (found.values, found.indices + start)
            best = both if best is None else tuple(torch.cat(pair, 1) for pair in zip(best, both, strict=True))
            order = torch.topk(best[0], k)
            best = (order.values, torch.gather(best[1], 1, order.indices))

    lines = [_line("torch over a memmap, warm", run, count, rows, depth, rounds) for count in asked]
    return lines + [_line("torch over a memmap, cold", run, count, rows, depth, 1, flat) for count in asked[:2]]


def _dask(work: Path, flat: Path, rows: int, depth: int, k: int, rounds: int) -> list[dict[str, Any]]:
    try:
        import dask.array as da
    except ImportError:
        print("dask is not installed: left out", file=sys.stderr)
        return []
    import zarr

    path = work / "rows.zarr"
    if not path.exists():
        array = zarr.create_array(
            str(path), shape=(rows, depth), chunks=(2048, depth), dtype="float32", compressors=None
        )
        mapped = np.memmap(flat, np.float32, "r", shape=(rows, depth))
        for start in range(0, rows, 2048):
            array[start : start + 2048] = mapped[start : start + 2048]

    def run(matrix: np.ndarray) -> None:
        scores = da.from_array(matrix, chunks=matrix.shape) @ da.from_zarr(str(path)).T
        da.argtopk(scores, k, axis=1).compute(scheduler="threads")

    lines = [_line("dask over the Zarr store, warm", run, count, rows, depth, 1) for count in (1, 64)]
    files = [file for file in path.rglob("*") if file.is_file()]
    stores.forget(files)
    return [*lines, _line("dask over the Zarr store, cold", run, 64, rows, depth, 1)]


def _faiss(
    work: Path, flat: Path, rows: int, depth: int, k: int, asked: Sequence[int], rounds: int
) -> list[dict[str, Any]]:
    try:
        import faiss
    except ImportError:
        print("faiss is not installed: left out", file=sys.stderr)
        return []
    kinds = {
        "flat": lambda: faiss.IndexFlatIP(depth),
        "fp16": lambda: faiss.IndexScalarQuantizer(depth, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT),
        "8 bit": lambda: faiss.IndexScalarQuantizer(depth, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT),
    }
    mapped, lines = np.memmap(flat, np.float32, "r", shape=(rows, depth)), []
    for name, build in kinds.items():
        path = work / f"{name.replace(' ', '')}.faiss"
        index = build()
        index.train(np.ascontiguousarray(mapped[:8192]))
        for start in range(0, rows, 8192):
            index.add(np.ascontiguousarray(mapped[start : start + 8192]))
        lines += _asked_within(f"FAISS {name} in RAM", index, rows, depth, k, asked, rounds)
        faiss.write_index(index, str(path))
        del index
        for count in (1, 64) if name == "flat" else (1,):
            lines.append(_line(f"FAISS {name} memory-mapped, cold", _mapped(path, k), count, rows, depth, 1, path))
        path.unlink()
    return lines


def _mapped(path: Path, k: int) -> Callable[[np.ndarray], object]:
    """Open an index over its file, and ask: pages that are mapped cannot be forgotten, so each run maps anew."""
    import faiss

    return lambda matrix: faiss.read_index(str(path), faiss.IO_FLAG_MMAP).search(matrix, k)


def _asked_within(
    what: str, index: Any, rows: int, depth: int, k: int, asked: Sequence[int], rounds: int
) -> list[dict[str, Any]]:
    """Of an index: numbers of queries whose time, from that of the fewer ones, is not too long."""
    lines: list[dict[str, Any]] = []
    for count in asked:
        expected = lines[-1]["seconds"] * count / lines[-1]["queries"] if lines else 0.0
        if len(lines) > 1 and expected > LONGEST:
            print(f"{what}, Q = {count}: left out, it would take {expected:.0f} s", file=sys.stderr)
            continue
        several = rounds if expected < LONGEST / 4 else 1
        lines.append(_line(what, lambda m: index.search(m, k), count, rows, depth, several))
    return lines


_ATTRIBUTOR = """
import json, resource, sys, time
import numpy as np, torch
from pathlib import Path
from bergson.data import create_index
from bergson.gradients import GradientProcessor
from bergson import Attributor
root, flat, asked, rows, depth, k = Path(sys.argv[1]), sys.argv[2], sys.argv[3], *map(int, sys.argv[4:7])
if not (root / "gradients.bin").exists():
    out = create_index(root, rows, {"m": depth}, np.float32)
    given = np.memmap(flat, np.float32, "r", shape=(rows, depth))
    for start in range(0, rows, 8192):
        out[start:start + 8192] = given[start:start + 8192]
    out.flush()
    GradientProcessor().save(root)
    del out, given
begun = time.perf_counter()
attributor = Attributor(root)
loaded = time.perf_counter() - begun
found = []
for file in asked.split(","):
    matrix = torch.from_numpy(np.load(file))
    wall, cpu = time.perf_counter(), time.process_time()
    attributor.search({"m": matrix}, k)
    found.append([len(matrix), time.perf_counter() - wall, time.process_time() - cpu])
print(json.dumps([loaded, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, found]))
"""


def _bergson(
    python: str, work: Path, flat: Path, rows: int, depth: int, k: int, asked: Sequence[int]
) -> list[dict[str, Any]]:
    files = []
    for count in asked:
        files.append(str(work / f"asked{count}.npy"))
        np.save(files[-1], stores.queries(count, depth))
    words = [str(work / "bergson"), str(flat), ",".join(files), str(rows), str(depth), str(k)]
    done = subprocess.run([python, "-c", _ATTRIBUTOR, *words], stdout=subprocess.PIPE, text=True, check=True)
    loaded, peak, found = json.loads(done.stdout.splitlines()[-1])
    about = f"bergson Attributor in RAM (loaded in {loaded:.1f} s, peak {peak / 1e9:.1f} GB)"
    return [_told(f"{about}, Q = {count}", count, rows, depth, wall, cpu) for count, wall, cpu in found]
