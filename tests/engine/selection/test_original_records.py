"""Chosen examples are written as the records that stood in the corpus, each once, in order; or as the store keeps them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from headwater.cli import main
from headwater.engine.data.python_data import data_of
from headwater.engine.ingest.ingest_job import IngestJob, prepare
from headwater.engine.ingest.text_settings import TextSettings
from headwater.engine.models.language_model import ModelChoice
from headwater.engine.selection import original_records
from headwater.engine.selection.original_records import write_records
from headwater.store.errors import DataError, SettingsError, StoreMismatch
from headwater.store.feature_store import FeatureStore
from small import save_model, sentences

TEXTS = sentences(60)
ROWS = [{"text": text, "n": n, "meta": {"half": n / 2, "tags": ["ä", None][: n % 3]}} for n, text in enumerate(TEXTS)]
TAKEN = {**ROWS[7], "headwater": "a name that is taken"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"))


def lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n\n" for row in rows)  # blank lines between them


def ingest(corpus: list[Any], store: Path, model: Path, **changes: Any) -> FeatureStore:
    methods = changes.pop("methods", {"rise": {}})
    prepare(IngestJob(corpus, str(store), ModelChoice(str(model), device="cpu"), methods, **changes)).ingest()
    return FeatureStore.open(str(store))


def written(
    store: FeatureStore, rows: list[int], folder: Path, corpus: tuple[Any, ...] = ()
) -> tuple[list[Any], list[str]]:
    gains = np.arange(len(rows)) / 4
    result = write_records(str(folder / "chosen.jsonl"), store, np.array(rows), gains, corpus)
    records = [json.loads(line) for line in (folder / "chosen.jsonl").read_text().splitlines()]
    assert len(records) == result.records
    return records, result.notes


def test_records_of_several_files_are_written_in_the_order_of_the_choice(model: Path, tmp_path: Path) -> None:
    first = [*ROWS[:7], TAKEN, *ROWS[8:20]]
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines(first).encode()))
    pq.write_table(pa.Table.from_pylist(ROWS[20:50]), tmp_path / "b.parquet", row_group_size=4)
    corpus = [str(tmp_path / "a.jsonl.gz"), str(tmp_path / "b.parquet"), *data_of(ROWS[50:], texts=False)]
    store = ingest(corpus, tmp_path / "store", model)
    chosen = [44, 3, 21, 45, 0, 20, 19, 49, 7]
    records, notes = written(store, chosen, tmp_path)
    for order, (row, record) in enumerate(zip(chosen, records, strict=True), 1):
        added = record.pop("_headwater" if row == 7 else "headwater")
        assert record == (TAKEN if row == 7 else ROWS[row])
        name = f"a.jsonl.gz:{2 * row + 1}" if row < 20 else f"b.parquet:{row - 19}"
        assert added == {"order": order, "gain": (order - 1) / 4, "row": row, "id": name}
    assert notes == []
    records, notes = written(store, [55, 3], tmp_path)
    name = store.provenance["sources"][2]["name"]
    assert notes == [f"{name} lay in no file: its records are written as the store keeps them (text)"]
    assert records[0]["text"] == TEXTS[55] and "n" not in records[0] and records[1]["n"] == 3
    again, notes = written(store, [55, 3], tmp_path, tuple(corpus))
    assert (again[0]["n"], notes) == (55, [])


def test_a_distant_row_of_a_table_is_read_without_those_before(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(original_records, "_SKIPPED_ROWS", 5)
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "b.parquet", row_group_size=4)
    store = ingest([str(tmp_path / "b.parquet")], tmp_path / "store", model)
    records, _ = written(store, [59, 2, 3, 30], tmp_path)
    assert [record["n"] for record in records] == [59, 2, 3, 30]


def test_a_document_of_several_pieces_is_written_once(model: Path, tmp_path: Path) -> None:
    rows = [{"text": " ".join(TEXTS[:6]), "n": 0}, {"text": " ".join(TEXTS[6:12]), "n": 1, "id": "mine"}]
    (tmp_path / "a.jsonl").write_text(lines(rows))
    store = ingest([str(tmp_path / "a.jsonl")], tmp_path / "store", model, text=TextSettings(max_length=32))
    last = store.rows("examples") - 1
    records, _ = written(store, [last, 1, 0, last - 1], tmp_path)
    facts = [(record["n"], record["headwater"]["order"], record["headwater"]["row"]) for record in records]
    assert facts == [(1, 1, last), (0, 2, 1)]
    assert records[0]["text"] == rows[1]["text"] and records[0]["headwater"]["id"].startswith("mine#")


def test_files_that_changed_or_are_gone_give_way_to_the_store(model: Path, tmp_path: Path) -> None:
    path, moved = tmp_path / "a.jsonl", tmp_path / "moved.jsonl"
    path.write_text(lines([{"prompt": f"{text} ", "completion": "yes", "n": n} for n, text in enumerate(TEXTS[:9])]))
    moved.write_bytes(path.read_bytes())
    store = ingest([str(path)], tmp_path / "store", model, keep=("n",))
    bare = ingest([str(path)], tmp_path / "bare", model, with_text=False)
    path.write_text(lines(ROWS))
    records, (note,) = written(store, [4, 2], tmp_path)
    assert note == f"{path} has changed: its records are written as the store keeps them (text, n)"
    assert (records[0]["prompt"], records[0]["completion"], records[0]["n"]) == (f"{TEXTS[4]} ", "yes", "4")
    path.unlink()
    _, (note,) = written(store, [4, 2], tmp_path)
    assert note.startswith(f"{path}: no such file or folder: its records are written")
    records, notes = written(store, [4, 2], tmp_path, (str(moved),))
    assert (records[0]["n"], notes) == (4, [])
    with pytest.raises(DataError, match=r"no such file or folder, and .*bare keeps no texts\nhint: say with --corpus"):
        written(bare, [4, 2], tmp_path)
    assert written(bare, [4], tmp_path, (str(moved),))[0][0]["n"] == 4
    moved.write_text(lines(ROWS[:3]))
    with pytest.raises(StoreMismatch, match=r"--corpus lacks a.jsonl, from which examples were chosen"):
        written(store, [4, 2], tmp_path, (str(moved),))


def test_a_record_that_was_replaced_in_the_middle_of_a_file_is_noticed(model: Path, tmp_path: Path) -> None:
    rows = [
        {"id": f"d{number:03}", "text": f"{number:03} " + "word " * 100, "more": "x" * 4000} for number in range(50)
    ]
    path = tmp_path / "a.jsonl"
    path.write_text(lines(rows))
    store = ingest([str(path)], tmp_path / "store", model, text=TextSettings(max_length=128))
    records, _ = written(store, list(range(store.rows("examples"))), tmp_path)
    assert [record["id"] for record in records] == [row["id"] for row in rows]
    row = next(record["headwater"]["row"] for record in records if record["id"] == "d025")
    path.write_text(path.read_text().replace("d025", "x025"))  # more than 64 KiB from either end
    with pytest.raises(StoreMismatch, match=r"a.jsonl:51 is another record than the d025#0 that was ingested"):
        written(store, [row], tmp_path)


def test_arrays_have_no_records(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", vectors=np.ones((3, 4), np.float32))
    job = IngestJob([str(tmp_path / "a.npz")], str(tmp_path / "store"), ModelChoice("", device="cpu"), {"vectors": {}})
    prepare(job).ingest()
    with pytest.raises(SettingsError, match="which hold no records"):
        written(FeatureStore.open(str(tmp_path / "store")), [0], tmp_path)


def test_the_command_writes_records(model: Path, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(lines(ROWS))
    ingest([str(tmp_path / "a.jsonl")], tmp_path / "store", model, methods={"grasp": {}})
    words = ["select", str(tmp_path / "store"), "--queries", str(tmp_path / "a.jsonl"), "--count", "5"]
    plain = CliRunner().invoke(main, [*words, "-o", str(tmp_path / "plain.jsonl")])
    done = CliRunner().invoke(main, [*words, "--records", "-o", str(tmp_path / "chosen.jsonl")])
    assert (plain.exit_code, done.exit_code) == (0, 0), (plain.output, done.output)
    rows = [json.loads(line)["row"] for line in (tmp_path / "plain.jsonl").read_text().splitlines()]
    records = [json.loads(line) for line in (tmp_path / "chosen.jsonl").read_text().splitlines()]
    assert [record["n"] for record in records] == rows
    refused = CliRunner().invoke(main, [*words, "--corpus", "x", "-o", str(tmp_path / "chosen.jsonl")])
    assert refused.exit_code == 2 and "--corpus is read for --records alone" in refused.output
