"""Equal and nearly equal examples are chosen once: against a dictionary of contents, and greedy choice by brute force."""

from __future__ import annotations

import json
import signal
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from headwater.engine.results.example_table import Examples
from headwater.engine.results.row_filter import RowFilter
from headwater.engine.runtime.progress import ProgressDisplay
from headwater.engine.runtime.run import SILENT_STAGE, Progress
from headwater.engine.selection.equal_texts import PASSES, equal_texts, equal_texts_bytes
from headwater.engine.selection.linear_features import LinearFeatures
from headwater.engine.selection.selection import GreedySelection
from headwater.engine.selection.selection_request import SelectionRequest
from headwater.store.feature_store import FeatureStore
from headwater.store.reader import open_column
from running import done, headwater
from small import save_model, sentences, write_corpus

TEXTS, EACH, COUNT = 30, 10, 24


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 30 texts that each stand ten times in one of two files, in random order, and a task."""
    work = tmp_path_factory.mktemp("distinct")
    model = save_model(work / "model")
    order = np.random.default_rng(0).permutation(np.repeat(np.arange(TEXTS), EACH))
    texts = [sentences(TEXTS)[number] for number in order]
    write_corpus(work / "a.jsonl", texts[:180])
    write_corpus(work / "b.jsonl", texts[180:])
    write_corpus(work / "task.jsonl", sentences(9, seed=1))
    done("ingest", work / "a.jsonl", work / "b.jsonl", "--store", work / "S", "--model", model, "--method", "grasp",
         "--set", "grasp.m", "32")  # fmt: skip
    return work


def select(work: Path, *words: object) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The chosen examples, and the figures."""
    out = work / "chosen.jsonl"
    result = done("select", work / "S", "--queries", work / "task.jsonl", "-o", out, "--json", *words)
    return [json.loads(line) for line in out.read_text().splitlines()], json.loads(result.stdout)


def greedy_rows(work: Path, count: int, similarity: float = 1.0) -> list[int]:
    """Greedy choice at λ = 1 in float64: the first of equal texts, and no row as similar as `similarity` to a chosen one."""
    store = FeatureStore.open(work / "S")
    features = LinearFeatures(store, "grasp")
    rows = open_column(store, "methods/grasp", "feature").gather(range(features.rows)).astype(np.float64)
    texts = Examples(store).strings("text", np.arange(features.rows))
    from headwater.engine.selection.targets import TaskFile, read_targets

    v = read_targets(features, TaskFile(str(work / "task.jsonl"))).vectors[0]
    units, total, chosen = rows / np.linalg.norm(rows, axis=1, keepdims=True), np.zeros(rows.shape[1]), list[int]()
    may = np.ones(len(rows), bool)
    while len(chosen) < count and may.any():
        gains = rows @ (v - total / count) - 0.5 / count * (rows**2).sum(1)
        best = int(np.argmax(np.where(may, gains, -np.inf)))
        chosen.append(best)
        total += rows[best]
        may &= np.array([text != texts[best] for text in texts])
        if similarity < 1:
            may &= units @ units[best] < similarity
    return chosen


@pytest.mark.parametrize("words", [(), ("--distinct",), ("--distinct", "1"), ("--memory", "40MB")])
def test_equal_texts_are_chosen_once(work: Path, words: tuple[str, ...]) -> None:
    chosen, facts = select(work, "--count", COUNT, *words)
    assert len({one["text"] for one in chosen}) == COUNT and facts["copies left out"] == TEXTS * (EACH - 1)
    expected = greedy_rows(work, COUNT)
    store = FeatureStore.open(work / "S")
    texts = Examples(store).strings("text", np.arange(store.rows("examples")))
    assert [one["text"] for one in chosen] == [texts[row] for row in expected]


def test_the_plan_counts_the_labels_that_a_filter_reads(work: Path) -> None:
    features = LinearFeatures(FeatureStore.open(work / "S"), "grasp")
    where = RowFilter((("source", "a.jsonl"),))
    plans = [GreedySelection(features, SelectionRequest(5, where=own)).plan for own in (RowFilter(), where)]
    assert plans[1].total - plans[0].total == where.plan(features.store, features.rows).total > features.rows
    chosen, _ = select(work, "--count", 5, "--where", "source=a.jsonl")
    assert {one["source"] for one in chosen} == {"a.jsonl"}


def test_copies_are_chosen_where_they_are_asked_for(work: Path) -> None:
    chosen, facts = select(work, "--count", 100, "--copies")
    assert len(chosen) == 100 and len({one["text"] for one in chosen}) < TEXTS and "copies left out" not in facts


def test_near_copies_are_left_out_and_a_choice_may_end_early(work: Path) -> None:
    lengths = []
    for similarity in (0.9, 0.6, 0.3):
        chosen, _ = select(work, "--count", COUNT, "--distinct", similarity)
        expected = greedy_rows(work, COUNT, similarity)
        assert [one["row"] for one in chosen] == expected
        lengths.append(len(chosen))
    assert lengths[-1] < COUNT
    result = done("select", work / "S", "--queries", work / "task.jsonl", "--count", COUNT, "--distinct", "0.3",
                  "-o", work / "few.jsonl")  # fmt: skip
    assert f"{lengths[-1]} of {COUNT}: every other example" in result.stderr


def test_a_stopped_choice_does_not_say_that_all_others_are_copies(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    show = ProgressDisplay.show

    def show_and_stop(display: ProgressDisplay, progress: Progress) -> None:
        show(display, progress)
        if progress.stage == "select" and progress.done == 3:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(ProgressDisplay, "show", show_and_stop)
    words = ["--queries", work / "task.jsonl", "--count", COUNT, "-o", work / "stopped.jsonl"]
    result = headwater("select", work / "S", *words)
    assert result.exit_code == 130 and "stopped: these are the first examples" in result.stderr
    assert len((work / "stopped.jsonl").read_text().splitlines()) < COUNT and "every other example" not in result.stderr


def test_quotas_and_candidates_count_a_text_once(work: Path) -> None:
    chosen, _ = select(work, "--count", 20, "--quota", "source=b.jsonl:0.5")
    assert sum(one["source"] == "b.jsonl" for one in chosen) == 10 and len({one["text"] for one in chosen}) == 20
    np.save(work / "mask.npy", np.arange(TEXTS * EACH) >= 100)
    chosen, _ = select(work, "--count", TEXTS, "--among", work / "mask.npy")
    assert min(one["row"] for one in chosen) >= 100 and len({one["text"] for one in chosen}) == TEXTS


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--count", 31), "--count 31 is more than the 30 examples that may be chosen (270 more are equal"),
        (("--tokens", 10**6), "tokens of the examples that may be chosen (270 more are equal"),
        (
            ("--count", 30, "--quota", "source=a.jsonl:1", "--exclude", "half.txt"),
            "the quota is 30 examples, 29 may be",
        ),
        (("--count", 3, "--distinct", "0"), "0.0 is not in the range 0<x<=1"),
        (("--count", 3, "--distinct", "0.9", "--copies"), "either --distinct or --copies"),
        (("--count", 3, "--distinct", "--copies"), "either --distinct or --copies"),
    ],
)
def test_what_cannot_be_chosen_is_said_with_the_copies(
    work: Path, words: tuple[object, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(work)
    store = FeatureStore.open(work / "S")
    examples, rows = Examples(store), np.arange(store.rows("examples"))
    texts, ids = examples.strings("text", rows), examples.strings("id", rows)
    Path("half.txt").write_text("".join(f"{ids[row]}\n" for row in rows if row < 180 and texts[row] == texts[0]))
    result = headwater("select", "S", "--queries", "task.jsonl", "-o", "none.jsonl", *words)
    assert result.exit_code != 0 and message in result.stderr, result.stderr


WHOLE, PARTS = {"text": "the river runs"}, {"prompt": "the river", "completion": " runs"}
RECORDS = [WHOLE, PARTS, WHOLE, {"text": "a stone"}, {"prompt": "", "completion": "the river runs"}, PARTS,
           {"text": "the river runs "}]  # fmt: skip


@pytest.mark.parametrize("left_out", ["", "--no-tokens", "--no-text"])
def test_examples_are_equal_if_the_model_reads_them_alike(work: Path, tmp_path: Path, left_out: str) -> None:
    """The same text with another division into prompt and completion is another example; so it is without tokens or texts."""
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    words = [left_out] if left_out else []
    done(
        "ingest",
        tmp_path / "c.jsonl",
        "--store",
        tmp_path / "S",
        "--model",
        work / "model",
        "--method",
        "grasp",
        *words,
    )
    features = LinearFeatures(FeatureStore.open(tmp_path / "S"), "grasp")
    numbers = equal_texts((features.stored, features.column), 20, 1, SILENT_STAGE)
    assert numbers[3] == numbers[6] == -1
    groups = [sorted(np.flatnonzero(numbers == number).tolist()) for number in np.unique(numbers[numbers >= 0])]
    assert sorted(groups) == [[0, 2, 4], [1, 5]]


def test_rows_of_vectors_are_equal_if_all_their_numbers_are(tmp_path: Path) -> None:
    """In any number of passes, and within the memory that is said."""
    draw = np.random.default_rng(0)
    vectors = draw.integers(0, 3, (3000, 6)).astype(np.float32)
    np.savez(tmp_path / "v.npz", vectors=vectors)
    done("ingest", tmp_path / "v.npz", "--store", tmp_path / "S", "--method", "vectors")
    features = LinearFeatures(FeatureStore.open(tmp_path / "S"), "vectors")
    _, inverse, counts = np.unique(vectors, axis=0, return_inverse=True, return_counts=True)
    inverse = inverse.reshape(-1)
    for passes in PASSES:
        tracemalloc.start()
        numbers = equal_texts((features.stored, features.column), 1, passes, SILENT_STAGE)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        row_bytes = sum(reader.column.row_bytes for reader in features.stored.scanned(features.column))
        assert peak <= equal_texts_bytes(len(vectors), 1, row_bytes, passes) + 5 * len(vectors)
        assert ((numbers >= 0) == (counts[inverse] > 1)).all()
        pairs = {(int(own), int(text)) for own, text in zip(numbers, inverse, strict=True) if own >= 0}
        assert len(pairs) == len({own for own, _ in pairs}) == int((counts > 1).sum())
