"""Streams that agree in their first records are distinguished by their lengths: in ingestions, and as tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from headwater.engine.data import python_data
from headwater.engine.data.python_data import data_of
from headwater.engine.ingest.ingest_job import IngestJob, prepare
from headwater.engine.models.language_model import ModelChoice
from headwater.engine.results.example_table import Examples
from headwater.engine.selection.linear_features import LinearFeatures
from headwater.engine.selection.targets import TaskFile, read_targets
from headwater.store.errors import StoreMismatch
from headwater.store.feature_store import EXAMPLES, FeatureStore
from small import save_model, sentences

TEXTS = sentences(30)
datasets.disable_progress_bars()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(autouse=True)
def short_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(python_data, "STREAM_SAMPLE", 4)


def stream(count: int) -> Any:
    whole = datasets.Dataset.from_dict({"text": TEXTS}).to_iterable_dataset()
    (data,) = data_of(whole.take(count), texts=False)
    return data


def ingest(
    count: int, store: Path, model: Path, methods: tuple[str, ...] = ("repsim",), **changes: Any
) -> FeatureStore:
    settings: dict[str, Any] = {name: {} for name in methods}
    job = IngestJob([stream(count)], str(store), ModelChoice(str(model), device="cpu"), settings, **changes)
    prepare(job).ingest()
    return FeatureStore.open(str(store))


def texts_of(store: FeatureStore) -> list[str]:
    return Examples(store).strings("text", np.arange(store.rows(EXAMPLES)))


def test_what_follows_in_a_longer_stream_is_appended(model: Path, tmp_path: Path) -> None:
    store = ingest(10, tmp_path / "S", model)
    assert [source["size"] for source in store.provenance["sources"]] == [10]
    assert len(texts_of(ingest(10, tmp_path / "S", model, append=True))) == 10
    with pytest.raises(StoreMismatch, match=r"goes on after the 10 records that .* was made from\nhint: --append"):
        ingest(20, tmp_path / "S", model)
    with pytest.raises(StoreMismatch, match=r"has fewer records than when it was ingested into .*: 10 then"):
        ingest(9, tmp_path / "S", model, append=True)
    for count in (20, 25, 25):
        store = ingest(count, tmp_path / "S", model, append=True)
        assert texts_of(store) == TEXTS[:count]
    assert [source["size"] for source in store.provenance["sources"]] == [10, 10, 5]
    assert len({source["name"] for source in store.provenance["sources"]}) == 3
    assert texts_of(ingest(25, tmp_path / "S", model, methods=("repsim", "rise"))) == TEXTS[:25]
    assert FeatureStore.open(str(tmp_path / "S")).rows("methods/rise") == 25


def test_a_longer_task_is_read_again(model: Path, tmp_path: Path) -> None:
    features = LinearFeatures(ingest(10, tmp_path / "S", model, methods=("grasp",)), "grasp")
    counts = [read_targets(features, TaskFile(stream(count))).counts for count in (6, 12, 6)]
    assert counts == [(6,), (12,), (6,)]
