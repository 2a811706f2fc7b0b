"""Every kind of session answers every question alike: rows in a store, a method's own scores, texts, a fit, several members."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import zarr
from headwater.engine.attribution.open_session import open_session
from headwater.engine.attribution.query_options import MemberChoice, QueryOptions, SearchOptions
from headwater.engine.attribution.query_session import TOGETHER, Capability, QuerySession, require
from headwater.engine.runtime.run import Progress, Run
from headwater.store.errors import BudgetError, SettingsError
from running import done, headwater
from small import save_model, sentences, write_corpus

ROWS, QUERIES, TOP = 60, 3, 7
STRIDE = {"subsets": 24, "degree": 3, "updates": 4, "checked": 5, "shared": 16, "members": 4}
KINDS: dict[str, tuple[str, bool]] = {
    "stored": ("rise", False),
    "a method's own scores": ("grasp", False),
    "texts": ("bm25", False),
    "recovered": ("stride", False),
    "members": ("rise", True),
}
"""Kind of session → its method, and whether all members of it are asked."""
CAPABLE: dict[str, set[Capability]] = {
    "stored": {"forecast", "cache"},
    "a method's own scores": {"cache"},
    "texts": set(),
    "recovered": set(),
    "members": {"cache"},
}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with rows of two methods (one of them under two seeds), a fit, and queries."""
    folder = tmp_path_factory.mktemp("sessions")
    model = save_model(folder / "model")
    corpus = write_corpus(folder / "corpus.jsonl", sentences(ROWS))
    write_corpus(folder / "queries.jsonl", sentences(QUERIES, seed=1))
    small = [part for name, value in (("kr", 16), ("kh", 16), ("kg", 8)) for part in ("--set", f"rise.{name}", value)]
    done("ingest", corpus, "--store", folder / "S", "--model", model, "--method", "rise", "--seeds", 2, *small)
    done("ingest", corpus, "--store", folder / "S", "--model", model, "--method", "grasp")
    done("fit", folder / "S", *[part for name, value in STRIDE.items() for part in ("--set", f"stride.{name}", value)])
    return folder


def opened(work: Path, kind: str, run: Run | None = None, *, all_scores: bool = True) -> QuerySession:
    method, members = KINDS[kind]
    choice = MemberChoice(("all",) if members else ())
    options = QueryOptions(TOP, search=SearchOptions(all_scores=all_scores, members=choice))
    return open_session(str(work / "S"), method, str(work / "queries.jsonl"), options, run or Run())


def together(blocks: object) -> np.ndarray:
    """Blocks in one array, each copied before the next is asked for; they follow each other without a gap."""
    parts = [(first, part.copy()) for first, part in blocks]  # type: ignore[attr-defined]
    assert [first for first, _ in parts] == np.cumsum([0, *(len(part) for _, part in parts[:-1])]).tolist()
    return np.concatenate([part for _, part in parts])


@pytest.mark.parametrize("kind", KINDS)
def test_every_session_answers_every_question(work: Path, kind: str, tmp_path: Path) -> None:
    reports: list[Progress] = []
    session = opened(work, kind, Run(on_progress=reports.append))
    assert session.rows == session.store.rows("examples") == ROWS and session.name == KINDS[kind][0]
    assert [str(text) for text in session.queries] == sentences(QUERIES, seed=1) and session.shape.block_rows >= 1
    scores = together(session.scores())
    assert scores.shape == (ROWS, QUERIES) and scores.dtype == np.float32
    best, value = session.attribute(), together(session.value())
    assert best.queries == session.query_ids and best.rows.shape == best.scores.shape == (
        QUERIES,
        TOP,
    )
    order = np.argsort(-scores, 0, kind="stable")[:TOP].T
    np.testing.assert_array_equal(best.rows, order)
    assert value.shape == (ROWS,) and value.dtype == np.float32
    if kind != "recovered":  # ties of a mean lie in an order of their own
        np.testing.assert_allclose(value, scores.mean(1, dtype=np.float64), rtol=1e-4, atol=1e-6)
    overall = session.most_valuable()
    assert overall.queries == [TOGETHER]
    np.testing.assert_allclose(value[overall.rows[0]], np.sort(value)[::-1][:TOP], rtol=1e-5)
    session.export(str(tmp_path / "all.zarr"))
    group = zarr.open_group(str(tmp_path / "all.zarr"), mode="r")
    np.testing.assert_array_equal(np.asarray(group["scores"]), scores)
    assert group.attrs["method"] == session.name and group.attrs["queries"] == session.query_ids
    assert all(isinstance(line, str) for line in session.notes)
    assert {progress.stage for progress in reports} >= {"scores"}
    assert all(0 <= progress.done <= (progress.total or progress.done) for progress in reports)


@pytest.mark.parametrize("capability", get_args(Capability))
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_session_cannot_do_is_one_error_that_names_the_method(
    work: Path, kind: str, capability: Capability
) -> None:
    session = opened(work, kind, all_scores=False)
    asking = {"forecast": session.forecast, "cache": session.cache, "tokens": lambda: require(session, "tokens")}
    assert session.capabilities == CAPABLE[kind]
    if capability in session.capabilities:
        require(session, capability)
        assert asking[capability]()
        assert len(session.attribute().queries) == QUERIES
        return
    for ask in (asking[capability], lambda: require(session, capability)):
        with pytest.raises(SettingsError, match=f"method {session.name} has no "):
            ask()


@pytest.mark.parametrize("kind", KINDS)
def test_a_plan_above_the_budget_is_refused_and_the_smallest_budget_works(work: Path, kind: str) -> None:
    with pytest.raises(BudgetError, match="smallest budget that works is"):
        opened(work, kind, Run(1000))
    free = opened(work, kind)
    assert opened(work, kind, Run(free.plan.total)).plan.total <= free.plan.total


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("by", [False, True])
def test_every_session_is_planned_by_the_command_with_the_options_that_ask_it(work: Path, kind: str, by: bool) -> None:
    method, members = KINDS[kind]
    words = [work / "S", "--method", method, "--queries", work / "queries.jsonl"]
    words += ["--members", "all"] if members else []
    words += ["--by", "source"] if by else []
    plan = json.loads(done("plan", "attribute", *words, "--json").stdout)
    assert ("groups of examples" in plan["parts"]) == by and plan["total"] == sum(plan["parts"].values())
    assert (plan["forecast"] is not None) == ("forecast" in CAPABLE[kind])
    done("attribute", *words, "--json", "--memory", plan["total"])
    assert headwater("attribute", *words, "--memory", 1000).exit_code == 1
