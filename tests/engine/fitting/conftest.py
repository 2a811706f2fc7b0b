"""Fixtures of fits: texts with a store that is fitted, and fits of several models and seeds."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from running import done
from small import save_model, write_corpus
from small_fits import QUICK, options, short


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, a corpus, queries, a store of them, fitted."""
    folder = tmp_path_factory.mktemp("texts")
    save_model(folder / "model")
    write_corpus(folder / "corpus.jsonl", short(60))
    write_corpus(folder / "queries.jsonl", short(3, seed=9))
    done(
        "ingest",
        folder / "corpus.jsonl",
        "--store",
        folder / "S",
        "--model",
        folder / "model",
        "--method",
        "repsim",
        "--max-length",
        "32",
    )
    done("fit", folder / "S", *options(QUICK))
    return folder


@pytest.fixture(scope="module")
def checkpoints(texts: Path) -> Path:
    """A store B with a fit of each of three models, and of the store's own model under two more seeds."""
    for seed, name in enumerate(("early", "late"), 5):
        save_model(texts / name, seed=seed)
    shutil.copytree(texts / "S", texts / "B")
    shutil.rmtree(texts / "B/methods/stride")
    lasso = QUICK | {"solver": "lasso", "regularization": 0.5}  # sparse, so that there are ties
    done("fit", texts / "B", *options(lasso), "--bases", f"{texts / 'model'},{texts / 'early'},{texts / 'late'}")
    for seed in (7, 8):
        words = [
            part
            for name, value in (lasso | {"seed": seed}).items()
            for part in ("--set", f"stride@{seed}.{name}", value)
        ]
        done("fit", texts / "B", "--method", f"stride@{seed}", *words)
    return texts
