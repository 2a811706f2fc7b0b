"""An unfinished store does not answer as if it were whole: it refuses, or answers and says how many rows of how many."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import zarr
from headwater.engine.ingest.ingest_job import IngestJob, prepare
from headwater.engine.models.language_model import ModelChoice
from headwater.engine.runtime.run import Run
from headwater.engine.selection.linear_features import LinearFeatures
from headwater.store.errors import StoreMissing
from headwater.store.feature_store import EXAMPLES, FeatureStore
from running import done, headwater
from small import save_model, sentences, write_corpus

METHODS = {"rise": {"kr": 12, "kh": 8, "kg": 4}, "repsim": {}}
READ, ROWS = 512, 600
"""Examples of the first window, after which the run is stopped; examples in all."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`whole`, a store, and `cut`, one of the same corpus whose run was stopped after its first window."""
    site = tmp_path_factory.mktemp("site")
    save_model(site / "model")
    write_corpus(site / "corpus.jsonl", sentences(ROWS))
    write_corpus(site / "queries.jsonl", sentences(4, 9))
    result = {"query_id": "q", "example_id": "corpus.jsonl:1", "score": 1, "text": "the river"}
    (site / "results.jsonl").write_text(json.dumps(result))
    for name, windows in (("whole", 9), ("cut", 1)):
        read: list[int] = []
        run = Run(on_progress=lambda p: read.append(p.done), should_stop=lambda: len(read) >= windows)  # noqa: B023
        choice = ModelChoice(str(site / "model"), device="cpu")
        prepare(IngestJob([str(site / "corpus.jsonl")], str(site / name), choice, METHODS)).open().run(run)
    assert FeatureStore.open(site / "whole").rows(EXAMPLES) == ROWS
    assert FeatureStore.open(site / "cut").rows(EXAMPLES) == READ
    return site


def questions(site: Path, store: str) -> dict[str, list[object]]:
    """Every command that answers from stored rows."""
    asked = [site / store, "--queries", site / "queries.jsonl"]
    return {
        "attribute": ["attribute", *asked, "--top", 600, "--json"],
        "by": ["attribute", *asked, "--by", "source", "--json"],
        "words": ["attribute", *asked, "--method", "bm25"],
        "value": ["value", *asked, "--top", 600, "--json"],
        "plan": ["plan", "attribute", *asked],
        "all": ["attribute", *asked, "--all-scores", site / f"{store}.zarr"],
        "self-influence": ["self-influence", site / store, "--method", "repsim", "--top", 600, "--json"],
        "compress": ["compress", site / store, "--precision", "int8"],
        "predict": ["predict", *asked, "--method", "repsim", "--subsets-by", "source"],
        "retrieval": [
            "evaluate",
            "retrieval",
            "--results",
            site / "results.jsonl",
            "--match",
            "river",
            "--store",
            site / store,
        ],
        "select": ["select", *asked, "--method", "repsim", "--count", 2, "-o", site / "chosen.jsonl"],
    }


@pytest.mark.parametrize("command", questions(Path(), ""))
def test_an_unfinished_store_answers_only_if_asked_to_and_says_so(site: Path, command: str) -> None:
    words = questions(site, "cut")[command]
    refused = headwater(*words)
    assert refused.exit_code == 1 and refused.stderr.count("\n") <= 2, refused.output
    assert "was not read to its end" in refused.stderr and "--partial" in refused.stderr
    count = r"512 examples" if command in ("words", "retrieval") else r"for 512 of 512 examples"
    assert re.search(count, refused.stderr)
    answered = done(*words, "--partial")
    assert answered.stderr.count("partial:") == 1 and re.search(count, answered.stderr)
    assert "partial:" not in done(*questions(site, "whole")[command]).stderr


def test_labels_of_the_whole_corpus_judge_an_unfinished_store(site: Path, tmp_path: Path) -> None:
    done(
        "attribute", site / "cut", "--queries", site / "queries.jsonl", "--partial", "--all-scores", tmp_path / "s.zarr"
    )
    done("attribute", site / "cut", "--queries", site / "queries.jsonl", "--partial", "-o", tmp_path / "r.jsonl")
    labels, cut, wrong = (tmp_path / f"{name}.txt" for name in ("labels", "cut", "wrong"))
    ids = [f"corpus.jsonl:{line}" for line in range(1, ROWS + 1, 2)]
    labels.write_text("\n".join(ids))
    cut.write_text("\n".join(ids[: READ // 2]))
    wrong.write_text("corpus.jsonl:9999")
    judge = ["evaluate", "retrieval", "--store", site / "cut", "--partial", "--json", "--labels"]
    scores, results = ["--scores", tmp_path / "s.zarr"], ["--results", tmp_path / "r.jsonl"]
    judged = done(*judge, labels, *scores)
    missing = f"{(ROWS - READ) // 2} of {ROWS // 2} labelled examples are not in the unfinished store"
    assert f"{missing}: they are left out" in judged.stderr
    means, means_of_cut = (json.loads(out)["means"] for out in (judged.stdout, done(*judge, cut, *scores).stdout))
    assert means == means_of_cut
    assert f"{missing}: recall and average precision" in done(*judge, labels, *results).stderr
    assert "does not hold (corpus.jsonl:9999)" in headwater(*judge, wrong, *scores).stderr
    whole = [site / "whole" if word == site / "cut" else word for word in judge]
    labels.write_text("\n".join([*ids, "corpus.jsonl:9999"]))
    assert "does not hold (corpus.jsonl:9999)" in headwater(*whole, labels, *results).stderr


def test_partial_scores_are_those_of_the_first_rows(site: Path) -> None:
    for store in ("whole", "cut"):
        words = questions(site, store)["all"]
        if not Path(str(words[-1])).exists():
            done(*words, "--partial")
    whole, cut = (
        np.asarray(zarr.open_array(str(site / f"{name}.zarr/scores"), mode="r")[:]) for name in ("whole", "cut")
    )
    assert whole.shape == (ROWS, 4) and np.array_equal(cut, whole[:READ])


def test_the_command_in_the_message_finishes_the_store(site: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(site / "cut", tmp_path / "S")
    facts = json.loads(done("info", tmp_path / "S", "--json").stdout)
    assert not facts["complete"] and not facts["methods"]["rise"]["complete"]
    refused = headwater("attribute", tmp_path / "S", "--queries", site / "queries.jsonl")
    (command,) = re.findall(r"run headwater (.*) to continue", refused.stderr)
    assert facts["to_finish"] == f"headwater {command}"
    assert facts["to_finish"] in done("info", tmp_path / "S").stdout.replace("\n", " ")
    done(*shlex.split(command))
    facts = json.loads(done("info", tmp_path / "S", "--json").stdout)
    assert facts["complete"] and {method["rows"] for method in facts["methods"].values()} == {ROWS}


def test_a_method_that_an_append_left_behind_is_partial(site: Path, tmp_path: Path) -> None:
    """8 rows of 13: subsets and groups are of the rows that there are."""
    for name, count in (("first", 8), ("more", 5)):
        write_corpus(tmp_path / f"{name}.jsonl", sentences(count, len(name)))
    words = ["--store", tmp_path / "S", "--model", site / "model"]
    done("ingest", tmp_path / "first.jsonl", *words, "--method", "rise", "--method", "repsim")
    done("ingest", tmp_path / "more.jsonl", *words, "--method", "rise", "--append")
    store = FeatureStore.open(tmp_path / "S")
    with pytest.raises(StoreMissing, match="rows of repsim for 8 of 13 examples\nhint: run headwater add"):
        LinearFeatures(store, "repsim")
    assert LinearFeatures(store, "repsim", partial=True).rows == 8
    asked = ["--queries", site / "queries.jsonl", "--method", "repsim", "--partial"]
    by = done("value", tmp_path / "S", *asked, "--by", "source", "--json")
    assert [json.loads(line)["examples"] for line in by.stdout.splitlines()] == [8]
    assert "rows of repsim for 8 of 13 examples" in by.stderr
    assert "for 8 of 13" in done("predict", tmp_path / "S", *asked, "--subsets-by", "source").stderr
    out = tmp_path / "chosen.jsonl"
    done("select", tmp_path / "S", *asked, "--count", 8, "-o", out)
    assert sorted(json.loads(line)["row"] for line in out.read_text().splitlines()) == list(range(8))
    assert "8 of 13, unfinished" in done("info", tmp_path / "S").stdout
