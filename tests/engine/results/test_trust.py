"""Trust in a score: self-influence, scores added up by group, ranks that noise allows; against sums and sketches done anew."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import zarr
from headwater.engine.attribution.members_session import rank_range
from headwater.engine.attribution.self_influence import SelfInfluence
from headwater.engine.runtime.run import Run
from running import done, headwater
from small import save_model, sentences, write_corpus

ROWS, QUERIES, SEEDS = 150, 4, 4
METHODS = ("rise", "graddot", "logra", "headgn")
SMALL = ["--set", "rise.kr", "16", "--set", "rise.kh", "16", "--set", "rise.kg", "8", "--set", "headgn.k", "8"]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of four methods (rise under four seeds), its corpus with a column `theme`, and queries."""
    folder = tmp_path_factory.mktemp("trust")
    model = save_model(folder / "model")
    records = [{"id": f"e{at}", "text": text, "theme": f"theme {at % 7}"} for at, text in enumerate(sentences(ROWS))]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    write_corpus(folder / "queries.jsonl", sentences(QUERIES, seed=1))
    reading = [folder / "corpus.jsonl", "--store", folder / "S", "--model", model]
    done("ingest", *reading, "--method", "rise", "--seeds", SEEDS, *SMALL[:9])
    more = [part for name in METHODS[1:] for part in ("--method", name)]
    done("ingest", *reading, *more, *SMALL[9:])
    return folder


def every_score(work: Path, method: str) -> np.ndarray:
    """(N, Q), by the command line."""
    path = work / f"{method}.zarr"
    if not path.exists():
        done("attribute", work / "S", "--queries", work / "queries.jsonl", "--method", method, "--all-scores", path)
    return np.asarray(zarr.open_group(str(path), mode="r")["scores"])


@pytest.mark.parametrize("method", METHODS)
def test_self_influence_is_the_score_of_an_example_as_a_query(work: Path, method: str) -> None:
    queries = work / "own.jsonl"
    queries.write_text("".join((work / "corpus.jsonl").read_text().splitlines(keepends=True)[40:50]))
    path = work / f"own-{method}.zarr"
    done("attribute", work / "S", "--queries", queries, "--method", method, "--all-scores", path)
    scores = np.asarray(zarr.open_group(str(path), mode="r")["scores"])
    done("self-influence", work / "S", "--method", method, "-o", work / f"{method}.parquet")
    found = pq.read_table(work / f"{method}.parquet").to_pydict()
    assert found["row"] == list(range(ROWS)) and found["example_id"][3] == "e3"
    expected = np.array([scores[40 + at, at] for at in range(10)])
    # the query's own row was not rounded to float16
    assert np.allclose(found["score"][40:50], expected, rtol=3e-3)


def test_self_influence_of_unit_rows_is_said_to_tell_nothing(work: Path) -> None:
    told = done("self-influence", work / "S", "--method", "rise", "--top", "2").stderr
    assert "all examples have the same self-influence" in told
    result = done("self-influence", work / "S", "--method", "graddot", "--top", "3", "--json")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["rank"] for line in lines] == [1, 2, 3] and lines[0]["score"] >= lines[1]["score"] >= lines[2]["score"]
    assert "the same" not in result.stderr


@pytest.mark.parametrize("left_out", ["", "--no-text"])
def test_the_default_answers_from_a_store_that_ingest_makes_by_default(
    work: Path, tmp_path: Path, left_out: str
) -> None:
    """RISE's rows have unit norm: the gradients are computed from the store's examples, and are those that would be stored."""
    words = [left_out] if left_out else []
    done("ingest", work / "corpus.jsonl", "--store", tmp_path / "S", "--model", work / "model", *words)
    result = done("self-influence", tmp_path / "S", "-o", tmp_path / "own.parquet")
    done("self-influence", work / "S", "--method", "graddot", "-o", tmp_path / "stored.parquet")
    own, stored = (pq.read_table(tmp_path / f"{name}.parquet").to_pydict() for name in ("own", "stored"))
    assert own["row"] == stored["row"] == list(range(ROWS)) and own["example_id"] == stored["example_id"]
    assert np.allclose(own["score"], stored["score"], rtol=1e-4) and np.ptp(own["score"]) > 0.1 * max(own["score"])
    assert "has no rows of graddot: they are computed" in result.stderr and result.stderr.count("\n") == 2
    told = done("self-influence", tmp_path / "S", "--method", "rise").stderr
    assert "rows of rise have unit norm; without --method, graddot tells them apart" in told
    plan = SelfInfluence(str(tmp_path / "S"), "graddot").plan
    assert SelfInfluence(str(tmp_path / "S"), "graddot", run=Run(plan.total)).plan.total <= plan.total
    line, _ = headwater("self-influence", tmp_path / "S", "--memory", "1MB").stderr.splitlines()
    advice = re.search(r"--memory allows 1MB; .* the smallest budget that works is (\S+)$", line)
    assert advice, line
    done("self-influence", tmp_path / "S", "--memory", advice[1])


def test_self_influence_keeps_its_promise_and_depends_on_no_block(work: Path) -> None:
    whole = np.concatenate([part for _, part in SelfInfluence(str(work / "S"), "graddot").scores()])
    tight = SelfInfluence(str(work / "S"), "graddot")
    small = SelfInfluence(str(work / "S"), "graddot", run=Run(tight.plan.total - 1000))
    assert small.plan.total < tight.plan.total
    assert np.array_equal(np.concatenate([part for _, part in small.scores()]), whole)
    assert "error: " in headwater("self-influence", work / "S", "--method", "graddot", "--memory", "1KB").stderr
    assert "has no rows of method trak" in headwater("self-influence", work / "S", "--method", "trak").stderr


def test_scores_by_column_are_sums_over_the_corpus(work: Path) -> None:
    scores = every_score(work, "graddot").astype(np.float64)
    asked = [
        "--queries",
        work / "queries.jsonl",
        "--method",
        "graddot",
        "--by",
        "theme",
        "--columns",
        work / "corpus.jsonl",
    ]
    lines = [json.loads(line) for line in done("attribute", work / "S", *asked, "--json").stdout.splitlines()]
    assert len(lines) == 7 * QUERIES
    for at, line in enumerate(lines):
        query, theme = at // 7, int(line["group"].split()[1])
        rows = np.arange(theme, ROWS, 7)
        own = scores[rows, query]
        assert line["examples"] == len(rows) and line["rank"] == at % 7 + 1
        assert np.isclose(line["total"], own.sum()) and np.isclose(line["mean"], own.mean())
        assert line["best_example"] == f"e{rows[int(np.argmax(own))]}" and np.isclose(line["best"], own.max())
    means = [line["mean"] for line in lines[:7]]
    assert means == sorted(means, reverse=True)


def test_values_by_source_are_the_means_of_all_queries(work: Path) -> None:
    scores = every_score(work, "graddot")
    asked = ["--queries", work / "queries.jsonl", "--method", "graddot", "--by", "source"]
    (line,) = (json.loads(one) for one in done("value", work / "S", *asked, "--json").stdout.splitlines())
    assert line["group"] == "corpus.jsonl" and line["examples"] == ROWS
    assert np.isclose(line["mean"], scores.mean(dtype=np.float64))
    table = done("value", work / "S", *asked).stdout
    assert "corpus.jsonl" in table and "all queries" in table


def test_bad_groups_are_one_line(work: Path) -> None:
    asked = ["attribute", work / "S", "--queries", work / "queries.jsonl", "--method", "graddot"]
    assert "has no column theme" in headwater(*asked, "--by", "theme").stderr
    assert "--by COLUMN" in headwater(*asked, "--columns", work / "corpus.jsonl").stderr
    assert "has no column author" in headwater(*asked, "--by", "author", "--columns", work / "corpus.jsonl").stderr
    some = work / "some.jsonl"
    some.write_text("".join((work / "corpus.jsonl").read_text().splitlines(keepends=True)[:5]))
    assert "no record for example e5" in headwater(*asked, "--by", "theme", "--columns", some).stderr


def test_several_seeds_give_the_mean_with_its_error(work: Path) -> None:
    each = np.stack([every_score(work, name) for name in ("rise", *(f"rise@{seed}" for seed in range(1, SEEDS)))])
    assert all(abs(each[0] - each[at]).max() > 1e-3 for at in range(1, SEEDS))  # seeds differ
    mean, error = each.mean(0, dtype=np.float64), each.astype(np.float64).std(0, ddof=1) / np.sqrt(SEEDS)
    asked = ["--queries", work / "queries.jsonl", "--members", "all", "--top", "8"]
    found = [json.loads(line) for line in done("attribute", work / "S", *asked, "--json").stdout.splitlines()]
    for query in range(QUERIES):
        mine = found[8 * query : 8 * query + 8]
        order = np.argsort(-mean[:, query], kind="stable")[:8]
        assert [line["row"] for line in mine] == order.tolist()
        assert np.allclose([line["score"] for line in mine], mean[order, query], atol=1e-6)
        assert np.allclose([line["standard_error"] for line in mine], error[order, query], atol=1e-6)
        assert all(line["rank_low"] <= line["rank"] <= line["rank_high"] for line in mine)
    done("attribute", work / "S", *asked, "-o", work / "seeds.parquet")
    assert pq.read_table(work / "seeds.parquet")["rank_high"].to_pylist() == [line["rank_high"] for line in found]
    assert " ± " in done("attribute", work / "S", *asked).stdout
    assert " ± " in done("value", work / "S", *asked).stdout


def test_seeds_that_are_not_there_or_not_possible_are_one_line(work: Path) -> None:
    asked = ["attribute", work / "S", "--queries", work / "queries.jsonl"]
    assert "--seeds 5 adds more" in headwater(*asked, "--method", "graddot", "--members", "all").stderr
    assert "leave out --scan" in headwater(*asked, "--members", "all", "--certify").stderr
    reading = [work / "corpus.jsonl", "--store", work / "S", "--model", work / "model"]
    assert "repsim has no setting seed" in headwater("ingest", *reading, "--method", "repsim", "--seeds", "2").stderr


def test_ranks_are_told_apart_where_seeds_agree_and_not_where_they_do_not() -> None:
    chance = np.random.default_rng(0)
    low, high = rank_range(np.array([3.0, 2.0, 1.0]) + 1e-3 * chance.normal(size=(5, 3)))
    assert low.tolist() == high.tolist() == [1, 2, 3]
    low, high = rank_range(np.array([1e-3, 0.0, 0.0]) + chance.normal(size=(5, 3)))
    assert low.tolist() == [1, 1, 1] and high.tolist() == [3, 3, 3]


def test_the_true_rank_lies_in_the_range_as_often_as_is_said() -> None:
    """Pairs are wrong one time in twenty, and a range is as wide as its pairs leave it: over 90 % hold the true rank."""
    chance, truth, inside = np.random.default_rng(1), np.linspace(1, 0, 6), []
    for _ in range(400):
        scores = truth + 0.15 * chance.normal(size=(5, 6))
        order = np.argsort(-scores.mean(0))
        low, high = rank_range(scores[:, order])
        inside += [low[place] <= true + 1 <= high[place] for place, true in enumerate(order)]
    assert np.mean(inside) > 0.9


def test_options_that_exclude_each_other_say_so(work: Path) -> None:
    asked = ["attribute", work / "S", "--queries", work / "queries.jsonl", "--all-scores", work / "never.zarr"]
    for more in (["--json"], ["--by", "source"], ["--columns", work / "corpus.jsonl"]):
        assert "leave out -o, --json, --by and --bottom" in headwater(*asked, *more).stderr
    assert not (work / "never.zarr").exists()


def test_seeds_of_unequal_length_are_one_line(work: Path, tmp_path: Path) -> None:
    corpus, more = (
        write_corpus(tmp_path / f"{name}.jsonl", sentences(5, seed)) for seed, name in enumerate(("a", "b"))
    )
    words = ["--store", tmp_path / "S", "--model", work / "model", *SMALL[:9]]
    done("ingest", corpus, *words, "--seeds", 2)
    done("ingest", more, *words[:4], "--method", "rise", "--append")
    asked = headwater("attribute", tmp_path / "S", "--queries", work / "queries.jsonl", "--members", "all")
    assert asked.exit_code == 1 and "for 5 of 10 examples" in asked.stderr
