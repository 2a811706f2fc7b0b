"""Tables of results and groups are the same however small their parts are, and what is computed from the rows in one piece."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from headwater.engine.results import result_files
from headwater.engine.results.example_table import PART_SIZES, Examples, PartSize
from headwater.engine.results.group_labels import GroupColumn, counts_of_table, labels_of_table
from headwater.engine.results.groups import Groups
from headwater.engine.results.result_files import ResultFile
from headwater.engine.results.result_tables import RESULT_FIELDS, VALUE_FIELDS, result_rows, value_rows
from headwater.engine.results.results import Results
from headwater.engine.results.table_plan import Scored, table_plan
from headwater.store.feature_store import FeatureStore
from headwater.store.text_column import TextColumn
from running import done

ROWS, QUERIES, TOP = 1500, 5, 40
TEXTS = [f"{row} " + "ö漢🙂x"[row % 4] * (row * 7 % 300) for row in range(ROWS)]
GROUPS = [f"group {row * row % 37}" for row in range(ROWS)]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """A store of vectors with texts, in two chunks."""
    folder = tmp_path_factory.mktemp("parts")
    ids = np.array([f"e{row}" for row in range(ROWS)])
    np.savez(folder / "a.npz", vectors=np.ones((ROWS, 2), np.float32), id=ids, text=np.array(TEXTS))
    np.savez(folder / "groups.npz", id=ids[::-1], author=np.array(GROUPS[::-1]))
    done("ingest", folder / "a.npz", "--store", folder / "S", "--method", "vectors")
    return FeatureStore.open(folder / "S")


@pytest.fixture
def results() -> Results:
    draw = np.random.default_rng(0)
    rows = np.stack([draw.permutation(ROWS)[:TOP] for _ in range(QUERIES)])
    scores = -np.sort(-draw.normal(size=rows.shape)).astype(np.float32)
    return Results("vectors", [f"q{query}" for query in range(QUERIES)], rows, scores)


def joined(parts: list[dict[str, list[object]]]) -> dict[str, list[object]]:
    return {name: [value for part in parts for value in part[name]] for name in parts[0]}


@pytest.mark.parametrize("most", [PART_SIZES[0], PartSize(7, 1 << 20), PartSize(1000, 900), PartSize(1000, 1)])
def test_results_do_not_depend_on_the_size_of_parts(store: FeatureStore, results: Results, most: PartSize) -> None:
    parts = [dict(part) for part in result_rows(results, store, most)]
    bytes_of = [
        sum(len(str(text).encode()) for text in (*part["prompt"], *part["completion"], *part["example_id"]))
        for part in parts
    ]
    assert all(len(part["rank"]) <= most.rows for part in parts)
    assert all(size <= most.text_bytes or len(part["rank"]) == 1 for size, part in zip(bytes_of, parts, strict=True))
    table, rows = joined(parts), results.rows.reshape(-1).tolist()
    assert table["completion"] == [TEXTS[row] for row in rows] and table["example_id"] == [f"e{row}" for row in rows]
    assert table["query_id"] == [query for query in results.queries for _ in range(TOP)]
    assert table["rank"] == [*range(1, TOP + 1)] * QUERIES and table["row"] == rows
    assert table["score"] == results.scores.reshape(-1).tolist() and set(table) == set(RESULT_FIELDS)


def test_parts_grow_again_after_a_long_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["x"] * ROWS
    texts[700] = "y" * 5000
    np.savez(tmp_path / "a.npz", vectors=np.ones((ROWS, 2), np.float32), text=np.array(texts))
    done("ingest", tmp_path / "a.npz", "--store", tmp_path / "S", "--method", "vectors")
    gathers, gather_within = [0], TextColumn.gather_within

    def counted(column: TextColumn, rows: np.ndarray, limit: int | None) -> tuple[np.ndarray, int] | None:
        gathers[0] += 1
        return gather_within(column, rows, limit)

    monkeypatch.setattr(TextColumn, "gather_within", counted)
    parts = list(Examples(FeatureStore.open(tmp_path / "S")).parts(("text",), np.arange(ROWS), PartSize(ROWS, 4000)))
    assert [text for _, part in parts for text in part["text"]] == texts
    assert gathers[0] <= 60  # halved and doubled around the long text; a part per row would take 800


def test_values_of_blocks_are_one_table(store: FeatureStore) -> None:
    values = np.random.default_rng(1).normal(size=ROWS).astype(np.float32)
    blocks = [(first, values[first : first + 64]) for first in range(0, ROWS, 64)]
    for most in (PART_SIZES[0], PartSize(100, 1 << 20)):
        table = joined([dict(part) for part in value_rows(iter(blocks), store, most)])
        assert table["score"] == values.tolist() and table["row"] == list(range(ROWS))
        assert table["example_id"] == [f"e{row}" for row in range(ROWS)]


def test_a_parquet_file_has_row_groups_of_bounded_size(
    store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(result_files, "ROW_GROUP_BYTES", 10_000)
    values = np.arange(ROWS, dtype=np.float32)
    with ResultFile(str(tmp_path / "v.parquet"), VALUE_FIELDS) as file:
        for part in value_rows([(0, values)], store, PartSize(50, 1 << 20)):
            file.write(part)
    written = pq.ParquetFile(tmp_path / "v.parquet")
    sizes = [written.metadata.row_group(group).num_rows for group in range(written.num_row_groups)]
    assert len(sizes) > 3 and max(sizes) < 400 and sum(sizes) == ROWS
    assert written.read().column("score").to_pylist() == values.tolist()


@pytest.mark.parametrize("most", [PART_SIZES[0], PartSize(8, 1 << 20)])
@pytest.mark.parametrize("block", [97, ROWS])
def test_groups_are_sums_and_maxima_of_their_rows(store: FeatureStore, most: PartSize, block: int) -> None:
    scores = np.random.default_rng(2).integers(-9, 9, (ROWS, QUERIES)).astype(np.float32)  # sums are exact, ties occur
    groups = Groups(GroupColumn(store, "author", str(store.path.parent / "groups.npz")))
    sums = groups.sums(((first, scores[first : first + block]) for first in range(0, ROWS, block)), QUERIES)
    table = joined([dict(part) for part in groups.tables(sums, [f"q{query}" for query in range(QUERIES)], most)])
    count = len(set(GROUPS))
    for query in range(QUERIES):
        own = {name: values[query * count : (query + 1) * count] for name, values in table.items()}
        assert own["query_id"] == [f"q{query}"] * count and own["rank"] == list(range(1, count + 1))
        assert own["mean"] == sorted(own["mean"], reverse=True)
        for name, examples, total, best, example in zip(
            own["group"], own["examples"], own["total"], own["best"], own["best_example"], strict=True
        ):
            rows = [row for row in range(ROWS) if GROUPS[row] == name]
            own_scores = scores[rows, query]
            assert (examples, total, best) == (len(rows), own_scores.sum(), own_scores.max())
            assert example == f"e{rows[int(own_scores.argmax())]}"  # of equal scores, that of the lower row


def test_labels_are_counted_before_they_are_read(store: FeatureStore) -> None:
    table = str(store.path.parent / "groups.npz")
    counts, labels = counts_of_table(table, "author"), labels_of_table(table, "author")
    assert (counts.labels, counts.distinct) == (ROWS, len(set(GROUPS))) and len(labels) == ROWS
    assert counts.table_bytes > sum(len(name) + len(label) + 2 * 49 for name, label in labels.items())
    sources = GroupColumn(store, "source").counts()
    assert (sources.labels, sources.distinct) == (ROWS, 1)


def test_a_budget_makes_the_plan_read_the_lengths_of_texts(store: FeatureStore) -> None:
    """The chunk's size bounds the longest text loosely; the exact length is read where the bound exceeds a part."""
    longest = max(len(text.encode()) for text in TEXTS)
    examples = Examples(store)
    assert examples.longest(("text",), 1000) == longest < examples.longest(("text",))
    few = PartSize(100, 1000)
    loose, exact = (table_plan(Scored(store, ROWS, 1, 1, budget), 100)(few).total for budget in (None, 10**6))
    assert exact < loose
