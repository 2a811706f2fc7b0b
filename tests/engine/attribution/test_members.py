"""Several members of a method together: mean and sum against float64 by hand, their spread, and what cannot be combined."""

from __future__ import annotations

import csv
import gc
import json
import math
import shutil
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import zarr
from headwater.engine.attribution.members import chosen_members, members_of
from headwater.engine.attribution.members_session import rank_range
from headwater.engine.attribution.open_session import open_session
from headwater.engine.attribution.query_options import MemberChoice, QueryOptions, SearchOptions
from headwater.engine.attribution.stored_members import aligned
from headwater.engine.ingest import open_provider
from headwater.engine.models.language_model import LanguageModel, ModelChoice, load
from headwater.store.errors import SettingsError
from running import done, headwater
from small import save_model, sentences, write_corpus

ROWS, QUERIES, TOP = 90, 4, 7
SMALL = {"kr": 16, "kh": 16, "kg": 8}
SEEDS, MEMBERS = ["rise", "rise@1", "rise@2"], ["rise", "rise@1", "rise@2", "rise@small", "rise@early"]


def options(name: str, **values: int) -> list[object]:
    return [
        "--method",
        name,
        *(part for key, value in (SMALL | values).items() for part in ("--set", f"{name}.{key}", value)),
    ]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of rise under three seeds, with other settings and by another model, and of graddot by both models."""
    folder = tmp_path_factory.mktemp("members")
    for seed, name in enumerate(("model", "early")):
        save_model(folder / name, seed=seed)
    corpus = write_corpus(folder / "corpus.jsonl", sentences(ROWS))
    write_corpus(folder / "queries.jsonl", sentences(QUERIES, seed=1))
    reading = ["ingest", corpus, "--store", folder / "S", "--model", folder / "model"]
    done(*reading, "--seeds", 3, *options("rise"))
    done(*reading, *options("rise@small", kr=8, tau=2), "--method", "graddot")
    done(*reading[:4], "--base", folder / "early", *options("rise@early"), "--method", "graddot@early")
    return folder


@pytest.fixture(scope="module")
def each(work: Path) -> dict[str, np.ndarray]:
    """Member → (N, Q) float64, each asked alone."""
    scores = {}
    for name in [*MEMBERS, "graddot", "graddot@early"]:
        done("attribute", *asked(work), "--method", name, "--all-scores", work / f"{name}.zarr")
        scores[name] = np.asarray(zarr.open_group(str(work / f"{name}.zarr"), mode="r")["scores"]).astype(np.float64)
    return scores


def asked(work: Path, store: str = "S") -> list[object]:
    return [work / store, "--queries", work / "queries.jsonl"]


def scaled(scores: np.ndarray) -> np.ndarray:
    """(members, N, Q), each member's scores of a query over their root mean square."""
    return scores / np.sqrt(np.mean(scores**2, 1, keepdims=True))


def expected(each: dict[str, np.ndarray], names: list[str], rule: str) -> np.ndarray:
    """(members, N, Q) on the scale of the rule."""
    raw = np.stack([each[name] for name in names])
    return raw if rule == "sum" or set(names) <= set(SEEDS) else scaled(raw)


@pytest.mark.parametrize(
    ("method", "labels", "names"),
    [("rise", "rise,1,2", SEEDS), ("rise", "2,1", ["rise@2", "rise@1"]), ("rise", "all", MEMBERS),
     ("rise@1", "early,rise@small", ["rise@early", "rise@small"]), ("graddot", "all", ["graddot", "graddot@early"])],
)  # fmt: skip
@pytest.mark.parametrize("rule", ["mean", "sum"])
def test_scores_are_the_rule_by_hand(
    work: Path, each: dict[str, np.ndarray], tmp_path: Path, method: str, labels: str, names: list[str], rule: str
) -> None:
    scores = expected(each, names, rule)
    combined = scores.sum(0) if rule == "sum" else scores.mean(0)
    words = [*asked(work), "--method", method, "--members", labels, "--combine", rule]
    done("attribute", *words, "--all-scores", tmp_path / "all.zarr")
    group = zarr.open_group(str(tmp_path / "all.zarr"), mode="r")
    np.testing.assert_allclose(np.asarray(group["scores"]), combined, rtol=2e-6, atol=2e-7 * abs(combined).max())
    assert group.attrs["members"] == names and group.attrs["combine"] == rule
    lines = [json.loads(line) for line in done("attribute", *words, "--top", TOP, "--json").stdout.splitlines()]
    error = scores.std(0, ddof=1) * (math.sqrt(len(names)) if rule == "sum" else 1 / math.sqrt(len(names)))
    for query in range(QUERIES):
        mine = lines[TOP * query : TOP * (query + 1)]
        rows = [line["row"] for line in mine]
        best = np.argsort(-combined[:, query], kind="stable")[:TOP]
        np.testing.assert_allclose(combined[rows, query], combined[best, query], rtol=1e-5)
        np.testing.assert_allclose([line["score"] for line in mine], combined[rows, query], rtol=1e-5)
        np.testing.assert_allclose([line["standard_error"] for line in mine], error[rows, query], rtol=1e-3, atol=1e-6)
        low, high = rank_range(scores[:, rows, query])
        assert [line["rank_low"] for line in mine] == low.tolist()
        assert [line["rank_high"] for line in mine] == high.tolist()


def test_a_value_is_the_mean_of_combined_scores_over_queries(
    work: Path, each: dict[str, np.ndarray], tmp_path: Path
) -> None:
    combined = expected(each, MEMBERS, "mean").mean(0)
    words = ["value", *asked(work), "--members", "all"]
    printed = done(*words, "-o", tmp_path / "v.parquet")
    np.testing.assert_allclose(
        pq.read_table(tmp_path / "v.parquet")["score"].to_numpy(), combined.mean(1), rtol=1e-5, atol=1e-6
    )
    assert "differ by more than their seed" in printed.stderr
    assert "differ by" not in done(*words[:-1], "rise,1").stderr
    first = json.loads(done(*words, "--json", "--top", 1).stdout)
    over_queries = expected(each, MEMBERS, "mean").mean(2)[:, first["row"]]
    assert first["standard_error"] == pytest.approx(over_queries.std(ddof=1) / math.sqrt(5), rel=1e-3)
    by_file = json.loads(done(*words, "--by", "source", "--json").stdout.splitlines()[0])
    assert by_file["total"] == pytest.approx(combined.mean(1).sum(), rel=1e-4)


def test_the_spread_has_the_same_names_in_every_format(work: Path, tmp_path: Path) -> None:
    words = ["attribute", *asked(work), "--members", "all", "--top", 3]
    for name in ("a.jsonl", "a.csv", "a.parquet"):
        done(*words, "-o", tmp_path / name)
    names = {"standard_error", "rank_low", "rank_high"}
    table = pq.read_table(tmp_path / "a.parquet").to_pydict()
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for name in names:
        assert [line[name] for line in lines] == pytest.approx(table[name]) == [float(row[name]) for row in rows]
    assert set(table["method"]) == {"rise, mean of 5 members"} and " ± " in done(*words).stdout
    alone = json.loads(
        done("attribute", *asked(work), "--method", "rise@early", "--top", 1, "--json").stdout.splitlines()[0]
    )
    assert not names & set(alone)  # one member has no spread


def test_which_members_are_combined() -> None:
    names = ["headcos", "rise@early", "rise", "rise@1", "riser"]
    members = members_of(names, "rise@x")
    assert members == ["rise", "rise@early", "rise@1"] and members_of(names, "graddot") == []
    assert chosen_members(members, "rise", ("all",), "") == members
    assert chosen_members(members, "rise", ("1", "rise", "rise@1"), "") == ["rise@1", "rise"]


def test_members_that_cannot_be_combined_are_one_line(work: Path) -> None:
    for words, text in (
        (
            ("--members", "early,late"),
            "no member rise@late: its members are rise, rise@1, rise@2, rise@small, rise@early",
        ),
        (("--members", "early"), "--method rise@early answers from this one"),
        (
            ("--method", "headcos", "--members", "all"),
            "headcos, which has none: headwater ingest --method headcos --seeds 5 adds more",
        ),
        (("--method", "repsim", "--members", "all"), "repsim, which has none: headwater ingest --method repsim@MEMBER"),
        (("--method", "risse", "--members", "all"), "hint: did you mean rise?"),
        (("--members", "all", "--certify"), "leave out --scan"),
        (("--members", "all", "--memory", "1kB"), "smallest budget that works"),
    ):
        wrong = headwater("attribute", *asked(work), *words)
        assert wrong.exit_code == 1 and text in wrong.stderr and wrong.stderr.count("\n") <= 2, wrong.output
    assert headwater("attribute", *asked(work), "--combine", "sum").exit_code == 2
    for labels in (",", "rise,", ",1", "rise,,1"):
        empty = headwater("attribute", *asked(work), "--members", labels)
        assert empty.exit_code == 2 and f"--members {labels}: nothing" in empty.stderr


def test_no_member_is_labelled_as_all_of_them(work: Path) -> None:
    reading = ["ingest", work / "corpus.jsonl", "--store", work / "S", "--model", work / "model", "--method"]
    for words in ([*reading, "rise@all"], [*reading, "stride@all"], ["fit", work / "S", "--bases", work / "all"]):
        refused = headwater(*words)
        assert refused.exit_code == 1 and "@all cannot name a member" in refused.stderr
        assert refused.stderr.count("\n") <= 2


def test_a_method_of_which_there_are_labelled_members_alone_lists_them(work: Path, tmp_path: Path) -> None:
    corpus = ["ingest", work / "corpus.jsonl", "--store", tmp_path / "S", "--model", work / "model"]
    done(*corpus, *options("rise@a"), *options("rise@b", kr=8))
    alone = headwater("attribute", tmp_path / "S", "--queries", work / "queries.jsonl")
    assert alone.exit_code == 1 and "it has rise@a, rise@b" in alone.stderr  # without --method
    alone = headwater("attribute", tmp_path / "S", "--queries", work / "queries.jsonl", "--method", "rise")
    assert alone.exit_code == 1 and "its members are rise@a, rise@b: name one, or" in alone.stderr
    done("attribute", tmp_path / "S", "--queries", work / "queries.jsonl", "--method", "rise", "--members", "all")


def test_members_with_different_numbers_of_rows_are_refused(work: Path, tmp_path: Path) -> None:
    shutil.copytree(work / "S", tmp_path / "S")
    more = write_corpus(tmp_path / "more.jsonl", sentences(5, seed=3))
    done("ingest", more, "--store", tmp_path / "S", "--model", work / "model", "--method", "rise", "--append")
    words = ["attribute", tmp_path / "S", "--queries", work / "queries.jsonl", "--members", "rise,1"]
    refused = headwater(*words)
    assert refused.exit_code == 1 and "rows of rise@1 for 90 of 95 examples" in refused.stderr
    partial = headwater(*words, "--partial")
    assert (
        partial.exit_code == 1
        and "the members rise, rise@1 have 90 to 95 rows\nhint: run headwater add" in partial.stderr
    )


def test_the_plan_counts_each_model_once_and_every_members_scan(work: Path) -> None:
    def plan(method: str, *labels: str) -> dict[str, int]:
        search = SearchOptions(all_scores=True, members=MemberChoice(labels))
        model = ModelChoice("", "cpu")
        session = open_session(
            str(work / "S"), method, str(work / "queries.jsonl"), QueryOptions(TOP, model, search=search)
        )
        return {part.name: part.bytes for part in session.plan.parts}

    alone, all_of_them = plan("rise"), plan("rise", "all")
    assert all_of_them["model weights"] == alone["model weights"]
    assert all_of_them["blocks in flight"] > 3 * alone["blocks in flight"] and "scores of all members" in all_of_them


def test_of_several_models_one_is_in_memory_at_a_time(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[weakref.ref[object]] = []
    alive: list[int] = []

    def counted(choice: ModelChoice) -> LanguageModel:
        gc.collect()  # a model of transformers has references to itself
        alive.append(sum(reference() is not None for reference in loaded))
        model = load(choice)
        loaded.append(weakref.ref(model.trunk))
        return model

    monkeypatch.setattr(open_provider, "load", counted)
    search = SearchOptions(members=MemberChoice(("rise", "early", "1")))
    session = open_session(str(work / "S"), "rise", str(work / "queries.jsonl"), QueryOptions(TOP, search=search))
    session.attribute()
    assert len(alive) >= 4 and alive == [0] * len(alive)


def test_blocks_that_end_at_different_rows_are_aligned() -> None:
    chance = np.random.default_rng(0)
    scores = chance.normal(size=(3, 50, 2)).astype(np.float32)

    def scan(member: int, size: int) -> Iterator[tuple[int, np.ndarray]]:
        buffer = np.empty((size, 2), np.float32)  # valid until the next iteration alone
        for first in range(0, 50, size):
            part = scores[member, first : first + size]
            buffer[: len(part)] = part
            yield first, buffer[: len(part)]

    blocks = [(first, np.stack(parts)) for first, parts in aligned([scan(0, 7), scan(1, 50), scan(2, 16)])]
    assert [first for first, _ in blocks] == np.cumsum([0, *(part.shape[1] for _, part in blocks[:-1])]).tolist()
    np.testing.assert_array_equal(np.concatenate([part for _, part in blocks], 1), scores)


def test_a_label_may_be_unknown_to_a_method_with_one_member() -> None:
    with pytest.raises(SettingsError, match="rise has no member rise@early: its members are rise"):
        chosen_members(["rise"], "rise", ("rise", "early"), "add")


def test_one_member_is_not_several() -> None:
    with pytest.raises(SettingsError, match="rise, which has rise: add"):
        chosen_members(["rise"], "rise", ("all",), "add")
