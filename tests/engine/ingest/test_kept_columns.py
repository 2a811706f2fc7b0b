"""Columns that a store keeps of its corpus: stored as text with every piece, compared on append, and used without the corpus."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from headwater.cli import main
from headwater.engine.ingest.examples import WINDOW
from headwater.engine.ingest.ingest_job import IngestJob, prepare
from headwater.engine.ingest.text_settings import TextSettings
from headwater.engine.models.language_model import ModelChoice
from headwater.engine.results.example_table import Examples
from headwater.engine.results.group_labels import GroupColumn
from headwater.engine.results.row_filter import RowFilter
from headwater.store.errors import CorpusError, DataError, SettingsError, StoreMismatch
from headwater.store.feature_store import EXAMPLES, FeatureStore
from headwater.store.layout import TEXT_CHUNK_ROWS
from headwater.store.verify import verify
from small import save_model, sentences, tree

TEXTS = sentences(40)
ROWS = [
    {
        "text": text,
        "topic": f"t{number % 3}",
        "n": number,
        "meta": {"set": f"s{number % 2}"},
        "tags": ["ä", number % 2 == 0],
    }
    for number, text in enumerate(TEXTS)
]
KEEP = ("topic", "n", "meta.set", "tags")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "corpus.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def ingest(corpus: Any, store: Path, model: Path, **changes: Any) -> FeatureStore:
    methods = changes.pop("methods", {"rise": {}})
    prepare(IngestJob([str(corpus)], str(store), ModelChoice(str(model), device="cpu"), methods, **changes)).ingest()
    return FeatureStore.open(str(store))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, model: Path, corpus: Path) -> FeatureStore:
    return ingest(corpus, tmp_path_factory.mktemp("kept") / "store", model, keep=KEEP)


def values(store: FeatureStore, name: str) -> list[str]:
    return Examples(store).strings(name, np.arange(store.rows(EXAMPLES)))


def test_values_are_text_and_lists_json(store: FeatureStore) -> None:
    assert values(store, "topic") == [row["topic"] for row in ROWS]
    assert values(store, "n") == [str(number) for number in range(40)]
    assert values(store, "meta.set") == [f"s{number % 2}" for number in range(40)]
    assert values(store, "tags")[:2] == ['["ä", true]', '["ä", false]']
    assert store.provenance["keep"] == list(KEEP)
    assert not any(verify(store))


def test_a_parquet_file_gives_the_same_values_and_missing_ones_are_empty(model: Path, tmp_path: Path) -> None:
    rows = [{**row, "n": None} if number % 2 else row for number, row in enumerate(ROWS)]
    for row in rows:
        row.pop("tags")
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "corpus.parquet")
    store = ingest(tmp_path / "corpus.parquet", tmp_path / "store", model, keep=("n", "meta.set"))
    assert values(store, "n") == [str(number) if number % 2 == 0 else "" for number in range(40)]
    assert values(store, "meta.set") == [f"s{number % 2}" for number in range(40)]


def test_every_piece_of_a_document_has_its_values_and_another_method_changes_nothing(
    model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "long.jsonl"
    path.write_text("".join(json.dumps({"text": " ".join(TEXTS[:6]), "topic": topic}) + "\n" for topic in "ab"))
    store = ingest(path, tmp_path / "store", model, keep=("topic",), text=TextSettings(max_length=32))
    ids, topics = values(store, "id"), values(store, "topic")
    assert len(ids) > 6
    assert topics == ["a" if name.startswith("long.jsonl:1") else "b" for name in ids]
    before = tree(tmp_path / "store/shards/0/examples")
    ingest(path, tmp_path / "store", model, methods={"repsim": {}})
    assert tree(tmp_path / "store/shards/0/examples") == before


def test_labels_come_from_the_store_alone(store: FeatureStore) -> None:
    column = GroupColumn(store, "topic")
    assert [label for part in column.labels() for label in part] == [row["topic"] for row in ROWS]
    assert (column.counts().labels, column.counts().distinct) == (40, 3)
    with pytest.raises(DataError, match=r"no column author, but source, topic, n, meta.set, tags"):
        list(GroupColumn(store, "author").labels())


def test_a_table_has_the_same_labels_as_the_columns_that_the_store_keeps(model: Path, tmp_path: Path) -> None:
    values = ({"flag": True}, {"flag": None}, {"flag": 2.5}, {"flag": ["a", 1]}, {"flag": "x", "meta": {}})
    rows = [{"text": TEXTS[at], "meta": {"topic": at % 2 == 0}, **own} for at, own in enumerate(values)]
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    store = ingest(path, tmp_path / "store", model, keep=("flag", "meta.topic"))
    expected = {"flag": ["true", "", "2.5", '["a", 1]', "x"], "meta.topic": ["true", "false", "true", "false", ""]}
    for name, labels in expected.items():
        for table in ("", str(path)):
            assert [label for part in GroupColumn(store, name, table).labels() for label in part] == labels
    mask = RowFilter((("flag", "true"), ("meta.topic", "true")), str(path)).mask(store, 5)
    assert mask is not None and mask.tolist() == [True, False, False, False, False]
    for name in ("meta.author", "author"):
        with pytest.raises(DataError, match=f"(no record of .*corpus.jsonl has|has no column) {name}"):
            list(GroupColumn(store, name, str(path)).labels())


def test_the_plan_counts_the_texts_of_columns(model: Path, tmp_path: Path) -> None:
    rows = [{"text": text, "note": "n" * (20_000 if number == 30 else 10)} for number, text in enumerate(TEXTS)]
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    plans = []
    for keep in ((), ("note",)):
        job = IngestJob(
            [str(path)], str(tmp_path / "store"), ModelChoice(str(model), device="cpu"), {"rise": {}}, keep=keep
        )
        plans.append(prepare(job).plan)
    assert plans[1].total - plans[0].total >= 20_000 * (WINDOW + TEXT_CHUNK_ROWS)
    prepare(job).ingest()
    added = IngestJob([], str(tmp_path / "store"), ModelChoice(str(model), device="cpu"), {"repsim": {}})
    assert "texts of kept columns" not in [part.name for part in prepare(added).plan.parts]  # no column is read again


def test_appended_files_have_the_columns_too(model: Path, corpus: Path, tmp_path: Path) -> None:
    ingest(corpus, tmp_path / "store", model, keep=("topic",))
    more = tmp_path / "more.jsonl"
    more.write_text(json.dumps({"text": "more", "topic": "new"}) + "\n")
    appended = ingest(more, tmp_path / "store", model, append=True)
    assert values(appended, "topic")[-2:] == ["t0", "new"]
    with pytest.raises(StoreMismatch, match=r"keeps topic, this run n\nhint: columns are chosen when"):
        ingest(corpus, tmp_path / "store", model, keep=("n",))
    more.write_text(json.dumps({"text": "without"}) + "\n")
    with pytest.raises(CorpusError, match=r"--keep topic: the first records have no such field; they have text"):
        ingest(more, tmp_path / "store", model, append=True)
    plain = ingest(corpus, tmp_path / "plain", model)
    assert "keep" not in plain.provenance
    with pytest.raises(StoreMismatch, match="keeps no columns, this run topic"):
        ingest(corpus, tmp_path / "plain", model, keep=("topic",))


def test_names_that_a_store_has_already_and_columns_that_are_nowhere(model: Path, corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="--keep id: a store has a column id of its own"):
        ingest(corpus, tmp_path / "store", model, keep=("id",))
    with pytest.raises(DataError, match="cannot be the name of a column to keep"):
        ingest(corpus, tmp_path / "store", model, keep=("a/b",))
    with pytest.raises(CorpusError, match="--keep author: the first records have no such field; they have text, topic"):
        ingest(corpus, tmp_path / "store", model, keep=("author",))
    np.savez(tmp_path / "a.npz", vectors=np.ones((3, 4), np.float32))
    with pytest.raises(SettingsError, match="--keep is of records, not of arrays"):
        ingest(tmp_path / "a.npz", tmp_path / "store", model, keep=("topic",), methods={"vectors": {}})
    assert not (tmp_path / "store").exists()


def test_commands_group_and_choose_by_a_kept_column_without_the_corpus(
    model: Path, corpus: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "corpus.jsonl"
    copy.write_bytes(corpus.read_bytes())
    run, store, queries = CliRunner(), str(tmp_path / "store"), str(corpus)
    made = run.invoke(main, ["ingest", str(copy), "--store", store, "--model", str(model), "--device", "cpu", "--method", "rise",
                             "--method", "grasp", "--keep", "topic", "--keep", "meta.set"])  # fmt: skip
    assert made.exit_code == 0, made.output
    copy.unlink()
    by = run.invoke(main, ["value", store, "--queries", queries, "--by", "topic", "--json"])
    assert by.exit_code == 0, by.output
    assert all(f'"t{number}"' in by.output for number in range(3))
    chosen = tmp_path / "chosen.jsonl"
    words = ["select", store, "--queries", queries, "--count", "10", "--quota", "meta.set=s1:0.8", "-o", str(chosen)]
    done = run.invoke(main, words)
    assert done.exit_code == 0, done.output
    rows = [json.loads(line)["row"] for line in chosen.read_text().splitlines()]
    assert sum(row % 2 for row in rows) == 8
