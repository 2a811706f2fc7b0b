"""What an ingestion that fails leaves: no store before the first row, and settings that the error's own advice may change."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from command_server import CommandServer
from headwater.engine.ingest.ingest_job import IngestJob, prepare
from headwater.engine.ingest.text_settings import TextSettings
from headwater.engine.models.language_model import ModelChoice
from headwater.store.errors import CorpusError, StoreBusy
from headwater.store.feature_store import FeatureStore
from headwater.store.rowless_store import is_unused
from running import done, headwater
from small import save_model, sentences, tree

LONG = {"prompt": " ".join(sentences(8)), "completion": " the sea"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"))


def corpus(path: Path, rows: int) -> Path:
    """A corpus whose last record is too long for 40 tokens."""
    records = [{"text": text} for text in sentences(rows, seed=1)]
    path.write_text("".join(json.dumps(record) + "\n" for record in [*records, LONG]))
    return path


def words(corpus: Path, store: Path, model: Path) -> list[object]:
    return ["ingest", corpus, "--store", store, "--model", model, "--commit-seconds", "0", "--max-length", "40"]


def test_an_ingestion_that_fails_before_the_first_row_leaves_nothing(model: Path, tmp_path: Path) -> None:
    common = words(corpus(tmp_path / "c.jsonl", 20), tmp_path / "S", model)
    failed = headwater(*common)
    assert failed.exit_code == 1 and "--truncate cuts the prompt's start" in failed.stderr
    assert sorted(place.name for place in tmp_path.iterdir()) == ["c.jsonl"]
    done(*common[:-1], "60", "--truncate", "--set", "rise.tau", 1)  # no setting of the failed run binds this one
    assert FeatureStore.open(tmp_path / "S").provenance["max_length"] == 60


def test_a_store_with_rows_takes_the_truncation_that_the_error_names(model: Path, tmp_path: Path) -> None:
    common = words(corpus(tmp_path / "c.jsonl", 600), tmp_path / "S", model)
    assert headwater(*common).exit_code == 1
    store = FeatureStore.open(tmp_path / "S")
    assert store.rows("examples") == 512 and not store.provenance["truncate"]
    done(*common, "--truncate")
    done(*words(tmp_path / "c.jsonl", tmp_path / "T", model), "--truncate")
    assert tree(tmp_path / "S") == tree(tmp_path / "T")
    assert FeatureStore.open(tmp_path / "S").provenance["truncate"] is True
    done(*common)  # the store's truncation is followed


def test_a_store_with_rows_of_other_settings_stays(model: Path, tmp_path: Path) -> None:
    common = words(corpus(tmp_path / "c.jsonl", 600), tmp_path / "S", model)
    assert headwater(*common).exit_code == 1
    refused = headwater(*common[:-1], "60")
    assert refused.exit_code == 1 and "max_length is 40 in the store, 60 in this run" in refused.stderr
    assert FeatureStore.open(tmp_path / "S").rows("examples") == 512


@pytest.mark.parametrize("setting", [{"rise": {"tau": 1.0}}, {"rise": {}}], ids=["method", "length"])
def test_a_run_whose_store_another_one_has_replaced_stops(model: Path, tmp_path: Path, setting: dict[str, Any]) -> None:
    path, store = corpus(tmp_path / "c.jsonl", 20), tmp_path / "S"
    text = TextSettings(max_length=60, truncate=True)
    first = prepare(IngestJob([str(path)], str(store), ModelChoice(str(model), "cpu"), {"rise": {}}, text)).open()
    length = ["60" if "tau" in setting["rise"] else "50"]
    options = [word for key, value in setting["rise"].items() for word in ("--set", f"rise.{key}", value)]
    done(*words(path, store, model)[:-1], *length, "--truncate", *options)
    whole = tree(store)
    with pytest.raises(StoreBusy, match="has replaced"):
        first.run()
    assert tree(store) == whole


def test_files_of_others_stay(model: Path, tmp_path: Path) -> None:
    path, store = corpus(tmp_path / "c.jsonl", 20), tmp_path / "S"
    settings = TextSettings(max_length=40)
    ingestion = prepare(
        IngestJob([str(path)], str(store), ModelChoice(str(model), "cpu"), {"rise": {}}, settings)
    ).open()
    (store / "notes").mkdir()
    (store / "notes/mine.txt").write_text("mine")
    with pytest.raises(CorpusError):
        ingestion.run()
    assert (store / "notes/mine.txt").read_text() == "mine"
    done(*words(path, store, model), "--truncate")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a forked child")
def test_a_store_killed_before_the_first_row_binds_no_later_run(model: Path, tmp_path: Path) -> None:
    path, store = corpus(tmp_path / "c.jsonl", 20), tmp_path / "S"
    common = [str(word) for word in words(path, store, model)]
    done(*words(path, tmp_path / "T", model), "--truncate")
    with CommandServer() as server:
        for moment in range(1, 40, 8):
            server.run(*common, "--set", "rise.tau", "1", below=store, killed_at=moment)
            if (store / "zarr.json").exists():
                assert is_unused(FeatureStore.open(store))
            ended = server.run(*common, "--truncate", below=store, killed_at=moment + 1)
            assert ended.code in (0, -signal.SIGKILL), ended
        assert server.run(*common, "--truncate").code == 0
    assert tree(store) == tree(tmp_path / "T")
