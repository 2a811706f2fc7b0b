"""Conditions on examples: compared as the labels are read, within a plan that is made before."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from headwater.engine.api.opening import filter_of
from headwater.engine.results.row_filter import RowFilter
from headwater.store.errors import DataError, SettingsError
from headwater.store.feature_store import FeatureStore
from running import done

ROWS = 40_000


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """A store of two files of vectors, and a table of their authors in another order."""
    folder = tmp_path_factory.mktemp("filter")
    ids = np.array([f"e{row}" for row in range(ROWS)])
    for name, rows in (("a.npz", slice(0, 100)), ("b.npz", slice(100, ROWS))):
        np.savez(folder / name, vectors=np.ones((ROWS, 2), np.float16)[rows], id=ids[rows])
    authors = np.array([f"author {row % 7}" for row in range(ROWS)])
    authors[504] = "rare"
    np.savez(folder / "authors.npz", id=ids[::-1], author=authors[::-1])
    done("ingest", folder / "a.npz", folder / "b.npz", "--store", folder / "S", "--method", "vectors")
    return FeatureStore.open(folder / "S")


def table_of(store: FeatureStore) -> str:
    return str(Path(store.path).parent / "authors.npz")


def test_labels_are_compared_as_they_are_read_within_the_plan(store: FeatureStore) -> None:
    conditions = (
        (RowFilter((("source", "a.npz"),)), np.arange(ROWS) < 100),
        (RowFilter((("author", "author 3"), ("author", "author 5")), table_of(store)), np.arange(ROWS) % 7 % 2 == 1),
    )
    for condition, expected in conditions:
        plan = condition.plan(store, ROWS)
        tracemalloc.start()
        mask = condition.mask(store, ROWS)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert mask is not None and peak <= plan.total
        if condition.table:
            expected &= np.arange(ROWS) % 7 > 1
        else:
            assert plan.total < 40 * ROWS  # as strings the labels alone are 60 bytes each
        np.testing.assert_array_equal(mask, expected)
    assert RowFilter().mask(store, ROWS) is None and RowFilter().plan(store, ROWS).total == 0


def test_what_a_filter_reads_is_part_of_the_plan_of_a_question(store: FeatureStore) -> None:
    folder = Path(store.path).parent
    np.savez(folder / "q.npz", vectors=np.ones((1, 2), np.float16))
    words = ("plan", "attribute", folder / "S", "--queries", folder / "q.npz", "--json")
    table = ("--where", "author=author 3", "--columns", table_of(store))
    assert '"ids and values of a table"' in done(*words, *table).stdout
    assert '"ids and values of a table"' not in done(*words).stdout


def test_an_absent_value_is_refused_with_a_few_that_are_there(store: FeatureStore) -> None:
    with pytest.raises(DataError, match=r"no example has source=c.npz: there are a.npz, b.npz$"):
        RowFilter((("source", "a.npz"), ("source", "c.npz"))).mask(store, ROWS)
    five = "author 0, author 1, author 2, author 3, author 4, …"
    with pytest.raises(DataError, match=f"no example has author=you: there are {five}$"):
        RowFilter((("author", "you"),), table_of(store)).mask(store, ROWS)
    with pytest.raises(DataError, match=r"no example meets source=a.npz and author=rare"):
        RowFilter((("source", "a.npz"), ("author", "rare")), table_of(store)).mask(store, ROWS)


def test_an_empty_list_of_values_is_refused() -> None:
    with pytest.raises(SettingsError, match="column source has an empty list of values"):
        filter_of({"source": []})
    assert filter_of({"source": ["a", "b"], "flag": "x"}).conditions == (
        ("source", "a"), ("source", "b"), ("flag", "x"),
    )  # fmt: skip
    assert filter_of({}).conditions == filter_of(()).conditions == ()
