"""Ids that several examples share are counted in bounded memory; files that are left out of a folder are named before a run."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from headwater.engine.ingest import equal_ids
from headwater.engine.ingest.equal_ids import equal_ids_note
from headwater.engine.ingest.ingest_job import IngestJob, prepare
from headwater.engine.models.language_model import ModelChoice
from headwater.store.feature_store import FeatureStore
from small import save_model


def store_of(tmp_path: Path, ids: list[object]) -> FeatureStore:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    rows = [json.dumps({"id": name, "text": f"text {number}"}) for number, name in enumerate(ids)]
    (corpus / "a.jsonl").write_text("\n".join(rows))
    (corpus / "b.pdf").write_bytes(b"%PDF")
    (corpus / "c.jsonl").touch()
    job = IngestJob([str(corpus)], str(tmp_path / "s"), ModelChoice(str(save_model(tmp_path / "model"))), {"rise": {}})
    prepared = prepare(job)
    assert prepared.notes[0] == (
        f"{corpus}: 2 files are not read: 1 of unknown suffix (b.pdf), 1 empty (c.jsonl); a file that is named itself is read"
    )
    prepared.ingest()
    return FeatureStore.open(str(tmp_path / "s"))


@pytest.mark.parametrize("pass_rows", [1 << 20, 7])
def test_equal_ids_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pass_rows: int) -> None:
    monkeypatch.setattr(equal_ids, "PASS_ROWS", pass_rows)
    ids: list[object] = np.random.default_rng(0).integers(0, 40, 50).tolist()
    expected = {name: count for name, count in Counter(map(str, ids)).items() if count > 1}
    note = equal_ids_note(store_of(tmp_path, ids))
    number, total, named = len(expected), sum(expected.values()), note.partition("such as ")[2].partition(":")[0]
    assert note.startswith(f"{number} ids are each the id of several examples ({total} in all)") and named in expected


def test_distinct_ids_need_no_word(tmp_path: Path) -> None:
    assert equal_ids_note(store_of(tmp_path, [1, "a", True, 2.5, None, None])) == ""
