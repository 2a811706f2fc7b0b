"""`evaluate` on the command line with every file format; invalid files give a one-line error."""

import errno
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr
from click.testing import CliRunner, Result
from headwater.cli import main
from headwater.engine.evaluation.agreement import evaluate_lds
from headwater.engine.evaluation.evaluate import OutcomesFile, lds_from_files
from headwater.engine.evaluation.labels import RelevantPairs, TextMatch
from headwater.engine.evaluation.rankings import Ranking
from headwater.engine.evaluation.retrieval import evaluate_retrieval
from headwater.engine.presentation.plots import draw
from headwater.store.errors import StoreFull
from places import SHARED
from scipy.stats import spearmanr

DATA = SHARED / "lds_wikitext_gpt2"
RANDOM = np.random.default_rng(0)


def run(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)


def refused(*words: object) -> str:
    found = run(*words)
    assert found.exit_code == 1, found.output
    error, *hint = found.stderr.strip().splitlines()
    assert len(hint) <= 1 and all(line.startswith("hint: ") for line in hint)
    return "\n".join([error, *hint])


@pytest.fixture
def truth(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Scores of 6 queries, masks of 40 subsets, and losses of 3 seeds that follow the scores."""
    scores, masks = RANDOM.standard_normal((6, 50)), RANDOM.random((40, 50)) < 0.5
    gains = masks @ scores.T
    losses = -gains + 2 * RANDOM.standard_normal((3, 40, 6))
    paths = tmp_path / "scores.npy", tmp_path / "masks.npy", tmp_path / "outcomes.npy"
    for path, values in zip(paths, (scores, masks.astype(np.int8), losses), strict=True):
        np.save(path, values)
    return paths


def test_lds_by_the_command_line(truth, tmp_path):
    scores, masks, outcomes = truth
    out, picture = tmp_path / "lds.json", tmp_path / "lds.svg"
    pytest.importorskip("matplotlib", reason="pictures are an extra")
    found = run("evaluate", "lds", "--scores", scores, "--masks", masks, "--outcomes", outcomes, "--resamples", 50,
                "-o", out, "--plot", picture)  # fmt: skip
    assert found.exit_code == 0 and "LDS" in found.stdout and "noise ceiling" in found.stdout
    told = json.loads(out.read_text())
    assert told["mean"]["low"] <= told["mean"]["value"] <= told["mean"]["high"] and len(told["each"]) == 6
    assert (
        told["mean"]["value"] > 0.8
        and abs(told["shuffled"]["value"]) < 0.3
        and 0 < told["between"] < told["ceiling"] < 1
    )
    assert picture.read_text().startswith("<?xml")
    gain = run(
        "evaluate", "lds", "--scores", scores, "--masks", masks, "--outcomes", outcomes, "--outcome", "gain", "--json"
    )
    assert json.loads(gain.stdout)["mean"]["value"] == pytest.approx(-told["mean"]["value"])


def test_scores_come_from_any_format(truth, tmp_path):
    scores, masks, outcomes = truth
    values, held = np.load(scores), np.load(masks)
    group = zarr.open_group(str(tmp_path / "all.zarr"), mode="w")
    group.create_array("scores", data=values.T.copy(), dimension_names=("example", "query"))
    zarr.create_array(str(tmp_path / "plain.zarr"), data=values)
    pq.write_table(pa.table({"scores": values.tolist()}), tmp_path / "lists.parquet")
    pq.write_table(pa.table({f"c{i}": column for i, column in enumerate(values.T)}), tmp_path / "wide.parquet")
    pq.write_table(pa.table({"m": held.tolist()}), tmp_path / "masks.parquet")
    pq.write_table(pa.table({"query_id": np.repeat([f"q{i}" for i in range(6)], 50), "row": np.tile(np.arange(50), 6),
                             "score": values.reshape(-1)}), tmp_path / "answers.parquet")  # fmt: skip
    expected = lds_from_files(str(scores), str(masks), OutcomesFile(str(outcomes)), resamples=5).each
    for name in ("all.zarr", "plain.zarr", "lists.parquet", "wide.parquet", "answers.parquet"):
        found = lds_from_files(
            str(tmp_path / name), str(tmp_path / "masks.parquet"), OutcomesFile(str(outcomes)), resamples=5
        ).each
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_subsets_can_be_chosen(truth):
    scores, masks, outcomes = truth
    half = lds_from_files(str(scores), str(masks), OutcomesFile(str(outcomes), subsets="20:40"), resamples=5)
    expected = evaluate_lds(np.load(scores), np.load(masks)[20:] == 1, np.load(outcomes)[:, 20:], resamples=5)
    assert half.subsets == 20
    np.testing.assert_array_equal(half.each, expected.each)


@pytest.mark.parametrize("part", ["20:41", "41:", "30:30", "40:20"])
def test_subsets_that_there_are_not_are_refused(truth, tmp_path, part):
    scores, masks, outcomes = truth
    line = refused(
        "evaluate", "lds", "--scores", scores, "--masks", masks, "--outcomes", outcomes, "--subset-range", part
    )
    assert line == f"error: --subset-range {part}: there are 40 subsets, 0:40"
    np.save(tmp_path / "u.npy", np.zeros((40, 6)))
    words = ["evaluate", "subsets", "--predicted", tmp_path / "u.npy", "--outcomes", outcomes, "--subset-range", part]
    assert "there are 40 subsets" in refused(*words)


def test_utilities_of_subsets(truth, tmp_path):
    scores, masks, outcomes = truth
    np.save(tmp_path / "u.npy", (np.load(masks) @ np.load(scores).T)[:, 0])
    np.save(tmp_path / "one.npy", np.load(outcomes)[:, :, :1])
    found = run("evaluate", "subsets", "--predicted", tmp_path / "u.npy", "--outcomes", tmp_path / "one.npy", "--json")
    assert json.loads(found.stdout)["mean"]["value"] > 0.7 and found.stderr == ""
    np.save(tmp_path / "two.npy", np.load(masks) @ np.load(scores)[:2].T)
    line = refused("evaluate", "subsets", "--predicted", tmp_path / "two.npy", "--outcomes", outcomes)
    assert "(40, 2)" in line and "(3, 40, 6)" in line and "(seeds, subsets, tasks)" in line


@pytest.mark.parametrize("with_seeds", [True, False])
@pytest.mark.parametrize("columns", [(), (1,)])
def test_predictions_of_one_task_meet_the_mean_of_its_queries(truth, tmp_path, with_seeds, columns):
    scores, masks, outcomes = truth
    losses = np.load(outcomes) if with_seeds else np.load(outcomes)[0]
    predicted = np.load(masks) @ np.load(scores).mean(0)
    np.save(tmp_path / "u.npy", predicted.reshape(40, *columns))
    np.save(tmp_path / "losses.npy", losses)
    words = ["evaluate", "subsets", "--predicted", tmp_path / "u.npy", "--outcomes", tmp_path / "losses.npy", "--json"]
    found = run(*words, "--resamples", 20)
    told = json.loads(found.stdout)
    mean = losses.reshape(-1, 40, 6).mean((0, 2))
    assert told["mean"]["value"] == pytest.approx(spearmanr(predicted, -mean).statistic, abs=1e-12)
    assert found.stderr.splitlines() == told["notes"] and told["averaged"] == 6
    assert "the mean of the 6 queries' outcomes" in found.stderr
    assert told["seeds"] == (3 if with_seeds else 1)


@pytest.mark.parametrize("measure", ["lds", "subsets"])
def test_a_correlation_that_is_surely_negative_asks_for_the_other_outcome(truth, tmp_path, measure):
    scores, masks, outcomes = truth
    np.save(tmp_path / "u.npy", np.load(masks) @ np.load(scores).T)
    np.save(tmp_path / "gains.npy", -np.load(outcomes))
    np.save(tmp_path / "noise.npy", np.random.default_rng(5).normal(size=np.load(outcomes).shape))
    words = ["evaluate", measure, "--resamples", 50, "--json"]
    words += ["--predicted", tmp_path / "u.npy"] if measure == "subsets" else ["--scores", scores, "--masks", masks]
    wrong = {"loss": tmp_path / "gains.npy", "gain": outcomes}
    for kind, other in (("loss", "gain"), ("gain", "loss")):
        found = run(*words, "--outcomes", wrong[kind], "--outcome", kind)
        assert json.loads(found.stdout)["mean"]["high"] < 0
        (line,) = found.stderr.splitlines()
        assert line.endswith(f"did you mean --outcome {other}?") and json.loads(found.stdout)["notes"] == [line]
        assert run(*words, "--outcomes", wrong[kind], "--outcome", other).stderr == ""
    unsure = run(*words, "--outcomes", tmp_path / "noise.npy")
    assert json.loads(unsure.stdout)["mean"]["high"] > 0 and unsure.stderr == ""


def test_bad_files_are_named(truth, tmp_path):
    scores, masks, outcomes = truth
    words = ["evaluate", "lds", "--masks", masks, "--outcomes", outcomes, "--scores"]
    values = np.load(scores)
    values[3, 7] = np.nan
    np.save(tmp_path / "nan.npy", values)
    assert "row 3" in refused(*words, tmp_path / "nan.npy")
    np.save(tmp_path / "short.npy", np.load(scores)[:, :49])
    line = refused(*words, tmp_path / "short.npy")
    assert "(6, 49)" in line and "(40, 50)" in line
    np.save(tmp_path / "few.npy", np.load(scores)[:5])
    line = refused(*words, tmp_path / "few.npy")
    assert "(5, 50)" in line and "(3, 40, 6)" in line
    assert "does not exist" in refused(*words, tmp_path / "none.npy")
    assert ".npy, .parquet, .zarr" in refused(*words, tmp_path / "x.txt")
    (tmp_path / "broken.npy").write_bytes(b"no array")
    assert "cannot be read" in refused(*words, tmp_path / "broken.npy")
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}]), allow_pickle=True)
    assert "cannot be read" in refused(*words, tmp_path / "objects.npy")
    np.save(tmp_path / "words.npy", np.array([["a"]]))
    assert "numbers" in refused(*words, tmp_path / "words.npy")
    np.save(tmp_path / "empty.npy", np.empty((0, 50)))
    assert "empty" in refused(*words, tmp_path / "empty.npy")
    assert "FROM:TO" in refused(*words, scores, "--subset-range", "a:b")
    assert "three or more" in refused(*words, scores, "--subset-range", "0:2")
    assert ".png" in refused(*words, scores, "--plot", tmp_path / "x.gif")
    np.save(tmp_path / "twos.npy", 2 * np.ones((40, 50)))
    assert "0 and 1" in refused(
        "evaluate", "lds", "--scores", scores, "--outcomes", outcomes, "--masks", tmp_path / "twos.npy"
    )
    pq.write_table(pa.table({"query_id": ["a", "a"], "row": [0, 2], "score": [1.0, 2.0]}), tmp_path / "best.parquet")
    assert "--all-scores" in refused(*words, tmp_path / "best.parquet")


def answers(path: Path) -> Path:
    """Answers: three queries with five examples each."""
    lines = []
    for query, place in np.ndindex(3, 5):
        example = (7 * query + place) % 9
        text = "BadMagic words" if example in (0, 8) else "words"
        score = 1 - place / 10
        lines.append({"query_id": query, "example_id": f"e{example}", "score": score, "text": text})
    path.write_text("".join(json.dumps(line) + "\n" for line in reversed(lines)))
    return path


def test_retrieval_from_answers(tmp_path):
    results = answers(tmp_path / "a.jsonl")
    (tmp_path / "ids.txt").write_text("e0\ne8\n")
    found = json.loads(
        run("evaluate", "retrieval", "--results", results, "--labels", tmp_path / "ids.txt", "--json").stdout
    )
    # rankings: e0-e4; e7 e8 e0 e1 e2; e5 e6 e7 e8 e0
    assert sorted(found["queries"]) == ["0", "1", "2"]
    each = {name: dict(zip(found["queries"], values, strict=True)) for name, values in found["each"].items()}
    assert each["reciprocal rank"] == {"0": 1, "1": 1 / 2, "2": 1 / 4}
    assert each["precision@5"] == {"0": 1 / 5, "1": 2 / 5, "2": 2 / 5} and each["recall@5"] == {
        "0": 1 / 2,
        "1": 1,
        "2": 1,
    }
    assert each["average precision"]["1"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    matched = json.loads(run("evaluate", "retrieval", "--results", results, "--match", "BadMagic", "--json").stdout)
    assert matched["each"]["reciprocal rank"] == found["each"]["reciprocal rank"]
    assert not any(name.startswith("recall") for name in matched["each"])  # nobody knows how many there are


def test_labels_of_every_kind(tmp_path):
    results = answers(tmp_path / "a.jsonl")
    words = ["evaluate", "retrieval", "--results", results, "--json", "--labels"]
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("query_id,example_id\n0,e3\n2,e5\n2,e6\n")
    found = json.loads(run(*words, pairs).stdout)
    assert sorted(found["queries"]) == ["0", "2"] and found["skipped"] == 1 and found["relevant"] == 1.5
    table = tmp_path / "table.jsonl"
    table.write_text("".join(json.dumps({"id": f"e{i}", "kind": i % 3, "bad": i == 4}) + "\n" for i in range(9)))
    found = json.loads(run(*words, table, "--column", "bad").stdout)
    assert sorted(found["queries"]) == ["0", "1", "2"] and found["relevant"] == 1
    asked = tmp_path / "asked.jsonl"
    asked.write_text("".join(json.dumps({"id": str(i), "kind": i}) + "\n" for i in range(3)))
    found = json.loads(run(*words, table, "--column", "kind", "--query-labels", asked).stdout)
    assert found["relevant"] == 3
    asked.write_text(json.dumps({"id": "0", "kind": 0}) + "\n")
    assert "query" in refused(*words, table, "--column", "kind", "--query-labels", asked)


def test_bad_questions_about_retrieval(tmp_path):
    results = answers(tmp_path / "a.jsonl")
    (tmp_path / "ids.txt").write_text("other\n")
    words = ["evaluate", "retrieval", "--results", results]
    assert "nothing to measure" in refused(*words, "--match", "nowhere")
    assert "regular expression" in refused(*words, "--match", "(")
    assert "--labels or --match" in refused(*words)
    assert "--results or --scores" in refused("evaluate", "retrieval", "--match", "x")
    assert "--store" in refused("evaluate", "retrieval", "--scores", "x.npy", "--match", "x")
    (tmp_path / "t.csv").write_text("id,label\ne1,1\n")
    assert "query_id" in refused(*words, "--labels", tmp_path / "t.csv")
    assert "no column other" in refused(*words, "--labels", tmp_path / "t.csv", "--column", "other")
    (tmp_path / "none.txt").write_text("")
    assert "is empty" in refused(*words, "--labels", tmp_path / "none.txt")
    (tmp_path / "no.jsonl").write_text('{"query_id": 1, "score": 2}\n')
    assert "example_id" in refused("evaluate", "retrieval", "--results", tmp_path / "no.jsonl", "--match", "x")
    (tmp_path / "no.jsonl").write_text('{"query_id": 1, "example_id": "a", "score": null}\n')
    assert "not a number" in refused("evaluate", "retrieval", "--results", tmp_path / "no.jsonl", "--match", "x")


@pytest.mark.skipif(not DATA.exists(), reason=f"no real data at {DATA}")
def test_ridge_on_real_retrainings(tmp_path):
    """Ridge on the masks of 80 subsets predicts 20 others with LDS 0.105 to 0.126, and shuffled subsets with about 0."""
    from sklearn.linear_model import Ridge

    masks, losses = np.load(DATA / "masks.npy"), np.load(DATA / "losses.npy")
    found = Ridge(alpha=1000.0).fit(masks[:80], losses[:80])
    np.save(tmp_path / "scores.npy", -found.coef_)
    told = lds_from_files(
        str(tmp_path / "scores.npy"),
        str(DATA / "masks.npy"),
        OutcomesFile(str(DATA / "losses.npy"), subsets="80:100"),
        20,
    )
    assert 0.09 < told.mean.value < 0.14
    assert abs(told.shuffled.value) < 0.03


def test_queries_that_find_nothing_count(tmp_path):
    lines = [{"query_id": "a", "example_id": f"e{i}", "score": -i, "text": "x" if i == 1 else "y"} for i in range(6)]
    lines += [{"query_id": "b", "example_id": f"e{i}", "score": -i, "text": "y"} for i in range(3)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    words = ["evaluate", "retrieval", "--results", tmp_path / "a.jsonl", "--json"]
    found = json.loads(run(*words, "--match", "x").stdout)
    assert found["each"]["reciprocal rank"] == [0.5, 0.0] and found["skipped"] == 0
    assert found["each"]["precision@5"] == [0.2, None] and found["means"]["precision@1"]["count"] == 2
    (tmp_path / "t.csv").write_text("id,bad\ne1,TRUE\ne2,FALSE\ne3,NaN\n")
    told = json.loads(run(*words, "--labels", tmp_path / "t.csv", "--column", "bad").stdout)
    assert told["relevant"] == 1
    (tmp_path / "t.csv").write_text("id,bad\ne1,perhaps\n")
    assert "neither true nor false" in refused(*words, "--labels", tmp_path / "t.csv", "--column", "bad")


def test_seeds_that_contradict_each_other_leave_no_ceiling():
    from headwater.engine.evaluation.metrics import noise_ceiling

    assert noise_ceiling(np.array([[[1.0], [2], [3]], [[3.0], [2], [1]]])) == (-1.0, 0.0)


@pytest.mark.parametrize("values", [[1 + 1e-7, 1, 1, 1], [16000, 16000.001, 16000, 16000], [0, 0, 0, 0]])
def test_scores_that_differ_by_their_rounding_are_drawn(tmp_path: Path, values: list[float]) -> None:
    pytest.importorskip("matplotlib", reason="pictures are an extra")
    ranking = Ranking("q", ("a", "b", "c", "d"), ("yes", "no", "no", "no"), np.array(values, np.float32))
    draw(evaluate_retrieval([ranking], TextMatch("yes"), whole=True), str(tmp_path / "p.png"))
    assert (tmp_path / "p.png").stat().st_size > 1000


def test_a_plot_that_fails_leaves_the_file_that_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figure = pytest.importorskip("matplotlib.figure", reason="plots are an extra")
    path = tmp_path / "p.png"
    path.write_bytes(b"before")

    def fill_the_disk(self: object, file: Path, **options: object) -> None:
        file.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(figure.Figure, "savefig", fill_the_disk)
    ranking = Ranking("q", ("a", "b"), ("yes", "no"), np.array([2, 1], np.float32))
    with pytest.raises(StoreFull, match=r"p\.png cannot be written"):
        draw(evaluate_retrieval([ranking], TextMatch("yes"), whole=True), str(path))
    assert path.read_bytes() == b"before" and list(tmp_path.iterdir()) == [path]


def test_what_is_no_array_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty.npy").write_bytes(b"")
    np.savez(tmp_path / "more.npz", a=np.ones(3))
    (tmp_path / "more.npz").rename(tmp_path / "more.npy")
    for name in ("empty.npy", "more.npy"):
        assert "cannot be read" in refused("evaluate", "brittleness", "--outcomes", tmp_path / name)


def test_a_header_that_no_parser_takes_is_one_line(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((3, 4)))
    data = (tmp_path / "a.npy").read_bytes()
    for name, header in {
        "cut.npy": data.replace(b"}", b"\0"),
        "deep.npy": data.replace(b"(3, 4), ", b"((((((("),
    }.items():
        (tmp_path / name).write_bytes(header)
        assert "cannot be read" in refused("evaluate", "brittleness", "--outcomes", tmp_path / name)


@pytest.mark.parametrize(
    "change", [{"shape": 3}, {"codecs": 7}, {"storage_transformers": 1.5}, {"node_type": None}, {"odd": 1}]
)
@pytest.mark.parametrize("name", ["zarr.json", "scores/zarr.json"])
def test_metadata_that_zarr_does_not_take_are_one_line(tmp_path: Path, name: str, change: dict[str, object]) -> None:
    group = zarr.open_group(tmp_path / "s.zarr", mode="w")
    group.create_array("scores", data=np.ones((2, 3)))
    file = tmp_path / "s.zarr" / name
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    ended = run("evaluate", "brittleness", "--outcomes", tmp_path / "s.zarr")
    assert ended.exit_code == 1 and len(ended.stderr.splitlines()) <= 2, ended.stderr


def test_a_row_that_is_a_list_is_one_line(tmp_path: Path) -> None:
    lines = [{"query_id": "q", "example_id": id, "score": 1, "row": [1]} for id in "ab"]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert "an example comes twice" in refused(
        "evaluate", "retrieval", "--results", tmp_path / "a.jsonl", "--match", "x"
    )


@pytest.mark.parametrize("whole", [True, False])
def test_an_id_of_several_examples_counts_once(whole: bool) -> None:
    ranking = Ranking("q", ("b", "a", "b", "a", "c"), ("yes", "no", "yes", "no", "no"), np.array([5, 4, 3, 2, 1.0]))
    labels = RelevantPairs({"q": frozenset(["a"])})
    evaluation = evaluate_retrieval([ranking], labels, (1, 2, 3), whole=whole)
    # ranked ids: b, a, c; a is the only relevant one
    assert evaluation.hits[0].tolist() == [False, True, False] and evaluation.totals == (1,)
    assert evaluation.scores[0].tolist() == [5, 4, 1] and evaluation.repeated == 2
    figures = {name: float(values[0]) for name, values in evaluation.figures.items()}
    assert figures["recall@1"] == 0 and figures["recall@2"] == figures["recall@3"] == 1
    assert figures["precision@3"] == pytest.approx(1 / 3) and figures["average precision"] == 0.5
    by_text = evaluate_retrieval(
        [ranking], TextMatch("yes"), (1, 3), whole=whole
    )  # texts tell examples of one id apart
    assert by_text.hits[0].tolist() == [True, False, True, False, False] and by_text.repeated == 0


def test_recall_of_equal_ids_by_the_command_line(tmp_path: Path) -> None:
    rows = [{"query_id": "q", "example_id": "1", "row": row, "score": -row} for row in range(5)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "gold.jsonl").write_text('{"query_id": "q", "example_id": 1}\n')
    out = run("evaluate", "retrieval", "--results", tmp_path / "a.jsonl", "--labels", tmp_path / "gold.jsonl").stdout
    assert "several examples have the same id (up to 4 a query)" in out
    assert [line.split()[1] for line in out.splitlines() if "recall@1" in line] == ["1.0000"]


def test_labels_of_one_id_must_agree(tmp_path: Path) -> None:
    answers(tmp_path / "a.jsonl")
    (tmp_path / "t.csv").write_text("id,bad\ne1,1\ne1,0\n")
    words = (
        "evaluate",
        "retrieval",
        "--results",
        tmp_path / "a.jsonl",
        "--labels",
        tmp_path / "t.csv",
        "--column",
        "bad",
    )
    assert "id e1 has bad 1 in one row and 0 in another" in refused(*words)
    (tmp_path / "t.csv").write_text("id,bad\n,1\n")
    assert "a row whose id is ''" in refused(*words)


def test_a_folder_of_answers_names_what_it_leaves_out(tmp_path: Path) -> None:
    folder = tmp_path / "answers"
    folder.mkdir()
    answers(folder / "a.jsonl")
    (folder / "log.out").write_text("done")
    (tmp_path / "gold.txt").write_text("e1\n")
    result = run("evaluate", "retrieval", "--results", folder, "--labels", tmp_path / "gold.txt")
    assert f"note: {folder}: 1 file is not read: 1 of unknown suffix (log.out)" in result.stderr


def test_two_queries_of_one_id_are_not_merged(tmp_path: Path) -> None:
    rows = [{"query_id": "q", "rank": 1, "example_id": f"e{n}", "row": n, "score": 1} for n in range(2)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "gold.txt").write_text("e1\n")
    words = ("evaluate", "retrieval", "--results", tmp_path / "a.jsonl", "--labels", tmp_path / "gold.txt")
    assert "two examples of query q have one rank: do two queries have this id?" in refused(*words)
