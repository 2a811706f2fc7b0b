"""Blocked similarity against brute force: the same answer for every block, order and tie."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from headwater.engine.arrays.precision.precisions import precision_of
from headwater.engine.arrays.scan.scan_loop import ROWS_MULTIPLE as STEP
from headwater.engine.arrays.scan.scan_loop import ScanShape, shapes
from headwater.engine.arrays.scan.scorers import CustomScorer, Scorer, scorer_of
from headwater.engine.arrays.scan.top_k import all_scores, top_k
from headwater.engine.runtime.run import SILENT_STAGE, Progress, Run
from headwater.store.errors import DataError, StoreDamaged
from headwater.store.layout import Block, column
from headwater.store.reader import ColumnReader
from hypothesis import given, settings
from hypothesis import strategies as st
from scanned import brute_force, stored

ROWS, WIDTH = 1000, 24
SHAPE = ScanShape(100, 2)


def dot(matrix: np.ndarray, dtype: str = "float16") -> Scorer:
    """Inner products with rows of floats."""
    return scorer_of(precision_of("auto", column("c", matrix.shape[1:], dtype)), matrix)


@pytest.fixture(scope="module")
def data() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((ROWS, WIDTH)).astype(np.float16)


@pytest.fixture(scope="module")
def columns(tmp_path_factory: pytest.TempPathFactory, data: np.ndarray) -> Iterator[list[ColumnReader]]:
    return stored(tmp_path_factory.mktemp("similarity") / "s", data)


@settings(deadline=None, max_examples=25)
@given(queries=st.integers(1, 70), k=st.integers(1, 1200), blocks=st.integers(1, 9), seed=st.integers(0, 99))
def test_top_k_is_brute_force(
    columns: list[ColumnReader], data: np.ndarray, queries: int, k: int, blocks: int, seed: int
) -> None:
    matrix = np.random.default_rng(seed).standard_normal((queries, WIDTH)).astype(np.float32)
    actual = top_k(columns, dot(matrix), k, ScanShape(blocks * 37, 1 + blocks % 3), SILENT_STAGE)
    scores, rows = brute_force(data, matrix, k)
    assert actual.rows.shape == (queries, min(k, ROWS))
    np.testing.assert_allclose(actual.scores, scores, rtol=0, atol=2e-5)
    gaps = np.abs(np.diff(scores, axis=1)) < 1e-4  # rows closer than float32 can tell may change places
    near = np.pad(gaps, ((0, 0), (1, 0))) | np.pad(gaps, ((0, 0), (0, 1)))
    assert np.array_equal(actual.rows[~near], rows[~near])


def test_blocks_change_no_bit(columns: list[ColumnReader]) -> None:
    matrix = np.random.default_rng(1).standard_normal((7, WIDTH)).astype(np.float32)
    first = top_k(columns, dot(matrix), 50, ScanShape(STEP, 1), SILENT_STAGE)
    for rows, workers in ((1, 2), (3, 1), (STEP, 4), (333, 2), (10 * ROWS, 1)):
        other = top_k(columns, dot(matrix), 50, ScanShape(rows, workers), SILENT_STAGE)
        assert np.array_equal(first.scores, other.scores)
        assert np.array_equal(first.rows, other.rows)


def test_query_order_changes_nothing(columns: list[ColumnReader]) -> None:
    matrix = np.random.default_rng(2).standard_normal((9, WIDTH)).astype(np.float32)
    order = np.random.default_rng(3).permutation(9)
    straight = top_k(columns, dot(matrix), 20, SHAPE, SILENT_STAGE)
    shuffled = top_k(columns, dot(matrix[order]), 20, SHAPE, SILENT_STAGE)
    assert np.array_equal(straight.rows[order], shuffled.rows)
    assert np.array_equal(straight.scores[order], shuffled.scores)
    for q in range(9):  # alone, a query goes through another variant of the kernel
        alone = top_k(columns, dot(matrix[q : q + 1]), 20, SHAPE, SILENT_STAGE)
        assert np.array_equal(alone.rows[0], straight.rows[q])
        assert np.array_equal(alone.scores[0], straight.scores[q])


def test_ties_go_to_the_lower_row(tmp_path: Path) -> None:
    data = np.ones((600, 4), np.float16)
    data[37] = 2
    actual = top_k(stored(tmp_path / "s", data), dot(np.ones((1, 4))), 5, SHAPE, SILENT_STAGE)
    assert actual.rows.tolist() == [[37, 0, 1, 2, 3]]


def test_all_scores_in_order(columns: list[ColumnReader], data: np.ndarray) -> None:
    matrix = np.random.default_rng(4).standard_normal((3, WIDTH)).astype(np.float32)
    reports: list[Progress] = []
    stage = Run(on_progress=reports.append).stage("scores", ROWS)
    parts = [(at, part.copy()) for at, part in all_scores(columns, dot(matrix), ScanShape(150, 2), stage)]
    assert [start for start, _ in parts] == list(range(0, ROWS, 150))
    np.testing.assert_allclose(np.concatenate([p for _, p in parts]), data.astype(np.float64) @ matrix.T, atol=2e-5)
    assert reports[-1].done == ROWS


def test_a_score_that_is_no_number_is_an_error(columns: list[ColumnReader]) -> None:
    def score(block: Block) -> np.ndarray:
        scores = np.zeros((block.rows, 1), np.float32)
        scores[block.rows // 2] = np.nan
        return scores

    with pytest.raises(DataError, match="rows 0 to 99 is not a number"):
        top_k(columns, CustomScorer(1, score), 3, ScanShape(100, 1), SILENT_STAGE)


def test_infinite_scores_rank_where_they_belong(columns: list[ColumnReader]) -> None:
    def score(block: Block) -> np.ndarray:
        rows = np.arange(block.start, block.start + block.rows)
        return np.where(rows == 7, np.inf, np.where(rows == 3, -np.inf, -rows))[:, None].astype(np.float32)

    actual = top_k(columns, CustomScorer(1, score), ROWS, ScanShape(STEP, 1), SILENT_STAGE)
    assert actual.rows[0, 0] == 7
    assert actual.rows[0, -1] == 3
    assert len(set(actual.rows[0].tolist())) == ROWS


def test_a_damaged_chunk_gives_no_answer(tmp_path: Path, data: np.ndarray) -> None:
    columns = stored(tmp_path / "s", data)
    path = tmp_path / "s/shards/0/methods/m/columns/c/c/3/0"
    damaged = bytearray(path.read_bytes())
    damaged[100] ^= 0x40
    path.write_bytes(damaged)
    with pytest.raises(StoreDamaged, match="chunk 3 "):
        top_k(columns, dot(np.ones((1, WIDTH))), 3, SHAPE, SILENT_STAGE)


def test_the_ways_to_cut_a_scan_begin_with_the_fastest_and_end_with_the_smallest(columns: list[ColumnReader]) -> None:
    ways = shapes(columns, 3)
    assert ways[0].workers == 3 and ways[0].block_rows % STEP == 0
    assert ways[0].block_rows * columns[0].column.row_bytes <= 2 << 20
    assert ways[-1] == ScanShape(1, 1)
    assert next(way.block_rows for way in ways if way.workers == 1) == ways[0].block_rows


def test_a_worker_that_fails_stops_the_others(columns: list[ColumnReader]) -> None:
    def score(block: Block) -> np.ndarray:
        if block.start > 500:
            raise KeyError("no")
        return np.zeros((block.rows, 1), np.float32)

    before = threading.active_count()
    with pytest.raises(KeyError):
        top_k(columns, CustomScorer(1, score), 3, ScanShape(10, 3), SILENT_STAGE)
    assert threading.active_count() == before


def test_being_stopped_leaves_no_thread(columns: list[ColumnReader]) -> None:
    def stop(progress: Progress) -> None:
        raise KeyboardInterrupt

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        top_k(columns, dot(np.ones((1, WIDTH))), 3, ScanShape(10, 2), Run(on_progress=stop).stage("stopped", ROWS))
    assert threading.active_count() == before
