"""Sets of examples at size: the Gram matrix, the utility of 256 subsets, and the exact choice of 10,000 of a million, in 1 GB.

    python examples/benchmarks/choice_speed.py --out /scratch

Rows of 1,024 float16 numbers with a spectrum like that of GRASP's features of real text (more than half of the squares in 8
directions, nine tenths in about 65), in topics, of uneven length, one in ten a longer or shorter copy of another; taken in by
`headwater ingest` as vectors made elsewhere. Every figure is of the whole command with its own memory, but for the Gram matrix,
which is measured beside the library's product of tiles that lie in memory as float32. The choice is checked against brute force
on the smallest store, in a budget that keeps no row that was read.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import machine
import numpy as np

DEPTH, TOPICS, PART, SUBSETS, OF = 1024, 400, 10_000, 256, 5000
CHECKED = 1000
"""Rows that brute force chooses, of the smallest store."""
CHECKED_MEMORY = "160MB"


def rows(count: int, part: int) -> np.ndarray:
    """(count, DEPTH) float16, a part of the corpus."""
    scale = (1 + np.arange(DEPTH) / 6) ** -0.9
    topics = np.random.default_rng(0).standard_normal((TOPICS, DEPTH), np.float32)
    chance = np.random.default_rng(part + 1)
    own = topics[chance.integers(0, TOPICS, count)] + chance.standard_normal((count, DEPTH), np.float32)
    own[:, 0] += 1.5  # what all text has in common
    length = np.exp(0.35 * chance.standard_normal((count, 1)))
    copied = chance.integers(0, count, (2, count // 10))
    own[copied[0]] = own[copied[1]]
    return (own * scale * length).astype(np.float16)


def made(work: Path, count: int) -> tuple[Path, machine.Usage | None]:
    """A store of so many rows, and what taking them in took; one that is there is used."""
    import zarr

    store, source = work / f"{count}.store", work / f"{count}.zarr"
    if not store.exists():
        group = zarr.create_group(source, overwrite=True)
        vectors = group.create_array(
            "vectors", shape=(count, DEPTH), chunks=(PART, DEPTH), dtype="float16", compressors=None
        )
        for part, start in enumerate(range(0, count, PART)):
            vectors[start : start + PART] = rows(PART, part)
        words = [
            "ingest",
            str(source),
            "--store",
            f"{store}.part",
            "--method",
            "vectors",
            "--set",
            "vectors.precision",
            "float16",
        ]
        used = machine.run([*machine.headwater(), *words], work)
        Path(f"{store}.part").rename(store)
        return store, used
    return store, None


def gram_beside(store: Path) -> dict[str, float]:
    """Seconds of ΦᵀΦ over the store, and of the library's product of as many rows in memory."""
    import torch
    from headwater.engine.arrays.moments import gram
    from headwater.engine.arrays.scan.scan_loop import shapes
    from headwater.engine.runtime.run import SILENT_STAGE
    from headwater.engine.selection.linear_features import LinearFeatures
    from headwater.store.feature_store import FeatureStore

    features = LinearFeatures(FeatureStore.open(str(store)), "vectors")
    readers = features.stored.scanned(features.column)
    tile, total = torch.from_numpy(rows(PART, 0).astype(np.float32)), torch.zeros(DEPTH, DEPTH)

    def library() -> None:
        for _ in range(features.rows // PART):
            total.addmm_(tile.T, tile)

    both = {
        "headwater": lambda: gram(readers, features.form, shapes(readers, 1)[0], SILENT_STAGE),
        "library": library,
    }
    times: dict[str, list[float]] = {name: [] for name in both}
    for _ in range(3):  # in turn, since the machine is shared
        for name, function in both.items():
            times[name].append(_timed(function))
    return {name: float(np.median(taken)) for name, taken in times.items()}


def one_pass(store: Path) -> float:
    """Seconds of one product of every row with a vector, the least that a choice by a pass a pick takes at each."""
    from headwater.engine.arrays.greedy.row_cache import RowCache, RowSource
    from headwater.engine.arrays.scan.scan_loop import cores, shapes
    from headwater.engine.selection.linear_features import LinearFeatures
    from headwater.store.feature_store import FeatureStore

    features = LinearFeatures(FeatureStore.open(str(store)), "vectors")
    readers = features.stored.scanned(features.column)
    kept, shape = RowCache(RowSource(readers, features.form), 0), shapes(readers, cores())[0]
    return float(np.median([_timed(lambda: kept.products(np.ones(DEPTH, np.float32), shape)) for _ in range(5)]))


def _timed(function: Callable[[], Any]) -> float:
    begun = time.monotonic()
    function()
    return time.monotonic() - begun


def target(work: Path) -> Path:
    """200 rows of many topics as a task."""
    file = work / "task.npz"
    np.savez(file, vectors=rows(PART, 10**6)[:200].astype(np.float32))
    return file


def predicted(store: Path, count: int, work: Path) -> machine.Usage:
    """`predict` of 256 subsets of 5,000 rows."""
    chance, file = np.random.default_rng(0), work / f"subsets-{count}.jsonl"
    with file.open("w") as out:
        for _ in range(SUBSETS):
            out.write(json.dumps({"rows": chance.integers(0, count, OF).tolist()}) + "\n")
    words = ["predict", str(store), "--queries", str(target(work)), "--method", "vectors", "--subsets", str(file)]
    return machine.run([*machine.headwater(), *words, "-o", str(work / "utilities.npy")], work)


def selected(store: Path, picks: int, memory: str, work: Path) -> tuple[machine.Usage, dict[str, Any], list[int]]:
    """`select`: what it took, what it tells, the rows."""
    out = work / "chosen.jsonl"
    words = [
        "select",
        str(store),
        "--queries",
        str(target(work)),
        "--method",
        "vectors",
        "--count",
        str(picks),
        "--memory",
        memory,
    ]
    used = machine.run([*machine.headwater(), *words, "-o", str(out), "--json"], work)
    chosen = [one["row"] for one in machine.records(out)]
    return used, json.loads((work / ".stdout").read_text()), chosen


def brute_force(store: Path, picks: int, work: Path) -> list[int]:
    """The same choice over all rows in memory, in float64, every gain anew for every row."""
    from headwater.engine.selection.linear_features import LinearFeatures
    from headwater.store.feature_store import FeatureStore

    features = LinearFeatures(FeatureStore.open(str(store)), "vectors")
    (reader,) = features.stored.open([features.column])
    phi = np.concatenate(
        [np.asarray(reader.gather(np.arange(at, at + PART)), float) for at in range(0, features.rows, PART)]
    )
    v, c = np.load(target(work))["vectors"].astype(float).mean(0), 1 / picks
    half, total, left, found = c / 2 * np.einsum("nd,nd->n", phi, phi), np.zeros(DEPTH), np.ones(len(phi), bool), []
    for _ in range(picks):
        gains = np.where(left, phi @ (v - c * total) - half, -np.inf)
        best = int(np.argmax(gains))
        found.append(best)
        left[best], total = False, total + phi[best]
    return found


def run(work: Path, sizes: Sequence[int], picks: int, memory: str) -> list[dict[str, Any]]:
    """Every size: take in, multiply, predict, choose."""
    found = []
    for count in sizes:
        store, taken = made(work, count)
        one: dict[str, Any] = {"rows": count, "ingest": taken and taken.seconds}
        one["gram"], one["pass"] = gram_beside(store), one_pass(store)
        used = predicted(store, count, work)
        one["predict"] = {"seconds": used.seconds, "peak": used.peak_bytes}
        if count == min(sizes):
            _, facts, chosen = selected(store, min(CHECKED, picks), CHECKED_MEMORY, work)
            expected = brute_force(store, min(CHECKED, picks), work)
            one["equal"] = chosen == expected
            one["checked"] = facts
        used, facts, _ = selected(store, min(picks, count // 10), memory, work)
        one["select"] = {"seconds": used.seconds, "cpu": used.cpu_seconds, "peak": used.peak_bytes, **facts}
        print(json.dumps(one), flush=True)
        found.append(one)
    return found


def show(found: Sequence[dict[str, Any]]) -> str:
    """A row a size."""
    table = []
    for one in found:
        pick, gram, sets = one["select"], one["gram"], one["predict"]
        fewer = pick["examples"] / (pick["passes"] + pick["fetched"] / one["rows"])
        table.append([
            f"{one['rows']:,}", f"{gram['headwater']:.1f} ({gram['headwater'] / gram['library']:.2f})",
            f"{sets['seconds']:.1f}; {sets['peak'] / 1e6:.0f}", f"{pick['examples']:,}",
            f"{pick['seconds']:.0f} ({one['pass'] * pick['examples']:.0f})",
            f"{pick['passes']} ({fewer:,.0f})", f"{pick['fetched']:,}", f"{pick['peak'] / 1e6:.0f}",
        ])  # fmt: skip
    header = [
        "rows",
        "Gram, s (of the library's)",
        "predict 256, s; MB",
        "chosen",
        "s (a pass a pick)",
        "passes (times fewer, fetched rows counted)",
        "fetched",
        "MB",
    ]
    checks = [
        f"{one['checked']['examples']:,} of {one['rows']:,} equal to brute force: {one['equal']}"
        for one in found
        if "equal" in one
    ]
    return machine.markdown(header, table) + "\n\n" + "\n".join(checks)


def main(arguments: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Make, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=machine.OUT)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000], help="multiples of 10,000")
    parser.add_argument("--picks", type=int, default=10_000)
    parser.add_argument("--memory", default="1GB")
    given = parser.parse_args(arguments)
    work = given.out.resolve() / "choice"
    work.mkdir(parents=True, exist_ok=True)
    found = run(work, given.rows, given.picks, given.memory)
    machine.save(given.out, "choice_speed", {"machine": machine.describe(), "found": found}, show(found))
    return found


if __name__ == "__main__":
    main()
