"""The same records in any Python object become the same rows as in a JSONL file."""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
import torch
from headwater.engine.data.python_data import data_of
from headwater.engine.data.record_source import RecordSource
from headwater.engine.ingest.ingest_job import IngestJob, prepare
from headwater.engine.models.language_model import ModelChoice
from headwater.store.errors import CorpusError, StoreMismatch
from headwater.store.feature_store import FeatureStore
from headwater.store.reader import open_column
from small import save_model, sentences, write_corpus

TEXTS = sentences(40)
ROWS = [{"text": text, "topic": f"t{number % 3}"} for number, text in enumerate(TEXTS)]
datasets.disable_progress_bars()


class MapStyle(torch.utils.data.Dataset[dict[str, str]]):
    def __len__(self) -> int:
        return len(ROWS)

    def __getitem__(self, at: int) -> dict[str, str]:
        return ROWS[at]


def generator() -> Iterator[dict[str, str]]:
    yield from ROWS


def arrow_folder(folder: Path) -> pyarrow.dataset.Dataset:
    for part in (0, 1):
        pq.write_table(
            pa.Table.from_pylist(ROWS[part * 25 : part * 25 + 25]), folder / f"{part}.parquet", row_group_size=7
        )
    return pyarrow.dataset.dataset(folder)


FORMS = {
    "list": lambda folder: ROWS,
    "tuple": lambda folder: tuple(ROWS),
    "generator": lambda folder: generator(),
    "Dataset": lambda folder: datasets.Dataset.from_list(ROWS),
    "shuffled back": lambda folder: datasets.Dataset.from_list(ROWS[::-1]).select(range(39, -1, -1)),
    "with a format": lambda folder: datasets.Dataset.from_list(ROWS).with_format("numpy"),
    "with a transform": lambda folder: datasets.Dataset.from_list(ROWS).with_transform(lambda batch: batch),
    "pandas": lambda folder: pd.DataFrame(ROWS, index=range(100, 140)),
    "polars": lambda folder: pl.DataFrame(ROWS),
    "lazy frame": lambda folder: pl.DataFrame(ROWS).lazy().filter(pl.col("topic") != ""),
    "table": lambda folder: pa.Table.from_pylist(ROWS),
    "reader": lambda folder: pa.Table.from_pylist(ROWS).to_reader(9),
    "arrow data set": arrow_folder,
    "torch": lambda folder: MapStyle(),
}


def one(value: object, *, texts: bool = False, name: str = "") -> RecordSource:
    (source,) = data_of(value, texts=texts, name=name)
    assert isinstance(source, RecordSource)
    return source


@pytest.mark.parametrize("form", FORMS)
def test_equal_records_in_any_object_are_the_same_data_and_are_read_from_any_record_on(
    form: str, tmp_path: Path
) -> None:
    source, of_list = one(FORMS[form](tmp_path)), one(ROWS)
    assert (source.name, source.digest, source.size, source.plain) == (of_list.name, of_list.digest, 40, False)
    for start in (0, 0, 13, 39, 40):
        assert [dict(row) for row in source.records(start)] == ROWS[start:]


def test_a_streamed_data_set_is_known_by_its_first_records_and_description() -> None:
    rows = [{"text": f"text {number}"} for number in range(300)]
    source = one(datasets.Dataset.from_list(rows).to_iterable_dataset())
    assert source.size == 0
    assert [list(source.records(start)) for start in (0, 290, 0)] == [rows, rows[290:], rows]
    later, earlier = [*rows[:299], {"text": "other"}], [{"text": "other"}, *rows[1:]]
    same, other = (one(datasets.Dataset.from_list(changed).to_iterable_dataset()) for changed in (later, earlier))
    assert source.digest == same.digest != other.digest


def test_texts_strings_and_columns_of_texts_are_the_same_data() -> None:
    expected = one(TEXTS, texts=True)
    assert (
        expected.plain and [row["text"] for row in expected.records(0)] == TEXTS and expected.name.startswith("texts-")
    )
    column = datasets.Dataset.from_list(ROWS)["text"]
    forms = [iter(TEXTS), np.array(TEXTS), pd.Series(TEXTS), pl.Series(TEXTS), pa.array(TEXTS), column]
    assert [one(form, texts=True).digest for form in forms] == [expected.digest] * 6


def test_a_string_is_a_text_or_a_path(tmp_path: Path) -> None:
    there = write_corpus(tmp_path / "a file", TEXTS)
    for path in ("queries.jsonl", "x/y.csv.gz", "arrays.npz", "s3://bucket/key", "hf:org/name?split=train", str(there)):
        assert data_of(path, texts=True) == data_of(path, texts=False) == [path]
    for text in ("Why?", "3.14", "U.S.", "<b>word</b>", "and/or so", "see a.jsonl", "two\nlines.jsonl", "", "x" * 5000):
        assert one(text, texts=True).size == 1
        assert data_of(text, texts=False) == [text]
    assert data_of(there, texts=True) == [str(there)]
    assert data_of([there, "b.jsonl"], texts=False) == [str(there), "b.jsonl"]
    with pytest.raises(CorpusError, match=r"either paths or texts: 'a.jsonl' names a file, 'a text' does not"):
        data_of(["a text", "a.jsonl"], texts=False)


def test_a_string_that_may_be_either_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    write_corpus(tmp_path / "models" / "a.jsonl", TEXTS)
    assert one("models", texts=True).size == 1  # a word, although a folder has its name
    assert (
        data_of(Path("models"), texts=True)
        == data_of("models", texts=False)
        == data_of(["models"], texts=False)
        == ["models"]
    )
    assert data_of("models/a.jsonl", texts=True) == ["models/a.jsonl"] and data_of("./models", texts=True) == [
        "./models"
    ]
    for text in ("data/questions.jsonll", "questions.jsonll", "and/or"):
        for value in (text, [text]):
            with pytest.raises(
                CorpusError, match=r"looks like a path, but nothing is there.*\nhint: give pathlib.Path\("
            ):
                data_of(value, texts=True)
        assert one({"text": text}, texts=True).size == one([text, "a text"], texts=True).size - 1 == 1


def test_token_ids_in_any_object_are_the_same_data() -> None:
    ids = [[5, 6, 7], [8, 9, 10]]
    sources = [
        one(value) for value in (ids, np.array(ids), torch.tensor(ids), [torch.tensor(row) for row in ids], iter(ids))
    ]
    assert {source.digest for source in sources} == {sources[0].digest}
    assert list(sources[1].records(1)) == [{"input_ids": [8, 9, 10], "labels": [8, 9, 10]}]
    single = [
        one(value)
        for value in ([5, 6, 7], np.array([5, 6, 7]), torch.tensor([5, 6, 7]), [np.int32(n) for n in (5, 6, 7)])
    ]
    assert [list(source.records(0)) for source in single] == [[{"input_ids": [5, 6, 7], "labels": [5, 6, 7]}]] * 4


def test_values_become_plain_and_missing_ones_none() -> None:
    day = datetime.date(2024, 2, 3)
    rich = {
        "text": np.str_("a"),
        "n": np.int64(3),
        "v": np.array([1.5, 2]),
        "t": (1, [torch.tensor(2)]),
        "b": b"\xff",
        "d": day,
    }
    (record,) = one(rich).records(0)
    assert record == {"text": "a", "n": 3, "v": [1.5, 2.0], "t": [1, [2]], "b": b"\xff", "d": day}
    (spooled,) = one(iter([rich])).records(0)
    assert (spooled["b"], spooled["d"]) == ("\\xff", "2024-02-03")
    frame = pd.DataFrame({"text": ["a", None], "n": [1.0, np.nan], "when": [pd.Timestamp(2024, 2, 3), pd.NaT]})
    assert list(one(frame).records(1)) == [{"text": None, "n": None, "when": None}]
    assert one(frame[["text"]]).digest == one([{"text": "a"}, {}]).digest


def test_a_list_of_tables_is_one_source_each() -> None:
    parts = data_of([pd.DataFrame(ROWS[:3]), pl.DataFrame(ROWS[3:5])], texts=False, name="part")
    assert [(p.name, p.size) for p in parts if isinstance(p, RecordSource)] == [("part-1", 3), ("part-2", 2)]


WRONG: list[tuple[Any, str]] = [
    (None, "a value of type NoneType cannot be read as records"),
    (7, "a value of type int cannot be read"),
    (b"text", "a value of type bytes cannot be read"),
    ({"a", "b"}, "a set has no order"),
    ([], "an empty list has no records"),
    ((), "an empty tuple has no records"),
    (iter(()), "a generator gave no records"),
    (generator, "generator is a function"),
    (pd.DataFrame(), "a table without rows has no records"),
    (pd.DataFrame([["a", "b"]], columns=["text", "text"]), "column 'text' appears twice"),
    ([{"text": "a"}, "b"], "record 2 is of type str: expected a dict"),
    (["a b", {"text": "b"}], "record 2 is a dict: expected a text, as record 1 is"),
    (iter([[1, 2], [1.5]]), "record 2 is a list: expected a list of token ids"),
    (iter([1.5]), "record 1 is of type float"),
    (np.ones((2, 2)), "a value of type ndarray cannot be read"),
    (datasets.DatasetDict(train=datasets.Dataset.from_list(ROWS)), r"holds several data sets \(train\)"),
]


@pytest.mark.parametrize(("value", "message"), WRONG, ids=range(len(WRONG)))
def test_what_cannot_be_read_is_said(value: Any, message: str) -> None:
    with pytest.raises(CorpusError, match=message):
        data_of(value, texts=False)


def test_a_generator_is_written_to_a_file_that_has_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    source, reader = one(generator()), one(pa.Table.from_pylist(ROWS).to_reader())
    assert list(tmp_path.iterdir()) == []
    first, second = source.records(0), source.records(20)
    assert [next(first), next(second), next(first), next(second)] == [ROWS[0], ROWS[20], ROWS[1], ROWS[21]]
    assert len(list(reader.records(0))) == 40
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "absent"))
    with pytest.raises(CorpusError, match=r"written to a temporary file in .*absent: No such file") as refused:
        data_of(generator(), texts=False)
    assert refused.value.hint == "set TMPDIR to another folder"


def test_no_library_is_imported_for_an_object_of_another() -> None:
    code = (
        "import sys; from headwater.engine.data.python_data import data_of; data_of(['a b', 'c d'], texts=True);"
        "data_of((x for x in [{'text': 'a'}]), texts=False);"
        "sys.exit(str([m for m in ('pandas', 'datasets', 'polars', 'pyarrow', 'torch') if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "[]", done.stderr


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"))


def ingest(data: Any, store: Path, model: Path, **changes: Any) -> FeatureStore:
    job = IngestJob(
        data, str(store), ModelChoice(str(model), device="cpu"), {"rise": {"kr": 12, "kh": 8, "kg": 4}}, **changes
    )
    prepare(job).ingest()
    return FeatureStore.open(str(store))


def rows_of(store: FeatureStore) -> np.ndarray:
    reader = open_column(store, "methods/rise", "signature")
    return reader.gather(np.arange(reader.rows))


def test_every_object_gives_the_rows_of_a_file(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    expected = rows_of(ingest([str(path)], tmp_path / "file", model))
    for form in ("list", "generator", "Dataset", "pandas", "lazy frame", "arrow data set"):
        folder = tmp_path / form
        folder.mkdir()
        store = ingest(data_of(FORMS[form](folder), texts=False), folder / "store", model)
        assert np.array_equal(rows_of(store), expected)
    streamed = datasets.Dataset.from_list(ROWS).to_iterable_dataset()
    assert np.array_equal(rows_of(ingest(data_of(streamed, texts=False), tmp_path / "streamed", model)), expected)


def test_equal_records_continue_a_store_and_other_records_are_appended(model: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    first, second = ([{"text": text} for text in part] for part in (TEXTS[:5], TEXTS[5:8]))
    ingest(data_of(first, texts=False, name="mine"), store, model)
    again = ingest(data_of(iter(first), texts=False), store, model)
    assert again.rows("examples") == 5
    with pytest.raises(StoreMismatch, match=r"mine has changed since it was ingested .*\(5 records then, 3 now\)"):
        ingest(data_of(second, texts=False, name="mine"), store, model, append=True)
    both = [*data_of(first, texts=False, name="mine"), *data_of(second, texts=False, name="mine")]
    appended = ingest(both, store, model, append=True)
    assert appended.rows("examples") == 8
    digest = one(second).digest
    assert [source["name"] for source in appended.provenance["sources"]] == ["mine", f"mine-{digest[:6]}"]
    assert ingest(both, store, model).rows("examples") == 8
    repeated = ingest([*both, *both], store, model)
    assert len(repeated.provenance["sources"]) == 2
