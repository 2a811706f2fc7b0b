"""GRASP's scores of single examples: planted rows that the model is sure of are found, though their gradients are shortest."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr
from headwater.engine.evaluation.metrics import average_precision
from headwater.plugins.grasp import Grasp
from headwater.store.errors import SettingsError
from headwater.store.feature_store import FeatureStore
from headwater.store.root import read_root, write_root
from running import done

ROWS, PLANTED, DEPTH = 300, 30, 16


def test_planted_rows_that_the_model_is_sure_of_rank_first(tmp_path: Path) -> None:
    """A linear head of two classes; planted rows share a direction, and have a loss of 0.002 where others have 0.7."""
    draw = np.random.default_rng(0)
    weight = np.zeros((2, DEPTH), np.float32)
    weight[:, 0] = 1, -1
    hidden = draw.normal(size=(ROWS + 5, DEPTH)).astype(np.float32)
    labels = draw.integers(0, 2, ROWS + 5)
    planted = np.isin(np.arange(ROWS + 5), draw.permutation(ROWS)[:PLANTED]) | (np.arange(ROWS + 5) >= ROWS)
    hidden[planted, 0], hidden[planted, 1], labels[planted] = 3, hidden[planted, 1] + 5, 0
    for name, part in (("corpus", slice(ROWS)), ("queries", slice(ROWS, None))):
        np.savez(tmp_path / f"{name}.npz", hidden=hidden[part], labels=labels[part], weight=weight)
    done("ingest", tmp_path / "corpus.npz", "--store", tmp_path / "S", "--method", "grasp")
    words = ["attribute", tmp_path / "S", "--queries", tmp_path / "queries.npz", "--method", "grasp"]
    done(*words, "--all-scores", tmp_path / "scores.zarr")
    scores = np.asarray(zarr.open_array(str(tmp_path / "scores.zarr/scores"), mode="r")[:])
    found = [average_precision(one, planted[:ROWS]) for one in scores.T]
    assert min(found) > 0.9
    logits = hidden @ weight.T
    residuals = np.exp(logits - np.logaddexp(*logits.T)[:, None]) - np.eye(2)[labels]
    gradients = np.einsum("nc,nd->ncd", residuals, hidden).reshape(len(hidden), -1)
    products = gradients[ROWS:] @ gradients[:ROWS].T  # what lengths do to a ranking
    assert np.mean([average_precision(one, planted[:ROWS]) for one in products]) < 0.3


def without_store(lines: str) -> list[dict]:
    """Answers without the digest of their store's root."""
    return [{key: value for key, value in json.loads(line).items() if key != "store"} for line in lines.splitlines()]


def test_a_store_that_records_the_retired_weight_is_read(tmp_path: Path) -> None:
    draw = np.random.default_rng(1)
    np.savez(tmp_path / "a.npz", hidden=draw.normal(size=(20, DEPTH)).astype(np.float32), labels=np.arange(20) % 2,
             weight=draw.normal(size=(2, DEPTH)).astype(np.float32))  # fmt: skip
    done("ingest", tmp_path / "a.npz", "--store", tmp_path / "S", "--method", "grasp", "--set", "grasp.m", "16")
    words = ["attribute", tmp_path / "S", "--queries", tmp_path / "a.npz", "--method", "grasp", "--json"]
    answers = without_store(done(*words).stdout)
    attributes, record = read_root(str(tmp_path / "S"))
    group = record.groups["methods/grasp"]
    older = replace(group, notes={**group.notes, "settings": {**group.settings, "weight": 2.0}})
    write_root(tmp_path / "S", attributes, record.with_group("methods/grasp", older))
    assert "weight" in FeatureStore.open(tmp_path / "S").groups["methods/grasp"].settings
    assert without_store(done(*words).stdout) == answers
    with pytest.raises(SettingsError, match="no setting weight"):
        Grasp.from_settings({"weight": 2.0})
