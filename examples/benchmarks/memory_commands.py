"""Commands whose results, groups, subsets or texts grow, each with a tiny input for its warm-up: their inputs, and their words.

The stores are of arrays, so that no model is loaded: vectors, vectors with texts of 60,000 characters, and hidden states with a
head for the method that is fitted. Knows nothing of how a command is measured.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROWS, QUERIES, GROUPS, SUBSETS, TOP = 120_000, 64, 60_000, 300, 10_000
TEXTS, CHARACTERS = 1100, 60_000
STATES, WIDTH, CLASSES = 60_000, 32, 50


@dataclass(frozen=True, slots=True)
class Case:
    """One command."""

    warm: Sequence[str]
    """Its words for the tiny input."""
    command: Sequence[str]
    """Its words, without --memory."""
    budget: str = ""
    """The budget of the run; default: the smallest that works."""


def _vectors(path: Path, rows: int, characters: int = 0) -> None:
    draw = np.random.default_rng(rows)
    arrays = {"vectors": draw.normal(size=(rows, 8)).astype(np.float32), "id": np.array([f"e{i}" for i in range(rows)])}
    if characters:
        arrays["text"] = np.array([f"{row:08d}" + "ab d" * (characters // 4) for row in range(rows)])
    np.savez(path, **arrays)


def _states(path: Path, rows: int) -> None:
    draw = np.random.default_rng(rows)
    weight = np.random.default_rng(9).normal(size=(CLASSES, WIDTH)).astype(np.float32)
    hidden = draw.normal(size=(rows, WIDTH)).astype(np.float32)
    np.savez(path, hidden=hidden, labels=draw.integers(0, CLASSES, rows), weight=weight)


def make(work: Path) -> None:
    """Write all inputs into a folder, and ingest the stores."""
    sizes = {"tiny": 40, "wide": ROWS, "few": 2, "many": QUERIES}
    for name, rows in sizes.items():
        _vectors(work / f"{name}.npz", rows)
    _vectors(work / "short.npz", 40, 8), _vectors(work / "long.npz", TEXTS, CHARACTERS)
    _states(work / "little.npz", 64), _states(work / "large.npz", STATES), _states(work / "asked.npz", 8)
    for name, subsets in (("tiny", 5), ("wide", SUBSETS)):
        rows, draw = sizes[name], np.random.default_rng(0)
        np.save(work / f"{name}.masks.npy", draw.random((subsets, rows)) < 0.5)
        np.save(work / f"{name}.outcomes.npy", draw.random((subsets, 1)))
        np.savez(work / f"{name}.groups.npz", id=[f"e{row}" for row in range(rows)], author=np.arange(rows) % GROUPS)
    methods = {
        "tiny": "vectors",
        "wide": "vectors",
        "short": "vectors",
        "long": "vectors",
        "little": "repsim",
        "large": "repsim",
    }
    for name, method in methods.items():
        words = ["ingest", str(work / f"{name}.npz"), "--store", str(work / f"{name}.S"), "--method", method]
        subprocess.run([sys.executable, "-m", "headwater", *words], check=True, stderr=subprocess.DEVNULL)


def cases(work: Path) -> Mapping[str, Case]:
    """Name → command, of the inputs that :func:`make` wrote."""

    def vectors(store: str, queries: str) -> dict[str, list[str]]:
        queried = ["--method", "vectors", "--queries", f"{work / queries}.npz"]
        masks = ["--subsets", f"{work / store}.masks.npy"]
        out = str(work / f"out.{store}")
        first = [f"{work / store}.S", *queried]
        groups = ["--by", "author", "--columns", f"{work / store}.groups.npz"]
        return {
            "attribute --by": ["attribute", *first, *groups, "-o", f"{out}.jsonl"],
            "attribute --top": ["attribute", *first, "--top", str(TOP), "-o", f"{out}.parquet"],
            "attribute, long texts": ["attribute", *first, "--top", "10", "-o", f"{out}.parquet"],
            "value -o": ["value", *first, "-o", f"{out}.parquet"],
            "predict": ["predict", *first, *masks],
            "calibrate": ["calibrate", *first, *masks, "--outcomes", f"{work / store}.outcomes.npy"],
            "select": ["select", *first, "--count", "20", "-o", f"{out}.jsonl"],
            "self-influence -o": ["self-influence", first[0], "--method", "vectors", "-o", f"{out}.parquet"],
        }

    def fitted(store: str) -> dict[str, list[str]]:
        settings = {"subsets": "200", "updates": "2", "checked": "50"} if store == "large" else {
            "subsets": "12", "degree": "3", "updates": "1", "checked": "0"}  # fmt: skip
        chosen = [word for name, value in settings.items() for word in ("--set", f"stride.{name}", value)]
        first = [f"{work / store}.S", "--method", "stride"]
        asked = ["--queries", str(work / "asked.npz"), "-o", str(work / f"out.{store}.jsonl")]
        return {"fit": ["fit", *first, *chosen, "--again"], "attribute, recovered": ["attribute", *first, *asked]}

    warm, large = vectors("tiny", "few"), vectors("wide", "many")
    warm["attribute, long texts"] = vectors("short", "few")["attribute, long texts"]
    large["attribute, long texts"] = vectors("long", "many")["attribute, long texts"]
    budgets = {"attribute --top": "150MB", "select": "64MB"}  # with the smallest parts and blocks they take minutes
    warm, large = {**warm, **fitted("little")}, {**large, **fitted("large")}
    return {name: Case(warm[name], words, budgets.get(name, "")) for name, words in large.items()}
