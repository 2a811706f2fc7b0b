"""One bad query stops a batch, or with `--on-error skip` is left out and named; the answers of the others stay."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from running import done, headwater
from small import save_model, sentences, write_corpus

GOOD = [{"id": f"q{n}", "prompt": "one two", "completion": text} for n, text in enumerate(sentences(3, seed=5))]
BAD = [
    '{"prompt": ',
    json.dumps({"title": "no text"}),
    json.dumps({"prompt": " ".join(sentences(60)), "completion": "sea"}),  # longer than the context
    json.dumps({"text": " ".join(sentences(60))}),  # a text that would be split
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("skipped")
    save_model(folder / "model")
    write_corpus(folder / "c.jsonl", sentences(30))
    done("ingest", folder / "c.jsonl", "--store", folder / "S", "--model", folder / "model")
    good = [json.dumps(query) for query in GOOD]
    (folder / "good.jsonl").write_text("".join(f"{line}\n" for line in good))
    (folder / "mixed.jsonl").write_text("".join(f"{line}\n" for line in [good[0], *BAD, *good[1:]]))
    return folder


@pytest.mark.parametrize("method", ["rise", "tfidf"])
@pytest.mark.parametrize("command", ["attribute", "value"])
def test_bad_queries_are_skipped_and_named(place: Path, command: str, method: str) -> None:
    bad = 4 if method == "rise" else 2  # texts of any length are compared as words
    common = (command, place / "S", "--method", method, "--json", "--queries")
    failed = headwater(*common, place / "mixed.jsonl")
    assert failed.exit_code == 1 and "mixed.jsonl:2: " in failed.stderr and not failed.stdout
    skipped = done(*common, place / "mixed.jsonl", "--on-error", "skip")
    if method == "rise":
        assert skipped.stdout == done(*common, place / "good.jsonl").stdout
    lines = [line for line in skipped.stderr.splitlines() if "skipped" in line]
    assert len(lines) == bad + 1 and lines[-1] == f"skipped {bad} bad queries in all"
    assert all(f"mixed.jsonl:{2 + n}: " in line for n, line in enumerate(lines[:-1]))


@pytest.mark.parametrize("method", ["rise", "tfidf"])
def test_a_file_of_bad_queries_alone_is_refused(place: Path, tmp_path: Path, method: str) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text("".join(f"{line}\n" for line in BAD[:2]))
    failed = headwater("attribute", place / "S", "--queries", bad, "--method", method, "--on-error", "skip")
    last = failed.stderr.splitlines()[-1]
    assert failed.exit_code == 1 and f"no query in {bad}: skipped 2 bad queries, the first: {bad}:1: " in last


MASKED = {"input_ids": [5, 6, 7], "labels": [-100, -100, -100]}


@pytest.mark.parametrize(
    ("method", "record", "message"),
    [
        ("rise", MASKED, "no predicted token of the query is a target"),
        ("rise", {"input_ids": [5], "labels": [5]}, "only one token"),
        ("tfidf", {"input_ids": [5, 6, 7], "labels": [5, 6, 7]}, "token ids, but the method compares texts"),
    ],
)
def test_queries_of_tokens_obey_the_policy_and_say_what_they_lack(
    place: Path, tmp_path: Path, method: str, record: dict[str, list[int]], message: str
) -> None:
    path = tmp_path / "tokens.jsonl"
    path.write_text(f"{json.dumps(GOOD[0])}\n{json.dumps(record)}\n")
    words = ("attribute", place / "S", "--queries", path, "--method", method, "--json")
    failed = headwater(*words)
    assert failed.exit_code == 1 and f"error: {path}:2: " in failed.stderr and message in failed.stderr
    skipped = done(*words, "--on-error", "skip")
    lines = [line for line in skipped.stderr.splitlines() if "skipped" in line]
    assert len(lines) == 2 and message in lines[0] and lines[1] == "skipped 1 bad query in all"
    assert {json.loads(line)["query_id"] for line in skipped.stdout.splitlines()} == {"q0"}


def test_a_task_is_read_without_its_bad_records(place: Path) -> None:
    store = ("--model", place / "model", "--method", "grasp", "--set", "grasp.m", "64")
    done("ingest", place / "c.jsonl", "--store", place / "G", *store)
    chosen = {}
    (place / "mixed.jsonl").write_text("".join(f"{json.dumps(query)}\n{BAD[0]}\n" for query in GOOD))
    for name in ("good", "mixed"):
        more = ("--on-error", "skip") if name == "mixed" else ()
        words = (
            "select",
            place / "G",
            "--queries",
            place / f"{name}.jsonl",
            "--count",
            "5",
            "-o",
            place / f"{name}.ids.jsonl",
        )
        if name == "mixed":
            assert headwater(*words).exit_code == 1
        result = done(*words, *more)
        chosen[name] = (place / f"{name}.ids.jsonl").read_text()
    assert chosen["good"] == chosen["mixed"] and "skipped" in result.stderr
    (place / "bad.jsonl").write_text(f"{BAD[0]}\n")
    none = ("select", place / "G", "--queries", place / "bad.jsonl", "--count", "5", "-o", place / "none.jsonl", *more)
    assert "has a target position: skipped 1 bad query, the first: " in headwater(*none).stderr
    again = done(*words, *more)  # the task is read from the store
    assert again.stderr.splitlines() == result.stderr.splitlines()
    shutil.copy(place / "mixed.jsonl", place / "copied.jsonl")
    copied = done(*(place / "copied.jsonl" if word == place / "mixed.jsonl" else word for word in words), *more).stderr
    assert "copied.jsonl:2: " in copied and "mixed.jsonl:2: " not in copied
