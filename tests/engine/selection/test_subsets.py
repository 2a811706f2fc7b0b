"""Subsets and selections asked for in Python: read from files, predicted, united, chosen from, against NumPy."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from headwater.engine.runtime.run import Run
from headwater.engine.selection.linear_features import LinearFeatures
from headwater.engine.selection.prediction import Prediction, penalty_of
from headwater.engine.selection.selection import GreedySelection
from headwater.engine.selection.selection_request import SelectionRequest
from headwater.engine.selection.subset_counts import SubsetCounts
from headwater.engine.selection.subsets import Subsets, SubsetSource, ids_or_mask, union
from headwater.engine.selection.targets import Targets
from headwater.store.errors import BudgetError, DataError, SettingsError
from headwater.store.feature_store import FeatureStore, method_group
from headwater.store.reader import open_column
from running import done

ROWS, DEPTH = 30, 5


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """A store of vectors as rows."""
    folder, draw = tmp_path_factory.mktemp("subsets"), np.random.default_rng(0)
    vectors, ids = draw.normal(size=(ROWS, DEPTH)).astype(np.float32), np.array([f"e{row}" for row in range(ROWS)])
    np.savez(folder / "a.npz", vectors=vectors, id=ids)
    done("ingest", folder / "a.npz", "--store", folder / "S", "--method", "vectors")
    return FeatureStore.open(folder / "S")


def rows_of(store: FeatureStore) -> np.ndarray:
    (column,) = store.columns(method_group("vectors"))
    return open_column(store, method_group("vectors"), column.name).gather(range(ROWS)).astype(np.float64)


def read_subsets(path: str, store: FeatureStore, rows: int) -> Subsets:
    """The subsets of a file, of which the plan knows the number, and at least the memory."""
    source = SubsetSource(store, rows, path)
    plan, count = source.plan()
    subsets = source.read()
    assert count == len(subsets.names) and plan.total >= subsets.counts.nbytes
    return subsets


def dense(counts: SubsetCounts) -> np.ndarray:
    """(S, N) counts, put together from blocks that cut bytes; the sizes are the sums."""
    subsets, rows = counts.shape
    whole = np.concatenate([counts.block(start, min(rows, start + 7)) for start in range(0, rows, 7)], axis=1)
    assert whole.shape == (subsets, rows) and (counts.sizes() == whole.sum(1)).all()
    return whole


def test_subsets_from_masks_rows_and_ids_are_the_same(store: FeatureStore, tmp_path: Path) -> None:
    masks = np.random.default_rng(1).random((4, ROWS)) < 0.4
    np.save(tmp_path / "masks.npy", masks)
    lines = [{"rows": np.flatnonzero(masks[0]).tolist(), "name": "named"}]
    lines += [{"ids": [f"e{row}" for row in np.flatnonzero(mask)]} for mask in masks[1:]]
    (tmp_path / "lines.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    by_mask, by_line = (read_subsets(str(tmp_path / name), store, ROWS) for name in ("masks.npy", "lines.jsonl"))
    assert (dense(by_mask.counts) == masks).all() and (dense(by_line.counts) == masks).all()
    assert by_line.names == ("named", "1", "2", "3") and by_mask.names == ("0", "1", "2", "3")
    for subsets, name in ((by_mask, "1"), (by_line, "1")):
        assert (dense(union(subsets, name)) == (masks | masks[1])).all()
    with pytest.raises(SettingsError, match="no subset is named x: there are 0, 1, 2, 3"):
        union(by_mask, "x")


def test_an_example_named_twice_counts_twice_and_a_column_makes_subsets(store: FeatureStore, tmp_path: Path) -> None:
    (tmp_path / "twice.jsonl").write_text('{"rows": [2, 2, 5]}\n')
    assert read_subsets(str(tmp_path / "twice.jsonl"), store, ROWS).counts.block(0, ROWS)[0, [2, 5]].tolist() == [2, 1]
    themes = [{"id": f"e{row}", "theme": f"t{row % 3}"} for row in range(ROWS)]
    (tmp_path / "themes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in themes))
    by_theme = SubsetSource(store, ROWS, column="theme", table=str(tmp_path / "themes.jsonl")).read()
    expected = {f"t{theme}": (np.arange(ROWS) % 3 == theme).tolist() for theme in range(3)}
    counts = dense(by_theme.counts).astype(bool).tolist()
    assert dict(zip(by_theme.names, counts, strict=True)) == expected


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.jsonl", None, "does not exist"),
        ("far.jsonl", '{"rows": [30]}\n', "30"),
        ("other.jsonl", '{"ids": ["who"]}\n', "who"),
        ("void.jsonl", '{"rows": []}\n', "subset 0"),
        ("words.jsonl", "words\n", "a subset is"),
        ("deep.jsonl", "[" * 100_000 + "]" * 100_000, "a subset is"),
    ],
)
def test_a_file_that_names_no_subsets_of_the_store_is_refused(
    store: FeatureStore, tmp_path: Path, name: str, content: str | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises((DataError, SettingsError), match=message):
        read_subsets(str(tmp_path / name), store, ROWS)


def test_candidates_are_named_by_id_or_by_mask(store: FeatureStore, tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("e3\n\ne7\n")
    assert np.flatnonzero(ids_or_mask(str(tmp_path / "ids.txt"), store, ROWS)).tolist() == [3, 7]
    np.save(tmp_path / "mask.npy", np.arange(ROWS) < 4)
    assert ids_or_mask(str(tmp_path / "mask.npy"), store, ROWS).sum() == 4
    (tmp_path / "ids.txt").write_text("who\n")
    with pytest.raises(DataError, match=r"names 1 example that .* does not hold \(who\); its ids are such as e0"):
        ids_or_mask(str(tmp_path / "ids.txt"), store, ROWS)
    np.save(tmp_path / "mask.npy", np.arange(ROWS))
    with pytest.raises(DataError, match="a mask has 0 or 1"):
        ids_or_mask(str(tmp_path / "mask.npy"), store, ROWS)


def test_a_prediction_is_its_formula_and_a_selection_is_greedy(store: FeatureStore, tmp_path: Path) -> None:
    """Û(S) = ⟨v, φ̄⟩ − λ/2 ‖φ̄‖² of the subset's mean row φ̄; the best single example is the one of the best Û({i})."""
    features, rows = LinearFeatures(store, "vectors", Run()), rows_of(store)
    vector = np.random.default_rng(2).normal(size=DEPTH)
    targets = Targets(("task",), vector[None], (1,), np.zeros(1, np.int64))
    masks = np.random.default_rng(1).random((4, ROWS)) < 0.4
    np.save(tmp_path / "masks.npy", masks)
    source = SubsetSource(store, ROWS, str(tmp_path / "masks.npy"))
    predicted = Prediction(features, source, 1, 0.5).run(targets, given="0")

    def utility(mask: np.ndarray) -> float:
        mean = rows[mask].mean(0)
        return float(mean @ vector - 0.25 * mean @ mean)

    np.testing.assert_allclose(predicted.values[:, 0], [utility(mask) for mask in masks], rtol=1e-4, atol=1e-6)
    expected = [utility(mask | masks[0]) - utility(masks[0]) for mask in masks]
    assert predicted.adds is not None
    np.testing.assert_allclose(predicted.adds[:, 0], expected, rtol=1e-3, atol=1e-5)
    assert predicted.sizes.tolist() == masks.sum(1).tolist()
    result = GreedySelection(features, SelectionRequest(count=1, penalty=0.5)).run(vector.astype(np.float32))
    assert result.choice.rows.tolist() == [int(np.argmax([utility(row == np.arange(ROWS)) for row in range(ROWS)]))]
    with pytest.raises(SettingsError, match="λ is a number of at least 0"):
        penalty_of(features, -1.0)
    for request in (SelectionRequest(), SelectionRequest(count=1, tokens=1), SelectionRequest(count=0)):
        with pytest.raises(SettingsError):
            GreedySelection(features, request)


def test_a_selection_is_refused_before_its_files_are_read(store: FeatureStore) -> None:
    request = SelectionRequest(3, candidates="absent.txt", quotas=(("source", "a.npz", 1.0),))
    with pytest.raises(BudgetError, match="smallest budget that works"):
        GreedySelection(LinearFeatures(store, "vectors", Run(1)), request)
    with pytest.raises(SettingsError, match=r"absent\.txt does not exist"):
        GreedySelection(LinearFeatures(store, "vectors", Run()), request)
