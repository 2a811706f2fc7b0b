"""Scores of some examples only, of a contrast of two answers, and the lowest first, beside NumPy on all scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from headwater.engine.attribution.open_session import open_session, scan_device
from headwater.engine.attribution.query_options import MemberChoice, QueryOptions, SearchOptions
from headwater.engine.attribution.text_session import TextSession
from headwater.engine.ingest.ingest_job import IngestJob, prepare
from headwater.engine.models.language_model import ModelChoice, load
from headwater.engine.results.group_labels import GroupColumn
from headwater.engine.results.groups import Groups
from headwater.engine.results.result_tables import value_rows
from headwater.engine.results.row_filter import RowFilter
from headwater.engine.runtime.run import Run
from headwater.store.errors import BudgetError, DataError, SettingsError
from headwater.store.feature_store import FeatureStore
from small import save_model, sentences, write_corpus

ROWS, QUERIES, TOP = 60, 3, 7
METHODS = ("rise", "grasp", "bm25")  # inner products, a function of the method's own, texts


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of two files, and two files of queries."""
    folder = tmp_path_factory.mktemp("derived")
    model, texts = save_model(folder / "model"), sentences(ROWS)
    corpus = [write_corpus(folder / "a.jsonl", texts[:25]), write_corpus(folder / "b.jsonl", texts[25:])]
    for number in (QUERIES, QUERIES + 1, 1):
        write_corpus(folder / f"queries{number}.jsonl", sentences(number, seed=number))
    methods = {"rise": {"kr": 16, "kh": 16, "kg": 8}, "grasp": {}}
    prepare(IngestJob([str(path) for path in corpus], str(folder / "S"), ModelChoice(str(model)), methods)).ingest()
    return folder


def opened(work: Path, method: str, run: Run | None = None, queries: int = QUERIES, **options: object):
    choice = QueryOptions(TOP, **options)
    return open_session(str(work / "S"), method, str(work / f"queries{queries}.jsonl"), choice, run or Run())


def scores_of(session) -> np.ndarray:
    return np.concatenate([part.copy() for _, part in session.scores()])


@pytest.mark.parametrize("method", METHODS)
def test_the_lowest_scores_come_first(work: Path, method: str):
    scores = scores_of(opened(work, method))
    results = opened(work, method, lowest=True).attribute()
    order = np.argsort(scores, 0, kind="stable")[:TOP].T
    np.testing.assert_array_equal(results.rows, order)
    np.testing.assert_array_equal(results.scores, np.take_along_axis(scores, order.T, 0).T)


@pytest.mark.parametrize("method", METHODS)
def test_only_examples_that_meet_the_conditions_are_ranked(work: Path, method: str):
    scores = scores_of(opened(work, method))
    session = opened(work, method, where=RowFilter((("source", "b.jsonl"),)))
    own = 25 + np.argsort(-scores[25:], 0, kind="stable")[:TOP].T
    np.testing.assert_array_equal(session.attribute().rows, own)
    filtered = scores_of(session)
    assert np.isnan(filtered[:25]).all()
    np.testing.assert_array_equal(filtered[25:], scores[25:])
    value = np.concatenate([part.copy() for _, part in session.value()])
    assert np.isnan(value[:25]).all() and np.isfinite(value[25:]).all()
    best = session.most_valuable()
    np.testing.assert_allclose(best.scores[0], np.sort(value[25:])[::-1][:TOP])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("contrasting", (QUERIES, 1))
def test_a_contrast_is_the_difference_of_scores(work: Path, method: str, contrasting: int):
    minus = str(work / f"queries{contrasting}.jsonl")
    scores = scores_of(opened(work, method)) - scores_of(opened(work, method, queries=contrasting))
    session = opened(work, method, queries=QUERIES, minus=minus)
    np.testing.assert_array_equal(scores_of(session), scores)
    np.testing.assert_array_equal(session.attribute().rows, np.argsort(-scores, 0, kind="stable")[:TOP].T)
    value = np.concatenate([part.copy() for _, part in session.value()])
    np.testing.assert_allclose(value, scores.mean(1, dtype=np.float64), rtol=1e-6)


def test_all_three_at_once(work: Path):
    minus, where = str(work / "queries1.jsonl"), RowFilter((("source", "a.jsonl"),))
    scores = (scores_of(opened(work, "rise")) - scores_of(opened(work, "rise", queries=1)))[:25]
    results = opened(work, "rise", minus=minus, where=where, lowest=True).attribute()
    np.testing.assert_array_equal(results.rows, np.argsort(scores, 0, kind="stable")[:TOP].T)


def test_fewer_eligible_examples_than_k_are_all_there_are(work: Path, tmp_path: Path):
    table = write_corpus(tmp_path / "kinds.jsonl", [])
    ids = [f"{name}:{line}" for name, lines in (("a.jsonl", 25), ("b.jsonl", 35)) for line in range(1, lines + 1)]
    table.write_text(
        "".join(f'{{"id": "{name}", "kind": "{"few" if n < 3 else "many"}"}}\n' for n, name in enumerate(ids))
    )
    where = RowFilter((("kind", "few"),), str(table))
    results = opened(work, "rise", where=where).attribute()
    assert results.rows.shape == (QUERIES, 3) and set(results.rows.ravel().tolist()) == {0, 1, 2}


def test_what_cannot_be_derived_is_refused(work: Path):
    with pytest.raises(DataError, match=r"no example has source=c\.jsonl: there are a\.jsonl, b\.jsonl"):
        opened(work, "rise", where=RowFilter((("source", "c.jsonl"),)))
    with pytest.raises(DataError, match="4 contrasting queries for 3 queries: expected as many, or one"):
        opened(work, "rise", minus=str(work / "queries4.jsonl"))
    with pytest.raises(SettingsError, match="leave out --scan"):
        opened(work, "rise", minus=str(work / "queries1.jsonl"), search=SearchOptions(precision="int8"))
    with pytest.raises(SettingsError, match="--where source: expected COLUMN=VALUE"):
        RowFilter.parsed(["source"])


def test_values_and_groups_are_of_the_ranked_examples_alone(work: Path, tmp_path: Path):
    ids = [f"{name}:{line}" for name, lines in (("a.jsonl", 25), ("b.jsonl", 35)) for line in range(1, lines + 1)]
    table = tmp_path / "kinds.jsonl"
    table.write_text(
        "".join(f'{{"id": "{name}", "kind": "{n % 2}", "third": "{n % 3}"}}\n' for n, name in enumerate(ids))
    )
    session = opened(work, "rise", where=RowFilter((("kind", "1"), ("third", "0"), ("third", "1")), str(table)))
    rows = [row for row in range(ROWS) if row % 2 and row % 3 < 2]
    parts = list(value_rows(session.value(), session.store))
    assert [row for part in parts for row in part["row"]] == rows
    groups = Groups(GroupColumn(session.store, "third", str(table), ROWS))
    (first, *_) = groups.tables(groups.sums(session.scores(), QUERIES), session.query_ids)
    scores = scores_of(opened(work, "rise"))[:, 0]
    expected = {name: scores[[row for row in rows if row % 3 == int(name)]] for name in ("0", "1")}
    assert dict(zip(first["group"], first["examples"], strict=True)) == {
        name: len(own) for name, own in expected.items()
    }
    for name, mean in zip(first["group"], first["mean"], strict=True):
        assert mean == pytest.approx(expected[name].mean(dtype=np.float64))


def test_the_lowest_scores_are_searched_in_compressed_rows_too(work: Path):
    from headwater.engine.arrays.scan.compress import TargetPrecision, compression
    from headwater.engine.runtime.run import SILENT_STAGE

    compression(FeatureStore.open(str(work / "S")), "rise", TargetPrecision("int8", 0), None).run(SILENT_STAGE)
    whole = opened(work, "rise", lowest=True).attribute()
    certified = opened(work, "rise", lowest=True, search=SearchOptions(certify=True)).attribute()
    np.testing.assert_array_equal(certified.rows, whole.rows)
    np.testing.assert_array_equal(certified.scores, whole.scores)


def test_a_query_never_gets_the_contrast_of_another_one(work: Path, tmp_path: Path):
    from headwater.engine.ingest.text_settings import TextSettings
    from headwater.store.errors import CorpusError

    good = [f'{{"text": "{text}"}}\n' for text in sentences(QUERIES, seed=QUERIES)]
    (tmp_path / "queries.jsonl").write_text("".join([good[0], '{"text": \n', *good[1:]]))
    (tmp_path / "minus.jsonl").write_text("".join([good[0], good[1], '{"text": \n', good[2]]))

    def asked(minus: Path):
        options = QueryOptions(TOP, text=TextSettings(on_error="skip"), minus=str(minus))
        return open_session(str(work / "S"), "rise", str(tmp_path / "queries.jsonl"), options)

    with pytest.raises(SettingsError, match="a contrast for each query needs every query"):
        asked(work / f"queries{QUERIES}.jsonl")
    with pytest.raises(CorpusError, match=r"minus\.jsonl:3: bad JSON"):
        asked(tmp_path / "minus.jsonl")
    one = asked(work / "queries1.jsonl")
    expected = scores_of(opened(work, "rise")) - scores_of(opened(work, "rise", queries=1))
    np.testing.assert_array_equal(scores_of(one), expected)


@pytest.mark.parametrize("method", ("grasp", "bm25"))
def test_the_budget_bounds_the_plan_of_all_that_is_derived(work: Path, method: str):
    derived = {"minus": str(work / "queries3.jsonl"), "where": RowFilter((("source", "b.jsonl"),)), "lowest": True}
    total = opened(work, method, **derived).plan.total
    assert total > opened(work, method, search=SearchOptions(all_scores=True)).plan.total
    assert opened(work, method, Run(total), **derived).plan.total == total
    with pytest.raises(BudgetError, match="smallest budget that works is"):
        opened(work, method, Run(total - 1), **derived)


def test_a_model_that_reads_queries_and_contrasts_is_counted_once(work: Path):
    choice = ModelChoice(str(work / "model"))
    loaded = ModelChoice(str(work / "model"), loaded=load(choice))
    minus, single = str(work / "queries3.jsonl"), SearchOptions(all_scores=True)
    parts = {
        name: {part.name: part.bytes for part in opened(work, "rise", **options).plan.parts}
        for name, options in {
            "single": {"model": loaded, "search": single},
            "one model": {"model": loaded, "minus": minus},
            "two models": {"model": choice, "minus": minus},
        }.items()
    }
    weights = parts["single"]["model weights"]
    assert parts["one model"]["model weights"] == weights and parts["two models"]["model weights"] == 2 * weights
    for name in ("activations", "hidden states", "logits tile", "texts being tokenised"):
        assert parts["one model"][name] == parts["two models"][name] == parts["single"][name]


@pytest.fixture
def a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch finds two CUDA devices; nothing runs on them."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)


@pytest.mark.usefixtures("a_gpu")
@pytest.mark.parametrize(
    ("method", "search", "device"),
    [
        ("rise", SearchOptions(), 1),
        ("rise", SearchOptions(partial=True), 1),
        ("rise", SearchOptions(all_scores=True), None),
        ("rise", SearchOptions(precision="int8"), None),
        ("rise", SearchOptions(certify=True), None),
        ("rise", SearchOptions(members=MemberChoice(("all",))), None),
        ("grasp", SearchOptions(), None),
        ("bm25", SearchOptions(), None),
        ("stride", SearchOptions(), None),
    ],
)
def test_only_an_exact_search_by_inner_products_runs_on_a_gpu(
    work: Path, method: str, search: SearchOptions, device: int | None
):
    store = FeatureStore.open(str(work / "S"))
    assert scan_device(store, method, QueryOptions(model=ModelChoice("", "cuda:1"), search=search)) == device
    assert scan_device(store, method, QueryOptions(model=ModelChoice("", "auto"), search=search)) is None


@pytest.mark.usefixtures("a_gpu")
@pytest.mark.parametrize("derived", [{}, {"lowest": True}, {"where": RowFilter((("source", "b.jsonl"),))}])
def test_texts_are_compared_whatever_the_model_runs_on(work: Path, derived: dict[str, object]):
    whole = opened(work, "bm25", **derived).attribute()
    results = opened(work, "bm25", model=ModelChoice("", "cuda"), **derived).attribute()
    np.testing.assert_array_equal(results.rows, whole.rows)


@pytest.mark.parametrize("row", [3, 30])
def test_only_the_scores_of_ranked_examples_must_be_numbers(work: Path, monkeypatch: pytest.MonkeyPatch, row: int):
    scores = scores_of(opened(work, "bm25"))
    scores[row, 1] = np.nan
    monkeypatch.setattr(TextSession, "scores", lambda self: iter([(0, scores[:20]), (20, scores[20:])]))
    session = opened(work, "bm25", where=RowFilter((("source", "b.jsonl"),)))
    if row < 25:
        assert np.isfinite(session.attribute().scores).all()
        return
    with pytest.raises(DataError, match="the score of one of the rows 20 to 59 is not a number"):
        session.attribute()
