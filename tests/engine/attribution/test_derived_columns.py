"""What results say besides scores (ties, diagnostics, spread) is also said of the lowest scores and of some examples alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr
from headwater.engine.attribution.members_session import rank_range
from headwater.engine.attribution.open_session import open_session
from headwater.engine.attribution.query_options import MemberChoice, QueryOptions, SearchOptions
from headwater.engine.attribution.query_session import TOGETHER, QuerySession, best_examples
from headwater.engine.results.answers_file import relation
from headwater.engine.results.answers_origin import Origin
from headwater.engine.results.row_filter import RowFilter
from headwater.store.errors import DataError
from running import done
from small import save_model, sentences, write_corpus
from small_fits import QUICK, options

ROWS, QUERIES, TOP = 40, 2, 30
OF_B = RowFilter((("source", "b.jsonl"),))
KINDS = {"stride": ("stride", False), "members": ("rise", True), "fitted members": ("stride", True)}
DERIVED = {"where": {"where": OF_B}, "bottom": {"lowest": True}, "both": {"where": OF_B, "lowest": True}}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of two files with two seeds of rise and two fits of stride."""
    folder = tmp_path_factory.mktemp("columns")
    model, texts = save_model(folder / "model"), sentences(ROWS)
    corpus = [write_corpus(folder / "a.jsonl", texts[:20]), write_corpus(folder / "b.jsonl", texts[20:])]
    write_corpus(folder / "queries.jsonl", sentences(QUERIES, seed=1))
    write_corpus(folder / "minus.jsonl", sentences(1, seed=2))
    small = [part for name, value in (("kr", 16), ("kh", 16), ("kg", 8)) for part in ("--set", f"rise.{name}", value)]
    done("ingest", *corpus, "--store", folder / "S", "--model", model, "--method", "rise", "--seeds", 2, *small)
    quick = options(QUICK)
    done("fit", folder / "S", *quick)
    done(
        "fit", folder / "S", "--method", "stride@1", *[part.replace("stride.", "stride@1.") for part in map(str, quick)]
    )
    return folder


def opened(work: Path, kind: str, top: int = TOP, **derived: object) -> QuerySession:
    method, members = KINDS[kind]
    search = SearchOptions(members=MemberChoice(("all",) if members else ()))
    asked = QueryOptions(top, search=search, **derived)
    return open_session(str(work / "S"), method, str(work / "queries.jsonl"), asked)


def columns_of(results) -> dict[str, np.ndarray]:
    spread = {name: getattr(results, name) for name in ("standard_error", "rank_low", "rank_high")}
    return {**results.further_columns, **{name: own for name, own in spread.items() if own is not None}}


@pytest.mark.parametrize("derived", DERIVED)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ask", ["attribute", "most_valuable"])
def test_an_example_has_the_columns_that_it_has_without_a_filter(work: Path, kind: str, derived: str, ask: str):
    whole = getattr(opened(work, kind, ROWS), ask)()
    part = getattr(opened(work, kind, **DERIVED[derived]), ask)()
    assert part.method == whole.method and part.queries == whole.queries
    assert columns_of(part).keys() == columns_of(whole).keys() != set()
    for query, rows in enumerate(part.rows):
        places = {row: at for at, row in enumerate(whole.rows[query].tolist())}
        at = [places[row] for row in rows.tolist()]
        np.testing.assert_allclose(part.scores[query], whole.scores[query][at], rtol=1e-6)
        for name, own in columns_of(whole).items():
            if not name.startswith("rank"):  # ranks are among the examples of an answer
                np.testing.assert_allclose(columns_of(part)[name][query], own[query][at], rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("derived", DERIVED)
def test_ties_have_no_score_under_a_filter(work: Path, derived: str):
    results = opened(work, "stride", **DERIVED[derived]).attribute()
    ties = results.further_columns["tie"]
    assert ties.any() and (results.scores[ties] == 0).all() and (results.scores[~ties] != 0).all()
    assert np.isfinite(results.further_columns["explained"]).all()


def test_ranks_count_from_the_lowest_score_if_that_comes_first(work: Path):
    results = opened(work, "members", 6, lowest=True).attribute()
    each = [opened_alone(work, name) for name in ("rise", "rise@1")]
    for query, rows in enumerate(results.rows):
        low, high = rank_range(-np.stack([scores[rows, query] for scores in each]))
        np.testing.assert_array_equal(results.rank_low[query], low)
        np.testing.assert_array_equal(results.rank_high[query], high)


def opened_alone(work: Path, name: str) -> np.ndarray:
    asked = QueryOptions(search=SearchOptions(all_scores=True))
    session = open_session(str(work / "S"), name, str(work / "queries.jsonl"), asked)
    return np.concatenate([part.astype(np.float64) for _, part in session.scores()])


@pytest.mark.parametrize(
    ("kind", "missing"),
    [("stride", "tie, explained, reliability, gap"), ("members", "standard_error, rank_low, rank_high")],
)
def test_a_contrast_says_what_it_does_not_say(work: Path, kind: str, missing: str):
    session = opened(work, kind, minus=str(work / "minus.jsonl"))
    results = session.attribute()
    assert results.method == opened(work, kind).attribute().method and columns_of(results) == {}
    assert f"a contrast has no {missing}: these are of single queries" in session.notes
    assert session.most_valuable().queries == [TOGETHER]


def test_a_score_that_is_no_number_is_refused():
    blocks = [(0, np.array([[1.0], [np.nan]], np.float32)), (2, np.array([[0.5]], np.float32))]
    with pytest.raises(DataError, match="one of the rows 0 to 1 is not a number"):
        best_examples(blocks, 1, 2)
    scores, rows = best_examples([(0, np.array([[1.0], [-np.inf]], np.float32))], 1, 5)
    assert rows.tolist() == [[0, 1]] and scores.tolist() == [[1.0, -np.inf]]


@pytest.mark.parametrize("kind", KINDS)
def test_an_export_says_how_its_scores_were_derived(work: Path, kind: str, tmp_path: Path):
    asked = {"where": OF_B, "minus": str(work / "minus.jsonl")}
    opened(work, kind).export(str(tmp_path / "whole.zarr"))
    opened(work, kind, **asked).export(str(tmp_path / "part.zarr"))
    whole, part = (dict(zarr.open_group(str(tmp_path / f"{name}.zarr"), mode="r").attrs) for name in ("whole", "part"))
    facts = whole.keys() - {"queries", "rows", "method", "headwater"}
    assert facts and all(part[name] == whole[name] for name in facts)
    (text,) = sentences(1, seed=2)
    names = [name for name in ("rise", "rise@1", "stride", "stride@1") if name.startswith(KINDS[kind][0])]
    assert part["headwater"]["contrast"] == [{"prompt": "", "completion": text}]
    assert part["headwater"]["conditions"] == ["source=b.jsonl"]
    assert part["headwater"]["members"] == (names if KINDS[kind][1] else [])
    assert part["headwater"]["combination"] == ("mean" if KINDS[kind][1] else "")
    if KINDS[kind][1]:
        assert list(part["headwater"]["settings"]) == names
    said = relation(str(tmp_path / "part.zarr"), opened(work, kind).store)
    assert said["relation"] == "of this store, as it is now" and said["origin"] == part["headwater"]


def test_files_of_earlier_versions_say_nothing_of_derived_scores(work: Path):
    origin = opened(work, "members", lowest=True).origin
    new = {"contrast", "conditions", "lowest", "members", "combination", "precision"}
    before = {name: value for name, value in origin.to_json().items() if name not in new}
    read = Origin.from_json(before)
    assert list(read.derivation()) == [] and {**origin.to_json(), **before} == origin.to_json()
    assert Origin.from_json(origin.to_json()) == origin
    assert dict(origin.derivation()) == {"members": "mean of rise, rise@1", "order": "lowest scores first"}
    with pytest.raises(KeyError):
        Origin.from_json({name: value for name, value in before.items() if name != "digest"})
