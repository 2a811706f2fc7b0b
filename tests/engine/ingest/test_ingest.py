"""Ingestion: the rows are the method's own, whatever the batches; it survives kills, stops, additions and full disks."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_server import CommandServer
from headwater.engine.data.documents import Template
from headwater.engine.ingest.examples import Place
from headwater.engine.ingest.ingest_job import IngestJob, PreparedIngest, prepare
from headwater.engine.ingest.ingestion import IngestResult
from headwater.engine.ingest.text_settings import TextSettings
from headwater.engine.models.batch_outputs import merge_specs
from headwater.engine.models.language_model import ModelChoice
from headwater.engine.runtime.run import Run
from headwater.plugins.rise import Rise
from headwater.store.errors import CorpusError, DataError, SettingsError, StoreBusy, StoreMismatch
from headwater.store.feature_store import EXAMPLES, FeatureStore
from headwater.store.reader import open_column
from headwater.store.verify import verify
from headwater.store.writer import GroupWriter
from small import save_model, sentences, tree, write_corpus

SMALL = {"kr": 12, "kh": 8, "kg": 4}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus") / "corpus.jsonl", sentences(700))


def job(corpus: Path | list[str], store: Path, model: Path, **changes: Any) -> IngestJob:
    methods: Mapping[str, Mapping[str, Any]] = changes.pop("methods", {"rise": SMALL})
    paths = corpus if isinstance(corpus, list) else [str(corpus)]
    return IngestJob(paths, str(store), ModelChoice(str(model), device="cpu"), methods, **changes)


def run(prepared: PreparedIngest, stop_after: int | None = None) -> IngestResult:
    windows: list[int] = []
    asked = (lambda: False) if stop_after is None else (lambda: len(windows) >= stop_after)
    return prepared.open().run(Run(on_progress=lambda progress: windows.append(progress.done), should_stop=asked))


def signatures(store: Path, method: str = "rise", column: str = "signature") -> np.ndarray:
    reader = open_column(FeatureStore.open(store), f"methods/{method}", column)
    return reader.gather(np.arange(reader.rows))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, model: Path, corpus: Path) -> Path:
    """A store made in one undisturbed run."""
    store = tmp_path_factory.mktemp("whole") / "store"
    outcome = run(prepare(job(corpus, store, model)))
    assert (outcome.rows, outcome.added, outcome.finished, outcome.record_errors) == (700, 700, True, 0)
    return store


def test_rows_are_those_of_each_example_alone(whole: Path, model: Path, corpus: Path) -> None:
    prepared = prepare(job(corpus, whole, model))
    method, head = prepared.methods["rise"], prepared.provider.head
    tables, needs = method.precompute(head, {}), merge_specs([method.needs(head.model_shape)])
    rows, losses = signatures(whole), open_column(FeatureStore.open(whole), EXAMPLES, "loss").gather(np.arange(700))
    for number, example in enumerate(prepared.provider.examples(Place())):
        if number % 97 == 0:
            with torch.inference_mode():
                outputs = prepared.provider.read([example], needs)
                alone = method.rows(outputs, tables)["signature"][0].numpy()
            np.testing.assert_allclose(rows[number], alone, atol=2e-3)
            np.testing.assert_allclose(losses[number], outputs.losses()[0], rtol=1e-4)


def test_examples_are_kept_in_the_corpus_order(whole: Path) -> None:
    store = FeatureStore.open(whole)
    rows = np.arange(700)
    assert open_column(store, EXAMPLES, "text").gather(rows).tolist() == sentences(700)
    assert open_column(store, EXAMPLES, "id").gather(rows).tolist() == [f"corpus.jsonl:{i + 1}" for i in rows]
    assert open_column(store, EXAMPLES, "line").gather(rows).tolist() == (rows + 1).tolist()
    assert not [damage for damage in verify(store) if damage]


@pytest.mark.parametrize("tokens", [128, 700, 20_000])
def test_batches_do_not_matter(whole: Path, model: Path, corpus: Path, tmp_path: Path, tokens: int) -> None:
    run(prepare(job(corpus, tmp_path / "s", model, batch_tokens=tokens)))
    np.testing.assert_allclose(signatures(tmp_path / "s"), signatures(whole), atol=2e-3)


def test_a_stopped_run_goes_on_to_the_same_bytes(whole: Path, model: Path, corpus: Path, tmp_path: Path) -> None:
    store = tmp_path / "s"
    first = run(prepare(job(corpus, store, model)), stop_after=1)
    assert (first.rows, first.finished) == (512, False)
    second = run(prepare(job(corpus, store, model)))
    assert (second.rows, second.added, second.finished) == (700, 188, True)
    assert tree(store) == tree(whole)
    again = run(prepare(job(corpus, store, model)))
    assert (again.rows, again.added, again.finished) == (700, 0, True)
    assert tree(store) == tree(whole)


def test_a_method_added_later_is_the_method_added_at_once(model: Path, corpus: Path, tmp_path: Path) -> None:
    both = {"rise": SMALL, "second": {"kr": 5, "kh": 6, "kg": 0}}
    with entry_points(tmp_path, second="headwater.plugins.rise:Rise"):
        run(prepare(job(corpus, tmp_path / "once", model, methods=both)))
        run(prepare(job(corpus, tmp_path / "later", model)))
        added = run(prepare(job(corpus, tmp_path / "later", model, methods=both)))
        assert added.added == 700
        run(prepare(job(corpus, tmp_path / "late", model)), stop_after=1)
        run(prepare(job(corpus, tmp_path / "late", model, methods=both)))
    for store in ("later", "late"):
        assert np.array_equal(signatures(tmp_path / store, "second"), signatures(tmp_path / "once", "second"))
        assert np.array_equal(signatures(tmp_path / store), signatures(tmp_path / "once"))


class entry_points:
    """Makes extra methods known by a dist-info folder on the path."""

    def __init__(self, folder: Path, **methods: str) -> None:
        info = folder / "site" / "extra-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: extra\nVersion: 1.0\n")
        lines = [f"{name} = {target}" for name, target in methods.items()]
        (info / "entry_points.txt").write_text("[headwater.methods]\n" + "\n".join(lines) + "\n")
        self.path = str(folder / "site")

    def __enter__(self) -> None:
        sys.path.insert(0, self.path)

    def __exit__(self, *_: object) -> None:
        sys.path.remove(self.path)


def test_documents_are_appended(model: Path, tmp_path: Path) -> None:
    first, second = (
        write_corpus(tmp_path / "a.jsonl", sentences(600)),
        write_corpus(tmp_path / "b.jsonl", sentences(90, 1)),
    )
    store = tmp_path / "s"
    run(prepare(job(first, store, model)))
    before = signatures(store)
    with pytest.raises(StoreMismatch, match=r"holds another corpus \(a.jsonl\); --append adds b.jsonl"):
        run(prepare(job(second, store, model)))
    outcome = run(prepare(job(second, store, model, append=True)))
    assert (outcome.rows, outcome.added) == (690, 90)
    after = signatures(store)
    assert np.array_equal(after[:600], before)
    run(prepare(job([str(first), str(second)], tmp_path / "t", model)))
    np.testing.assert_allclose(after, signatures(tmp_path / "t"), atol=2e-3)
    assert run(prepare(job([str(first), str(second)], store, model))).added == 0


def test_a_method_added_to_an_appended_store_needs_all_files(model: Path, tmp_path: Path) -> None:
    first, second = (
        write_corpus(tmp_path / "a.jsonl", sentences(60)),
        write_corpus(tmp_path / "b.jsonl", sentences(9, 1)),
    )
    store, both = tmp_path / "s", {"rise": SMALL, "second": {"kr": 5, "kh": 6, "kg": 0}}
    run(prepare(job([str(first), str(second)], store, model)))
    with entry_points(tmp_path, second="headwater.plugins.rise:Rise"):
        with pytest.raises(StoreMismatch, match=r"made from further files\nhint: add b.jsonl to the command"):
            run(prepare(job(first, store, model, methods=both)))
        assert run(prepare(job([str(first), str(second)], store, model, methods=both))).added == 69


def named(folder: Path, count: int, seed: int) -> str:
    folder.mkdir(exist_ok=True)
    return str(write_corpus(folder / "data.jsonl", sentences(count, seed)))


def test_a_file_is_known_by_what_it_holds_whatever_it_is_called(model: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    first, second = named(tmp_path / "x", 30, 1), named(tmp_path / "y", 20, 2)
    run(prepare(job([first], store, model)))
    assert run(prepare(job([first, second], store, model, append=True))).added == 20
    moved = str(shutil.copy(first, tmp_path / "moved.jsonl"))
    assert run(prepare(job([moved, second], store, model))).added == 0
    opened = FeatureStore.open(store)
    assert [fact["name"] for fact in opened.provenance["sources"]] == ["data.jsonl", "y/data.jsonl"]
    sources = open_column(opened, EXAMPLES, "source").gather(np.arange(50)).tolist()
    assert sources == ["data.jsonl"] * 30 + ["y/data.jsonl"] * 20


def test_another_file_of_a_known_name_is_a_new_file(model: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    run(prepare(job([named(tmp_path / "x", 30, 1)], store, model)))
    with pytest.raises(StoreMismatch, match=r"holds another corpus \(data\.jsonl\); --append adds y/data\.jsonl"):
        prepare(job([named(tmp_path / "y", 20, 2)], store, model)).open()
    assert run(prepare(job([named(tmp_path / "y", 20, 2)], store, model, append=True))).rows == 50


@pytest.mark.parametrize("stop_after", [0, 1])
def test_a_stopped_append_goes_on_by_the_same_command(model: Path, tmp_path: Path, stop_after: int) -> None:
    first, second = named(tmp_path / "x", 30, 1), named(tmp_path / "y", 600, 2)
    stores = [tmp_path / name for name in ("stopped", "undisturbed")]
    for store in stores:
        run(prepare(job([first], store, model)))
    assert not run(prepare(job([second], stores[0], model, append=True)), stop_after).finished
    shutil.move(first, tmp_path / "gone.jsonl")
    for store in stores:
        assert run(prepare(job([second], store, model, append=True))).rows == 630
    assert tree(stores[0]) == tree(stores[1])


def test_a_file_without_a_usable_record_does_not_bar_what_is_appended_later(model: Path, tmp_path: Path) -> None:
    store, bad = tmp_path / "store", tmp_path / "bad.jsonl"
    bad.write_text("no json\n")
    run(prepare(job([named(tmp_path / "x", 30, 1)], store, model)))
    skipping = TextSettings(Template(), "skip")
    assert run(prepare(job([str(bad)], store, model, append=True, text=skipping))).rows == 30
    assert run(prepare(job([named(tmp_path / "y", 20, 2)], store, model, append=True))).rows == 50


def test_two_that_append_at_once_take_places_of_their_own(model: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    run(prepare(job([named(tmp_path / "x", 10, 1)], store, model)))
    appends = [prepare(job([named(tmp_path / name, count, count)], store, model, append=True))
               for name, count in (("y", 30), ("z", 40))]  # fmt: skip
    opened = appends[0].open()
    with pytest.raises(StoreMismatch, match=r"add y/data\.jsonl to the command"):
        appends[1].open()
    assert opened.run().rows == 40
    assert run(appends[1]).rows == 80


def test_lines_and_precision_stay_with_the_store(model: Path, tmp_path: Path) -> None:
    text, store = tmp_path / "c.txt", tmp_path / "store"
    text.write_text("\n".join(sentences(600)))
    assert not run(prepare(job([str(text)], store, model, text=TextSettings(Template(), lines=True))), 1).finished
    with pytest.raises(StoreMismatch, match="dtype is 'float32' in the store, 'bfloat16' in this run"):
        other = ModelChoice(str(model), device="cpu", dtype="bfloat16")
        prepare(IngestJob([str(text)], str(store), other, {"rise": SMALL})).open()
    with pytest.raises(StoreMismatch, match="lines is True in the store, False in this run"):
        prepare(job([str(text)], store, model, text=TextSettings(Template(), lines=False))).open()
    assert run(prepare(job([str(text)], store, model))).rows == 600


def test_progress_counts_each_row_once(model: Path, corpus: Path, tmp_path: Path) -> None:
    rows, both = list[int](), {"rise": SMALL, "second": {"kr": 5, "kh": 6, "kg": 0}}
    run(prepare(job(corpus, tmp_path / "store", model)), stop_after=1)
    with entry_points(tmp_path, second="headwater.plugins.rise:Rise"):
        prepared = prepare(job(corpus, tmp_path / "store", model, methods=both))
        prepared.open().run(Run(on_progress=lambda progress: rows.append(progress.done)))
    assert rows == [512, 700]


@pytest.mark.parametrize("place", ["s3://bucket/store", "memory://store"])
def test_a_store_is_written_to_a_folder_alone(model: Path, corpus: Path, tmp_path: Path, place: str) -> None:
    with pytest.raises(SettingsError, match="written to a local folder"):
        prepare(IngestJob([str(corpus)], place, ModelChoice(str(model)), {"rise": SMALL}))


def test_a_store_beside_its_corpus_is_no_corpus(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    named(folder, 20, 1)
    for pattern in (folder, folder / "**" / "*"):
        assert run(prepare(job([str(pattern)], folder / "store", model))).rows == 20


def test_a_changed_file_is_refused(model: Path, tmp_path: Path) -> None:
    corpus, store = write_corpus(tmp_path / "a.jsonl", sentences(60)), tmp_path / "s"
    run(prepare(job(corpus, store, model)))
    write_corpus(corpus, sentences(61))
    with pytest.raises(StoreMismatch, match=r"a\.jsonl has changed since it was ingested"):
        run(prepare(job(corpus, store, model)))


def test_only_the_differences_are_listed(whole: Path, model: Path, corpus: Path, tmp_path: Path) -> None:
    other = save_model(tmp_path / "other", seed=1)
    with pytest.raises(StoreMismatch) as caught:
        run(prepare(job(corpus, whole, other)))
    assert "model is" in str(caught.value)
    assert "tokenizer" not in str(caught.value)
    with pytest.raises(StoreMismatch, match=r"max_length is 128 in the store, 64 in this run$"):
        run(prepare(job(corpus, whole, model, text=TextSettings(Template(), max_length=64))))
    with pytest.raises(StoreMismatch, match=r"rise.tau is 0.1 in the store, 1.0 in this run$"):
        prepare(job(corpus, whole, model, methods={"rise": {"tau": 1.0}}))
    with pytest.raises(StoreMismatch, match=r"text is True in the store, False in this run$"):
        run(prepare(job(corpus, whole, model, with_text=False)))
    assert FeatureStore.open(whole).rows(EXAMPLES) == 700


def test_settings_out_of_range(model: Path, corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"method rise: .*colour"):
        prepare(job(corpus, tmp_path / "s", model, methods={"rise": {"colour": 1}}))
    with pytest.raises(SettingsError, match="tau > 0"):
        prepare(job(corpus, tmp_path / "s", model, methods={"rise": {"tau": -1.0}}))
    with pytest.raises(SettingsError, match="exceeds the model's context of 128 tokens"):
        prepare(job(corpus, tmp_path / "s", model, text=TextSettings(Template(), max_length=500)))
    assert not (tmp_path / "s").exists()


def test_references_only(model: Path, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "a.jsonl", ["a secret text", "another secret"])
    run(prepare(job(corpus, tmp_path / "s", model, with_text=False)))
    assert b"secret" not in b"".join(tree(tmp_path / "s").values())
    assert "text" not in [column.name for column in FeatureStore.open(tmp_path / "s").columns(EXAMPLES)]


@pytest.mark.parametrize(
    ("fields", "notes"),
    [
        ({}, []),
        ({"with_tokens": False}, ["token ids are not stored (--no-tokens)"]),
        ({"with_text": False}, ["texts are not stored (--no-text)", "a fit reads the corpus's files again"]),
        ({"with_text": False, "with_tokens": True}, ["texts are not stored (--no-text)"]),
    ],
    ids=str,
)
def test_what_is_not_stored_is_noted_with_what_it_rules_out(
    fields: dict[str, bool], notes: list[str], model: Path, corpus: Path, tmp_path: Path
) -> None:
    noted = prepare(job(corpus, tmp_path / "s", model, **fields)).notes
    assert len(noted) == len(notes) and all(part in line for part, line in zip(notes, noted, strict=True))


def test_nan_names_the_example_and_keeps_what_came_before(model: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    broken = save_model(tmp_path / "broken")
    loaded = AutoModelForCausalLM.from_pretrained(broken)
    loaded.model.embed_tokens.weight.data[ord("~") - 32] = float("nan")  # byte-level ids: <s>, then the bytes
    loaded.save_pretrained(broken)
    texts = sentences(700)
    texts[650] += " ~"
    texts[650] += " and on"
    corpus = write_corpus(tmp_path / "a.jsonl", texts)
    with pytest.raises(DataError, match=r"NaN or Inf in the logits of example a\.jsonl:651$"):
        run(prepare(job(corpus, tmp_path / "s", broken)))
    assert FeatureStore.open(tmp_path / "s").rows("methods/rise") == 512


def test_bad_records_are_skipped_and_counted_or_fail(model: Path, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "a.jsonl", sentences(20))
    corpus.write_text(corpus.read_text() + "not json\n" + '{"text": "last"}\n')
    with pytest.raises(CorpusError, match=r"a.jsonl:21: "):
        run(prepare(job(corpus, tmp_path / "s", model)))
    outcome = run(prepare(job(corpus, tmp_path / "s", model, text=TextSettings(Template(), "skip"))))
    assert (outcome.rows, outcome.record_errors) == (21, 1)


def test_a_second_writer_is_refused(whole: Path, model: Path, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "a.jsonl", sentences(20))
    prepared = prepare(job(corpus, tmp_path / "s", model))
    ingestion = prepared.open()
    with GroupWriter(FeatureStore.open(tmp_path / "s"), EXAMPLES), pytest.raises(StoreBusy):
        ingestion.run()
    assert run(prepared).rows == 20


def command(corpus: Path, store: Path, model: Path, *more: str) -> list[str]:
    settings = [word for key, value in SMALL.items() for word in ("--set", f"rise.{key}", str(value))]
    return [sys.executable, "-m", "headwater", "ingest", str(corpus), "--store", str(store), "--model", str(model),
            "--commit-seconds", "0", *settings, *more]  # fmt: skip


def test_ctrl_c_loses_nothing(model: Path, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "a.jsonl", sentences(1600))
    process = subprocess.Popen(command(corpus, tmp_path / "s", model), stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "s/shards/0/methods/rise/columns/signature/c").exists():
        time.sleep(0.05)
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 130, told
    assert "stopped; run the same command again to continue" in told
    assert "Traceback" not in told
    rows = FeatureStore.open(tmp_path / "s").rows("methods/rise")
    assert 0 < rows < 1600
    assert rows % 512 == 0
    assert subprocess.run(command(corpus, tmp_path / "s", model), capture_output=True).returncode == 0
    assert FeatureStore.open(tmp_path / "s").rows("methods/rise") == 1600


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a forked child")
def test_killed_at_twenty_moments(model: Path, tmp_path: Path) -> None:
    """Each of twenty runs is killed before a random change of the disk; the next one goes on, to the same bytes in the end."""
    corpus, store = write_corpus(tmp_path / "a.jsonl", sentences(4000)), tmp_path / "s"
    assert subprocess.run(command(corpus, tmp_path / "t", model), capture_output=True).returncode == 0
    draw, kills, whole = random.Random(0), 0, 0
    words = command(corpus, store, model)[3:]
    with CommandServer() as server:
        while kills < 20:
            ended = server.run(*words, below=store, killed_at=draw.randint(1, 250))
            assert ended.code in (0, -signal.SIGKILL), ended
            kills += ended.code != 0
            if not ended.code:  # it got through between two kills: begin anew
                whole += 1
                assert tree(store) == tree(tmp_path / "t")
                shutil.rmtree(store)
        assert whole < 20 and server.run(*words).code == 0
    assert tree(store) == tree(tmp_path / "t")


def test_a_full_disk_keeps_what_is_committed(model: Path, tmp_path: Path) -> None:
    corpus, store = write_corpus(tmp_path / "a.jsonl", sentences(1600)), tmp_path / "s"
    wide = ("--set", "rise.kr", "500", "--set", "rise.kh", "32", "--set", "rise.exact", "false")

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (24 << 20, resource.RLIM_INFINITY))

    full = subprocess.run(command(corpus, store, model, *wide), capture_output=True, text=True, preexec_fn=limit)
    assert full.returncode == 1
    assert full.stderr.strip().splitlines()[-2].startswith("error: no room left on the device while writing ")
    assert "Traceback" not in full.stderr
    assert FeatureStore.open(store).rows("methods/rise") < 1600
    assert subprocess.run(command(corpus, store, model, *wide), capture_output=True).returncode == 0
    assert FeatureStore.open(store).rows("methods/rise") == 1600
    assert not [damage for damage in verify(FeatureStore.open(store)) if damage]


def test_the_method_is_frozen_with_the_store(whole: Path) -> None:
    stored = FeatureStore.open(whole).groups["methods/rise"].settings
    assert Rise.from_settings(stored) == Rise(kr=12, kh=8, kg=4)
