"""Files of answers are self-contained: what was asked, of what, by which method; and whether a store is still that one."""

from __future__ import annotations

import csv
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from headwater import __version__
from headwater.store.feature_store import FeatureStore
from running import done, headwater
from small import save_model

SMALL = [word for name, size in (("kr", 8), ("kh", 8), ("kg", 4)) for word in ("--set", f"rise.{name}", size)]
EVIL = "<script>alert('x')</script> \x1b[2J\u202e & \"q\""
ROWS = [{"id": f"e{at}", "prompt": f"question {at}: ", "completion": f"the answer is {at * at}"} for at in range(20)]
ROWS.append({"id": "evil", "prompt": EVIL, "completion": "{{ 7 * 7 }}" + EVIL})
QUERIES = [ROWS[3], {"id": "e3", "prompt": "", "completion": "the answer is"}, ROWS[-1]]
KEPT = ("query_id", "rank", "example_id", "score", "row")
"""Columns of a file of an earlier version, besides the text."""
FORMATS = ("jsonl", "json", "csv", "parquet", "html")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("answers")
    for name, rows in (("corpus", ROWS), ("more", [{**ROWS[0], "id": "new"}]), ("queries", QUERIES)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for seed in (0, 1):
        save_model(folder / f"model{seed}", seed=seed)
    done("ingest", folder / "corpus.jsonl", "--store", folder / "S", "--model", folder / "model0", *SMALL)
    for form in FORMATS:
        done(*asked(folder), "-o", folder / f"a.{form}")
    return folder


def asked(folder: Path, store: str = "S") -> list[Any]:
    return ["attribute", folder / store, "--queries", folder / "queries.jsonl", "--top", 3]


def records(place: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (place / "a.jsonl").read_text().splitlines()]


def test_a_record_has_the_texts_apart_and_names_its_origin(place: Path) -> None:
    rows, digest = records(place), FeatureStore.open(place / "S").root.digest
    assert len(rows) == 9 and {row["store"] for row in rows} == {digest[:12]} and rows[0]["method"] == "rise"
    by_id = {row["id"]: row for row in ROWS}
    for row in rows:
        example = by_id[row["example_id"]]
        assert (row["prompt"], row["completion"]) == (example["prompt"], example["completion"])
    assert (rows[6]["query_prompt"], rows[6]["query_completion"]) == (QUERIES[2]["prompt"], QUERIES[2]["completion"])
    assert "text" not in rows[0]
    assert [rows[at]["query_completion"] for at in (0, 3)] == ["the answer is 9", "the answer is"]  # of equal ids


def test_all_formats_hold_the_same(place: Path) -> None:
    rows = records(place)
    assert pq.read_table(place / "a.parquet").to_pylist() == rows
    with (place / "a.csv").open(newline="") as file:
        cells = list(csv.DictReader(file))
    assert [row["completion"] for row in cells] == [row["completion"] for row in rows]
    whole = json.loads((place / "a.json").read_text())
    assert [query["id"] for query in whole["queries"]] == ["e3", "e3", "evil"]
    flat = [{**answer, "query_id": query["id"]} for query in whole["queries"] for answer in query["answers"]]
    assert [one["score"] for one in flat] == [row["score"] for row in rows]
    assert whole["queries"][2]["prompt"] == EVIL and "query_prompt" not in flat[0]


@pytest.mark.parametrize("form", ["json", "parquet", "html"])
def test_a_file_names_method_settings_store_and_model(place: Path, form: str) -> None:
    store = FeatureStore.open(place / "S")
    facts = json.loads(done("info", place / f"a.{form}", place / "S", "--json").stdout)
    origin = facts["origin"]
    assert (origin["version"], origin["method"], origin["digest"]) == (__version__, "rise", store.root.digest)
    assert origin["settings"] == store.groups["methods/rise"].settings and origin["settings"]["kr"] == 8
    assert (origin["model"], origin["rows"], origin["complete"]) == (store.provenance["model"], 21, True)
    assert origin["store_version"] == store.version and facts["relation"] == "of this store, as it is now"


@pytest.mark.parametrize("form", FORMATS)
def test_info_says_whether_answers_are_of_a_store(place: Path, form: str, tmp_path: Path) -> None:
    shutil.copytree(place / "S", tmp_path / "S")
    output = done("info", place / f"a.{form}", tmp_path / "S").stdout
    assert f"{place / f'a.{form}'}: answers of rise, of this store, as it is now" in output
    more = ["ingest", place / "more.jsonl", "--store", tmp_path / "S", "--model", place / "model0", "--append"]
    done(*more)
    changed = headwater("info", place / f"a.{form}", tmp_path / "S")
    output = changed.stdout
    assert changed.exit_code == 1 and ("of this store before examples were added: 21 then, 22 now" in output) == (
        form not in ("jsonl", "csv")
    )
    assert "as it is now" not in output


def test_info_tells_other_models_corpora_and_methods_apart(place: Path, tmp_path: Path) -> None:
    ingest = ["--store", tmp_path / "S", *SMALL]
    done("ingest", place / "corpus.jsonl", *ingest, "--model", place / "model1")
    other = headwater("info", place / "a.json", tmp_path / "S")
    assert other.exit_code == 1 and "answers of rise, of another model: " in other.stdout
    shutil.rmtree(tmp_path / "S")
    done("ingest", place / "more.jsonl", *ingest, "--model", place / "model0")
    other = headwater("info", place / "a.json", tmp_path / "S")
    assert other.exit_code == 1 and "of another store: its corpus has other files" in other.stdout
    shutil.rmtree(tmp_path / "S")
    shutil.copytree(place / "S", tmp_path / "S")
    done("compress", tmp_path / "S", "--precision", "int8")
    output = done("info", place / "a.json", tmp_path / "S").stdout
    assert "of this store, with the same examples, model and settings of rise: something else was added" in output


def test_a_file_that_names_no_store_is_refused(place: Path, tmp_path: Path) -> None:
    for name, text in (
        ("x.jsonl", "{}\n"),
        ("x.json", "[]"),
        ("x.csv", "a\n1\n"),
        ("x.html", "<p>"),
        ("x.parquet", "no"),
    ):
        (tmp_path / name).write_text(text)
        refused = headwater("info", tmp_path / name, place / "S")
        assert refused.exit_code == 1 and "does not say which store its answers are of" in refused.stderr
    assert "no such file" in headwater("info", tmp_path / "none.json", place / "S").stderr
    assert headwater("info", "a", "b", "c").exit_code == 2


class Page(HTMLParser):
    """The tags of a page, and its visible text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_page_shows_everything_escaped_and_loads_nothing(place: Path) -> None:
    source = (place / "a.html").read_text()
    page = Page(source)
    assert page.tags.count("script") == 1 and page.tags.count("table") == 3 == page.tags.count("h2")
    assert "<script>alert('x')</script>" in page.text and "{{ 7 * 7 }}" in page.text and "{{ 7" in page.text
    assert page.tags.count("details") == sum(bool(row["prompt"]) for row in records(place))
    assert not re.search(r"https?://|src=|href=|[\x1b\u202e]", source) and "default-src 'none'" in source


def test_values_and_groups_have_their_origin_too(place: Path, tmp_path: Path) -> None:
    words = [place / "S", "--queries", place / "queries.jsonl"]
    for name, more in (("v", []), ("g", ["--by", "source"])):
        for form in FORMATS:
            done("value", *words, *more, "-o", tmp_path / f"{name}.{form}")
            assert "of this store, as it is now" in done("info", tmp_path / f"{name}.{form}", place / "S").stdout
    done("attribute", *words, "--all-scores", tmp_path / "all.zarr")
    assert "answers of rise, of this store, as it is now" in done("info", tmp_path / "all.zarr", place / "S").stdout
    whole = json.loads((tmp_path / "v.json").read_text())
    assert len(whole["rows"]) == 21 and set(whole) == {"headwater", "rows"}
    done("self-influence", place / "S", "--method", "rise", "-o", tmp_path / "s.csv")
    assert "of this store" in done("info", tmp_path / "s.csv", place / "S").stdout


def test_an_evaluation_reads_the_texts_of_answers(place: Path) -> None:
    (place / "query.jsonl").write_text(json.dumps(QUERIES[0]) + "\n")
    for form in FORMATS[:4]:
        done("attribute", place / "S", "--queries", place / "query.jsonl", "--top", 3, "-o", place / f"one.{form}")
    words = ["evaluate", "retrieval", "--json", "--at", 1, "--match", r"question 3: the answer is 9"]
    readings = [
        json.loads(done(*words, "--results", place / f"one.{form}").stdout) for form in ("jsonl", "csv", "parquet")
    ]
    assert all(one["each"] == readings[0]["each"] for one in readings) and readings[0]["means"]
    rows = [json.loads(line) for line in (place / "one.jsonl").read_text().splitlines()]
    old = [{**{name: row[name] for name in KEPT}, "text": row["prompt"] + row["completion"]} for row in rows]
    (place / "old.jsonl").write_text("".join(json.dumps(row) + "\n" for row in old))
    assert json.loads(done(*words, "--results", place / "old.jsonl").stdout)["each"] == readings[0]["each"]
