"""Members with a model of their own: their rows and queries are those of that model, whatever command reads them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import zarr
from headwater.engine.ingest.ingest_job import IngestJob, prepare
from headwater.engine.models.language_model import ModelChoice
from headwater.store.feature_store import FeatureStore
from headwater.store.state import has_state, write_state
from running import done, headwater
from small import save_model, save_tokenizer, sentences, write_corpus

ROWS, QUERIES = 30, 3
SIZES = {"kr": 16, "kh": 16, "kg": 8}
QUICK = {"subsets": 24, "degree": 3, "updates": 6, "checked": 5, "shared": 16, "members": 4}
METHODS = {"rise": SIZES, "graddot": {}, "headgn": {"k": 8}}


def settings(label: str = "") -> list[object]:
    """--method and --set of every method, under a label."""
    words: list[object] = []
    for name, values in METHODS.items():
        words += ["--method", name + label]
        words += [part for key, value in values.items() for part in ("--set", f"{name}{label}.{key}", value)]
    return words


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store S with members by an earlier model, and a store E that the earlier model alone made."""
    folder = tmp_path_factory.mktemp("members")
    for seed, name in enumerate(("model", "early", "other")):
        save_model(folder / name, seed=seed)
    corpus = write_corpus(folder / "corpus.jsonl", sentences(ROWS))
    write_corpus(folder / "queries.jsonl", sentences(QUERIES, seed=1))
    done("ingest", corpus, "--store", folder / "S", "--model", folder / "model", *settings())
    done("ingest", corpus, "--store", folder / "S", "--base", folder / "early", *settings("@early"))
    done("ingest", corpus, "--store", folder / "E", "--model", folder / "early", *settings())
    return folder


def all_scores(work: Path, store: str, method: str, out: Path) -> np.ndarray:
    """(N, Q), by the command line."""
    done("attribute", work / store, "--method", method, "--queries", work / "queries.jsonl", "--all-scores", out)
    return np.asarray(zarr.open_group(str(out), mode="r")["scores"])


@pytest.mark.parametrize("method", METHODS)
def test_scores_are_those_of_a_store_that_the_members_model_made(work: Path, method: str, tmp_path: Path) -> None:
    member = all_scores(work, "S", f"{method}@early", tmp_path / "S.zarr")
    alone = all_scores(work, "E", method, tmp_path / "E.zarr")
    np.testing.assert_array_equal(member, alone)
    assert abs(member - all_scores(work, "S", method, tmp_path / "own.zarr")).max() > 1e-3


def test_self_influence_and_tasks_of_a_member_are_those_of_its_model(work: Path, tmp_path: Path) -> None:
    for store, name in (("S", "graddot@early"), ("E", "graddot")):
        done("self-influence", work / store, "--method", name, "-o", tmp_path / f"self{store}.parquet")
        task = ["--method", name, "--queries", work / "queries.jsonl", "--count", 5]
        done("select", work / store, *task, "-o", tmp_path / f"set{store}.jsonl")
    ours, theirs = (pq.read_table(tmp_path / f"self{name}.parquet") for name in "SE")
    assert ours.select(["example_id", "score", "row"]) == theirs.select(["example_id", "score", "row"])
    rows = [
        [json.loads(line)["row"] for line in (tmp_path / f"set{store}.jsonl").read_text().splitlines()]
        for store in "SE"
    ]
    assert rows[0] == rows[1] and len(rows[0]) == 5


def test_the_record_of_a_member_names_its_model_and_seed(work: Path) -> None:
    facts = json.loads(done("info", work / "S", "--json").stdout)["methods"]
    made = FeatureStore.open(work / "E").provenance
    expected = {"path": str(work / "early"), "model": made["model"], "tokenizer": made["tokenizer"]}
    assert facts["rise@early"]["model"] == expected and facts["rise@early"]["settings"]["seed"] == 0
    assert "model" not in facts["rise"] and str(work / "early") in done("info", work / "S").stdout
    done("verify", work / "S")
    done("compress", work / "S", "--method", "rise@early", "--precision", "int8")


def test_what_a_members_model_cannot_be_is_refused_in_one_line(work: Path, tmp_path: Path) -> None:
    save_model(tmp_path / "words", seed=4)
    save_tokenizer(tmp_path / "words")
    save_model(tmp_path / "brief", seed=4, max_position_embeddings=16)
    write_corpus(tmp_path / "changed.jsonl", [*sentences(ROWS - 1), "another text"])
    corpus, store = work / "corpus.jsonl", ("--store", work / "S")
    for words, text in (
        ((corpus, *store, "--method", "rise@early", "--base", work / "other"), "were made with"),
        ((corpus, *store, "--method", "rise", "--base", work / "early"), "--method rise@early"),
        ((corpus, *store, "--method", "rise@w", "--base", tmp_path / "words"), "tokenizer is"),
        ((corpus, *store, "--method", "rise@b", "--base", tmp_path / "brief"), "exceeds the model's context"),
        ((corpus, *store, "--method", "rise@n", "--base", tmp_path / "nowhere"), "nowhere"),
        ((corpus, *store, "--model", work / "other", "--method", "rise@o"), "model is"),
        (
            (corpus, *store, "--method", "rise@early", "--method", "rise@o", "--model", work / "model"),
            "a command of its own",
        ),
        ((tmp_path / "changed.jsonl", *store, "--method", "rise@c", "--base", work / "early"), "another corpus"),
        (
            (corpus, "--store", tmp_path / "N", "--method", "rise@early", "--base", work / "early"),
            "store's own model first",
        ),
        ((corpus, *store, "--append", "--method", "rise@early"), "without --append"),
    ):
        wrong = headwater("ingest", *words)
        assert wrong.exit_code == 1 and text in wrong.stderr and wrong.stderr.count("\n") <= 2, (words, wrong.output)
    absent = headwater("self-influence", work / "S", "--method", "graddot@late")
    assert absent.exit_code == 1 and "no rows of method graddot@late" in absent.stderr


def test_a_base_that_no_fit_can_have_is_refused_before_a_row_is_read(work: Path, tmp_path: Path) -> None:
    shutil.copytree(work / "S", tmp_path / "S")
    reading = ["ingest", work / "corpus.jsonl", "--store", tmp_path / "S", "--base", work / "early", "--method"]
    mixed = headwater(*reading, "rise@b", "--method", "stride")
    assert mixed.exit_code == 1 and "--method stride@early" in mixed.stderr and mixed.stderr.count("\n") <= 2
    assert "rise@b" not in FeatureStore.open(tmp_path / "S").methods
    alone = headwater(*reading, "stride@early")
    command = f"headwater fit {tmp_path / 'S'} --method stride@early --base {work / 'early'}"
    assert alone.exit_code == 1 and command in alone.stderr and alone.stderr.count("\n") <= 2
    quick = [part for name, value in QUICK.items() for part in ("--set", f"stride@early.{name}", value)]
    done(*reading, "stride@early", "--model", work / "model", *quick)
    assert str(work / "early") in done("info", tmp_path / "S").stdout


def test_a_member_without_rows_may_begin_again_with_another_model(work: Path, tmp_path: Path) -> None:
    shutil.copytree(work / "S", tmp_path / "S")
    corpus, store = work / "corpus.jsonl", FeatureStore.open(tmp_path / "S")
    methods = {"rise@b": SIZES, "repsim@b": {}}
    save_model(tmp_path / "narrow", seed=4, hidden_size=16)  # its columns are others
    prepare(IngestJob([str(corpus)], str(store.path), ModelChoice(""), methods, base=str(tmp_path / "narrow"))).open()
    statistics = store.path / "methods/rise@b/state/statistics"
    write_state(statistics, {"of": "the other model"}, {})
    assert FeatureStore.open(store.path).groups["methods/rise@b"].model["path"] == str(tmp_path / "narrow")
    words = [part for key, value in SIZES.items() for part in ("--set", f"rise@b.{key}", value)]
    reading = ["ingest", corpus, "--store", store.path, "--method", "rise@b", "--method", "repsim@b", *words, "--base"]
    done(*reading, work / "early")
    assert not has_state(statistics)
    shutil.copy(work / "queries.jsonl", tmp_path)
    own = all_scores(tmp_path, "S", "rise@b", tmp_path / "b.zarr")
    np.testing.assert_array_equal(own, all_scores(work, "E", "rise", tmp_path / "E.zarr"))
    assert all_scores(tmp_path, "S", "repsim@b", tmp_path / "r.zarr").shape == (ROWS, QUERIES)
    later = headwater(*reading, work / "other")
    assert later.exit_code == 1 and "were made with" in later.stderr
    done("verify", store.path)


def test_appended_documents_reach_a_member_by_a_run_of_its_own(work: Path, tmp_path: Path) -> None:
    more = write_corpus(tmp_path / "more.jsonl", sentences(7, seed=3))
    for name in ("S", "E"):
        shutil.copytree(work / name, tmp_path / name)
    done("ingest", more, "--store", tmp_path / "S", "--model", work / "model", "--append")
    asked = ["attribute", tmp_path / "S", "--method", "rise@early", "--queries", work / "queries.jsonl"]
    unfinished = headwater(*asked)
    command = f"headwater add {tmp_path / 'S'} rise@early to continue"
    assert unfinished.exit_code == 1 and "for 30 of 37 examples" in unfinished.stderr and command in unfinished.stderr
    both = [work / "corpus.jsonl", more]
    done("ingest", *both, "--store", tmp_path / "S", "--method", "rise@early")  # the model is at its recorded path
    done("ingest", more, "--store", tmp_path / "E", "--model", work / "early", "--append")
    scores = []
    for store, method in (("S", "rise@early"), ("E", "rise")):
        words = ["--method", method, "--queries", work / "queries.jsonl", "--all-scores", tmp_path / f"{store}.zarr"]
        done("attribute", tmp_path / store, *words)
        scores.append(np.asarray(zarr.open_group(str(tmp_path / f"{store}.zarr"), mode="r")["scores"]))
    assert scores[0].shape == (37, QUERIES)
    np.testing.assert_array_equal(*scores)


def scores_of(words: list[object]) -> list[tuple[str, float]]:
    """The answers that a command prints as JSON lines; the digest of the store, which has changed, is left out."""
    rows = [json.loads(line) for line in done(*words).stdout.splitlines()]
    return [(row["example_id"], row["score"]) for row in rows]


def test_a_model_that_is_gone_or_has_moved(work: Path, tmp_path: Path) -> None:
    shutil.copytree(work / "S", tmp_path / "S")
    shutil.copytree(work / "early", tmp_path / "moved")
    asked = ["attribute", tmp_path / "S", "--method", "rise@early", "--queries", work / "queries.jsonl", "--json"]
    before = scores_of(asked)
    reading = ["ingest", work / "corpus.jsonl", "--store", tmp_path / "S", "--method", "rise@early", "--base"]
    done(*reading, tmp_path / "moved")
    assert scores_of(asked) == before
    shutil.rmtree(tmp_path / "moved")
    gone = headwater(*asked)
    assert gone.exit_code == 1 and "the model of rise@early" in gone.stderr and "--base PATH" in gone.stderr
    assert gone.stderr.count("\n") <= 2
    assert scores_of([*asked, "--model", work / "early"]) == before
    changed = headwater(*asked, "--model", work / "model")
    assert changed.exit_code == 1 and "member rise@early, does not match this run: model is" in changed.stderr
