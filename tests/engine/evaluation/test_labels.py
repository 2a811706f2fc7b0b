"""Files that name examples which a store does not hold are refused by every command; labels without an answer are counted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from running import done, headwater

ROWS = 12


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of vectors with ids e0 to e11, all scores of two queries, and results of both."""
    work, draw = tmp_path_factory.mktemp("labels"), np.random.default_rng(0)
    np.savez(work / "a.npz", vectors=draw.normal(size=(ROWS, 4)), id=np.array([f"e{row}" for row in range(ROWS)]))
    np.savez(work / "q.npz", vectors=draw.normal(size=(2, 4)))
    done("ingest", work / "a.npz", "--store", work / "S", "--method", "vectors")
    np.save(work / "all.npy", draw.normal(size=(2, ROWS)))
    lines = [{"query_id": query, "example_id": f"e{row}", "score": -row} for query in range(2) for row in range(8)]
    (work / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return work


STRANGE = [f"x{number}" for number in range(5)]
FILES = {
    "ids.txt": "".join(f"{name}\n" for name in ("e1", *STRANGE)),
    "pairs.csv": "query_id,example_id\n0,e1\n" + "".join(f"1,{name}\n" for name in STRANGE),
    "table.csv": "id,kind\ne1,1\n" + "".join(f"{name},{at % 2}\n" for at, name in enumerate(STRANGE)),
}


@pytest.mark.parametrize("source", ["--scores", "--results"])
@pytest.mark.parametrize("name", FILES)
def test_labels_of_examples_that_the_store_lacks_are_refused(work: Path, name: str, source: str) -> None:
    (work / name).write_text(FILES[name])
    words = ["evaluate", "retrieval", source, work / ("all.npy" if source == "--scores" else "results.jsonl"), "--json"]
    words += ["--labels", work / name, *(["--column", "kind"] if name == "table.csv" else [])]
    refused = headwater(*words, "--store", work / "S")
    count = 2 if name == "table.csv" else 5  # of the table those whose label is true
    some = "x1, x3" if name == "table.csv" else "x0, x1, x2 …"
    assert refused.exit_code == 1 and refused.stderr.count("\n") <= 2
    assert f"names {count} examples that {work / 'S'} does not hold ({some}); its ids are such as e0" in refused.stderr
    if source == "--results":
        answered = done(*words)
        assert f"{count} of {count + 1} labelled examples are in no answer: with --store DIR" in answered.stderr
        assert json.loads(answered.stdout)["unranked"] == count


def test_labels_that_are_all_in_the_store_are_answered_without_a_note(work: Path) -> None:
    (work / "good.txt").write_text("e1\ne3\ne11\n")
    words = ["evaluate", "retrieval", "--labels", work / "good.txt", "--json"]
    whole = done(*words, "--scores", work / "all.npy", "--store", work / "S")
    assert whole.stderr == "" and json.loads(whole.stdout)["relevant"] == 3
    best = done(*words, "--results", work / "results.jsonl", "--store", work / "S")
    assert best.stderr == "" and json.loads(best.stdout)["unranked"] == 1
    (work / "good.txt").write_text("e1\ne3\n")
    assert done(*words, "--results", work / "results.jsonl").stderr == ""


def test_results_of_another_store_are_refused(work: Path, tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text('{"query_id": "q", "example_id": "other", "score": 1}\n')
    words = ["evaluate", "retrieval", "--results", tmp_path / "r.jsonl", "--match", "x", "--store", work / "S"]
    assert "r.jsonl: query q names 1 example that" in headwater(*words).stderr


def test_labels_of_queries_that_were_not_asked_are_counted(work: Path) -> None:
    (work / "more.csv").write_text("query_id,example_id\n0,e1\n7,e2\n8,e2\n")
    words = ["evaluate", "retrieval", "--results", work / "results.jsonl", "--labels", work / "more.csv", "--json"]
    answered = done(*words, "--store", work / "S")
    assert answered.stderr == "2 labelled queries have no answer, such as 7: they are left out\n"
    assert json.loads(answered.stdout)["unanswered"] == ["7", "8"]


@pytest.mark.parametrize("option", ["--among", "--exclude", "--subsets"])
def test_every_file_of_ids_is_refused_in_the_same_words(work: Path, option: str) -> None:
    path = work / ("subsets.jsonl" if option == "--subsets" else "ids.txt")
    path.write_text(json.dumps({"ids": ["e1", *STRANGE]}) + "\n" if option == "--subsets" else FILES["ids.txt"])
    words = [work / "S", "--queries", work / "q.npz", "--method", "vectors", option, path]
    more = ["--count", 2, "-o", work / "chosen.jsonl"]
    refused = headwater("predict", *words) if option == "--subsets" else headwater("select", *words, *more)
    assert refused.exit_code == 1
    message = f"names 5 examples that {work / 'S'} does not hold (x0, x1, x2 …); its ids are such as e0\nhint: correct these ids"
    assert message in refused.stderr
