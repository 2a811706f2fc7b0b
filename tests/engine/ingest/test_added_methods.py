"""A method that is added from what a store keeps leaves the bytes of one that is ingested from the files."""

from __future__ import annotations

from pathlib import Path

import pytest
from headwater.engine.ingest.corpus_statistics import SAMPLE
from headwater.engine.ingest.ingest_job import IngestJob, prepare
from headwater.engine.ingest.text_settings import TextSettings
from headwater.engine.models.language_model import ModelChoice
from headwater.engine.runtime.run import Run
from headwater.store.errors import HeadwaterError, SettingsError, StoreMismatch, StoreMissing
from headwater.store.feature_store import FeatureStore
from small import save_model, sentences, tree, write_corpus

RISE = {"kr": 16, "kh": 16, "kg": 8}
ADDED = {"repsim": {}, "headkfac": {"m": 32, "rank": 8}}  # the second has corpus statistics


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, and a corpus of long and short texts in two files with blank lines, prompts among them."""
    folder = tmp_path_factory.mktemp("added")
    save_model(folder / "model")
    texts = sentences(700)
    write_corpus(folder / "a.jsonl", [" ".join(texts[:12]), *texts[:400]])
    lines = [f'{{"prompt": "{text} ", "completion": "and so on"}}\n\n' for text in texts[400:]]
    (folder / "b.jsonl").write_text("".join(lines), "utf-8")
    return folder


def job(work: Path, store: Path, methods: dict, corpus: bool = True, **options: object) -> IngestJob:
    files = [str(work / "a.jsonl"), str(work / "b.jsonl")] if corpus else []
    return IngestJob(files, str(store), ModelChoice(str(work / "model") if corpus else ""), methods, **options)


def test_an_added_method_leaves_the_same_bytes(work: Path, tmp_path: Path):
    assert SAMPLE > 700
    for name, corpus in (("ingested", True), ("added", False)):
        prepare(job(work, tmp_path / name, {"rise": RISE})).ingest()
        prepare(job(work, tmp_path / name, ADDED, corpus)).ingest()
    assert tree(tmp_path / "ingested") == tree(tmp_path / "added")


def stop_after(windows: int) -> Run:
    asked = iter(range(10_000))
    return Run(should_stop=lambda: next(asked) >= windows)


@pytest.mark.parametrize("first", (True, False), ids=("files first", "store first"))
def test_files_and_store_continue_each_other(work: Path, tmp_path: Path, first: bool):
    methods = {"repsim": {}}
    prepare(job(work, tmp_path / "whole", {"rise": RISE})).ingest()
    prepare(job(work, tmp_path / "whole", methods)).ingest()
    prepare(job(work, tmp_path / "S", {"rise": RISE})).ingest()
    result = prepare(job(work, tmp_path / "S", methods, first)).open().run(stop_after(1))
    assert not result.finished and FeatureStore.open(str(tmp_path / "S")).rows("methods/repsim") == 512
    assert prepare(job(work, tmp_path / "S", methods, not first)).ingest().finished
    assert tree(tmp_path / "S") == tree(tmp_path / "whole")
    assert prepare(job(work, tmp_path / "S", methods)).ingest().added == 0


def test_documents_are_appended_to_an_added_method(work: Path, tmp_path: Path):
    corpus = [str(work / "a.jsonl")]
    prepare(IngestJob(corpus, str(tmp_path / "S"), ModelChoice(str(work / "model")), {"rise": RISE})).ingest()
    prepare(job(work, tmp_path / "S", {"repsim": {}}, False)).ingest()
    both = {"rise": {}, "repsim": {}}
    prepare(job(work, tmp_path / "S", both, append=True)).ingest()
    prepare(job(work, tmp_path / "whole", {"rise": RISE, "repsim": {}})).ingest()
    stores = [FeatureStore.open(str(tmp_path / name)) for name in ("S", "whole")]
    for group in ("examples", "methods/rise", "methods/repsim"):
        assert stores[0].rows(group) == stores[1].rows(group)
        assert stores[0].resume_notes(group) == stores[1].resume_notes(group)


def test_what_cannot_be_added_is_refused(work: Path, tmp_path: Path):
    with pytest.raises(StoreMissing, match="no store is there"):
        prepare(job(work, tmp_path / "none", {"repsim": {}}, False))
    prepare(job(work, tmp_path / "bare", {"rise": RISE}, with_text=False)).ingest()
    with pytest.raises(SettingsError, match="keeps neither texts nor token ids"):
        prepare(job(work, tmp_path / "bare", {"repsim": {}}, False))
    prepare(job(work, tmp_path / "S", {"rise": RISE})).open().run(stop_after(1))
    with pytest.raises(HeadwaterError, match="unfinished"):
        prepare(job(work, tmp_path / "S", {"repsim": {}}, False))
    prepare(job(work, tmp_path / "whole", {"rise": RISE})).ingest()
    other = save_model(tmp_path / "other", seed=1)
    with pytest.raises(StoreMismatch, match="model is"):
        moved = IngestJob([], str(tmp_path / "whole"), ModelChoice(str(other)), {"repsim": {}})
        prepare(moved).ingest()


def test_text_settings_stay_the_store_s(work: Path, tmp_path: Path):
    settings = TextSettings(max_length=24, attribute="all", truncate=True, boundary="apart")
    prepare(job(work, tmp_path / "ingested", {"rise": RISE}, text=settings)).ingest()
    prepare(job(work, tmp_path / "ingested", {"repsim": {}})).ingest()
    prepare(job(work, tmp_path / "added", {"rise": RISE}, text=settings)).ingest()
    prepare(job(work, tmp_path / "added", {"repsim": {}}, False)).ingest()
    assert tree(tmp_path / "ingested") == tree(tmp_path / "added")


def test_texts_that_are_tokenised_again_are_noted(work: Path, tmp_path: Path):
    note = "tokenised again, because it keeps no token ids: pieces of long documents may get other tokens"
    for with_tokens in (True, False):
        store = tmp_path / str(with_tokens)
        prepare(job(work, store, {"repsim": {}}, with_tokens=with_tokens)).ingest()
        ingestion = prepare(job(work, store, {"rise": RISE}, corpus=False)).open()
        assert any(note in line for line in ingestion.provider.notes) is not with_tokens
