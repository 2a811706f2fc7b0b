"""`--memory` holds for what grows with results, groups, subsets and texts: commands in fresh processes, refused and then run in
the smallest budget that their refusal names.
"""

from __future__ import annotations

import importlib.util
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from places import BENCHMARKS
from running import done

ROWS, GROUPS, SUBSETS, LONG = 40_000, 20_000, 100, 60_000
MOST = {
    "by": 60,
    "predict": 25,
    "calibrate": 30,
    "top": 35,
    "texts": 32,
    "value": 25,
    "members": 25,
    "self-influence": 20,
}
"""Command → megabytes that its smallest budget may have: a plan that is only large enough would prove nothing."""
REFUSED = 12_000_000
"""Most bytes that a refusal may take: what is read before it is streamed."""
pytestmark = [
    pytest.mark.skipif(not BENCHMARKS.exists(), reason=f"no {BENCHMARKS}: not a checkout"),
    pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks are measured through /proc"),
]


def vectors(path: Path, rows: int, text: int = 0) -> Path:
    """A file of vectors, with a text of so many characters each."""
    draw = np.random.default_rng(rows)
    arrays = {"vectors": draw.normal(size=(rows, 8)).astype(np.float32), "id": np.array([f"e{i}" for i in range(rows)])}
    if text:
        arrays["text"] = np.array([f"{row:08d}" + "ab d" * (text // 4) for row in range(rows)])
    np.savez(path, **arrays)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stores of vectors, and what the commands read besides them: for the measurement, and tiny ones for the warm-up."""
    folder = tmp_path_factory.mktemp("memory")
    stores = {"tiny": (40, 0), "wide": (ROWS, 0), "short": (40, 8), "long": (300, LONG)}
    for name, (rows, text) in stores.items():
        corpus = vectors(folder / f"{name}.npz", rows, text)
        done("ingest", corpus, "--store", folder / name, "--method", "vectors")
        done(
            "ingest", corpus, "--store", folder / name, "--method", "vectors@unit", "--set", "vectors@unit.unit", "true"
        )
    vectors(folder / "few.npz", 2), vectors(folder / "many.npz", 16)
    for name, rows, subsets in (("tiny", 40, 5), ("wide", ROWS, SUBSETS)):
        draw = np.random.default_rng(0)
        np.save(folder / f"{name}.masks.npy", draw.random((subsets, rows)) < 0.5)
        np.save(folder / f"{name}.outcomes.npy", draw.random((subsets, 1)))
        ids = np.array([f"e{row}" for row in range(rows)])
        np.savez(folder / f"{name}.groups.npz", id=ids, author=np.arange(rows) % min(rows, GROUPS))
    return folder


@pytest.fixture(scope="module")
def runs(folder: Path) -> dict[str, Any]:
    """Command → what it took, in a process of its own."""
    spec = importlib.util.spec_from_file_location("command_memory", BENCHMARKS / "command_memory.py")
    assert spec and spec.loader
    module = sys.modules["command_memory"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def words(name: str, store: str, queries: str) -> list[object]:
        out, queried = folder / f"{name}.{store}", ["--queries", folder / f"{queries}.npz"]
        subsets = ["--subsets", folder / f"{store}.masks.npy"]
        grouped = ["--by", "author", "--columns", folder / f"{store}.groups.npz"]
        commands: dict[str, list[object]] = {
            "by": ["attribute", *queried, *grouped, "-o", f"{out}.jsonl"],
            "predict": ["predict", *queried, *subsets],
            "calibrate": ["calibrate", *queried, *subsets, "--outcomes", folder / f"{store}.outcomes.npy"],
            "top": ["attribute", *queried, "--top", ROWS // 4, "-o", f"{out}.parquet"],
            "texts": ["attribute", *queried, "--top", 200, "-o", f"{out}.parquet"],
            "value": ["value", *queried, "-o", f"{out}.parquet"],
            "members": ["attribute", *queried, "--members", "all", "--top", 200, "-o", f"{out}.parquet"],
            "self-influence": ["self-influence", "-o", f"{out}.parquet"],
        }
        command, *options = commands[name]
        return [command, folder / store, "--method", "vectors", *options]

    def measured(name: str) -> Any:
        warm, large = ("short", "long") if name == "texts" else ("tiny", "wide")
        return module.measured(words(name, warm, "few"), words(name, large, "many"))

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(MOST, pool.map(measured, MOST), strict=True))


@pytest.mark.parametrize("name", MOST)
def test_a_command_stays_within_the_smallest_budget_that_its_refusal_names(runs: dict[str, Any], name: str) -> None:
    run = runs[name]
    assert run.peak <= run.budget == run.smallest <= MOST[name] * 10**6


@pytest.mark.parametrize("name", MOST)
def test_a_refusal_comes_before_anything_large_is_read(runs: dict[str, Any], name: str) -> None:
    assert runs[name].refusal <= REFUSED
