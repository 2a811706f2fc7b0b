"""Small fits of `stride`: quick settings, short texts, the command line's options; scores, arrays and hidden states of a fit."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from headwater.store.state import read_state
from running import done
from small import sentences

QUICK = {"subsets": 24, "degree": 3, "updates": 6, "checked": 5, "shared": 16, "members": 4, "rate": 0.05}


def short(count: int, seed: int = 0) -> list[str]:
    """Texts of some words, each one example."""
    return [text[:50] for text in sentences(count, seed)]


def options(settings: dict[str, Any]) -> list[str]:
    """Of the command line."""
    return [part for name, value in settings.items() for part in ("--set", f"stride.{name}", str(value))]


def scores_of(folder: Path, name: str = "S", queries: str = "queries.jsonl") -> np.ndarray:
    """(N, Q), by the command line."""
    shutil.rmtree(folder / "all.zarr", ignore_errors=True)
    done("attribute", folder / name, "--method", "stride", "--queries", queries if "/" in queries else folder / queries,
         "--all-scores", folder / "all.zarr")  # fmt: skip
    return np.array(zarr.open_group(str(folder / "all.zarr"), mode="r")["scores"])


def arrays_of(folder: Path) -> dict[str, np.ndarray] | None:
    """A state's arrays; None where there is none."""
    state = read_state(folder)
    return None if state is None else dict(state.arrays)


def hidden_of(store: Path, base: int = 0) -> Path:
    """Where the columns of a fit's hidden states lie."""
    return store / f"shards/0/hidden_states/stride.base{base}/columns"


def combined_of(folder: Path, name: str, *words: object, queries: str = "queries.jsonl") -> np.ndarray:
    """(N, Q) scores of several members together, by the command line."""
    shutil.rmtree(folder / "together.zarr", ignore_errors=True)
    files = queries if "," in queries else folder / queries
    done(
        "attribute",
        folder / name,
        "--method",
        "stride",
        "--queries",
        files,
        "--all-scores",
        folder / "together.zarr",
        *words,
    )
    return np.array(zarr.open_group(str(folder / "together.zarr"), mode="r")["scores"])
