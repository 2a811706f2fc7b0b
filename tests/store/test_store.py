"""What is committed comes back, through our readers and through plain zarr; what is not committed is not seen."""

import itertools
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr
from headwater.store.errors import DataError, StoreError, StoreMismatch
from headwater.store.feature_store import EXAMPLES, FeatureStore, method_group
from headwater.store.layout import TEXT, Column, column
from headwater.store.reader import open_column
from headwater.store.verify import chunk_count, verify
from headwater.store.writer import GroupWriter
from hypothesis import example, given, settings
from hypothesis import strategies as st

NUMBERS = ["bool", "int8", "uint8", "int16", "uint16", "int32", "int64", "uint64", "float16", "float32", "float64"]
texts = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=12), max_size=40)
chunks = st.sampled_from([1, 2, 4, 16, 64])


def numbers(rows: int, shape: tuple[int, ...], dtype: str, seed: int) -> np.ndarray:
    """Rows of random bits, NaN and infinities among them."""
    rng = np.random.default_rng(seed)
    if dtype == "bool":
        return rng.random((rows, *shape)) < 0.5
    size = rows * int(np.prod(shape, dtype=int)) * np.dtype(dtype).itemsize
    return np.frombuffer(rng.bytes(size), dtype).reshape(rows, *shape)


def store_with(path: Path, columns: list[Column], group: str = EXAMPLES) -> FeatureStore:
    """A new store with one group."""
    store = FeatureStore.create(path, {"model": "m"}, "0.1.0")
    store.add_group(group, columns, {})
    return store


def counting(path: Path, rows: int, *, chunk_rows: int = 8) -> FeatureStore:
    """A new store whose one column holds 0, 1, 2 …"""
    store = store_with(path, [Column("id", (), "int64", chunk_rows)])
    with GroupWriter(store, EXAMPLES) as writer:
        writer.append({"id": np.arange(rows)})
        writer.commit()
    return store


def seen(path: Path) -> list[int]:
    """The rows of `counting` that a new reader sees."""
    store = FeatureStore.open(path)
    return open_column(store, EXAMPLES, "id").gather(range(store.rows(EXAMPLES))).tolist()


@settings(max_examples=60, deadline=None)
@given(
    text=texts,
    shape=st.sampled_from([(), (1,), (3,), (2, 3)]),
    dtype=st.sampled_from(NUMBERS),
    number_chunk=chunks,
    text_chunk=chunks,
    cuts=st.lists(st.integers(0, 40), max_size=5),
    seed=st.integers(0, 1 << 30),
)
@example(["", "\0", "a\0", "\n\r\u2028", "ü🙂"], (), "bool", 4, 2, [3], 0)
@example([], (3,), "float16", 4, 2, [], 0)
def test_round_trip(text, shape, dtype, number_chunk, text_chunk, cuts, seed):
    values = numbers(len(text), shape, dtype, seed)
    columns = [Column("x", shape, dtype, number_chunk), Column("text", (), TEXT, text_chunk)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store"
        group = method_group("rise")
        store = store_with(path, columns, group)
        bounds = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
        for first, last in itertools.pairwise(bounds):
            with GroupWriter(store, group) as writer:
                middle = (first + last) // 2
                writer.append({"x": values[first:middle], "text": text[first:middle]})
                writer.append({"x": values[middle:last], "text": text[middle:last]})
                writer.commit()
        opened = FeatureStore.open(path)
        every = range(opened.rows(group))
        assert opened.columns(group) == tuple(columns)
        assert open_column(opened, group, "x").gather(every).tobytes() == values.tobytes()
        assert open_column(opened, group, "text").gather(every).tolist() == text
        assert list(verify(opened)) == [None] * chunk_count(opened)
        plain = zarr.open_group(path, mode="r")
        assert plain["shards/0/methods/rise/columns/x"].shape == values.shape
        assert plain["shards/0/methods/rise/columns/x"][:].tobytes() == values.tobytes()
        assert plain["shards/0/methods/rise/columns/text"][:].tolist() == text


def test_zarr_finds_nothing_foreign_in_a_store(tmp_path):
    counting(tmp_path / "s", 20)
    found = dict(zarr.open_group(tmp_path / "s", mode="r").members(max_depth=None))  # warns of files it does not know
    assert {"shards/0/examples", "shards/0/examples/id"} <= set(found)
    assert len(found) == 7  # and the groups above, with those of the manifests


def test_only_committed_rows_are_seen(tmp_path):
    store = counting(tmp_path, 5)
    with GroupWriter(store, EXAMPLES) as writer:
        assert writer.rows == 5
        writer.append({"id": np.arange(5, 30)})
        assert seen(tmp_path) == list(range(5))
        writer.commit(last="note")
        before = FeatureStore.open(tmp_path)
        assert seen(tmp_path) == list(range(30))
        assert zarr.open_array(tmp_path / "shards/0/examples/id", mode="r").shape == (30,)
        writer.append({"id": np.arange(30, 31)})
        writer.commit()
    assert before.rows(EXAMPLES) == 30  # a store object is a view of its moment
    assert open_column(before, EXAMPLES, "id").gather([29]).tolist() == [29]
    assert FeatureStore.open(tmp_path).resume_notes(EXAMPLES)["last"] == "note"
    with GroupWriter(store, EXAMPLES) as writer:
        writer.append({"id": np.arange(31, 90)})
    assert seen(tmp_path) == list(range(31))


def test_a_writer_goes_on_behind_rows_that_its_store_object_does_not_know_of(tmp_path):
    stale = counting(tmp_path, 0)
    with GroupWriter(FeatureStore.open(tmp_path), EXAMPLES) as writer:
        writer.append({"id": np.arange(11)})
        writer.commit()
    with GroupWriter(stale, EXAMPLES) as writer:
        assert writer.rows == 11
        writer.append({"id": np.arange(11, 13)})
        writer.commit()
    assert seen(tmp_path) == list(range(13))


def test_provenance_other_attributes_and_version_survive_updates(tmp_path):
    store = counting(tmp_path, 3)
    zarr.open_group(tmp_path, mode="a").attrs["mine"] = {"kept": True}
    store.update(lambda root: replace(root, provenance={**root.provenance, "corpus": "c"}))
    opened = FeatureStore.open(tmp_path)
    assert (opened.provenance, opened.version) == ({"model": "m", "corpus": "c"}, "0.1.0")
    assert zarr.open_group(tmp_path, mode="r").attrs["mine"] == {"kept": True}
    assert opened.methods == []


def test_a_group_that_is_there_stays_as_it_is(tmp_path):
    store = counting(tmp_path, 20)
    store.add_group(EXAMPLES, [Column("id", (), "int64", 8)], {})
    assert zarr.open_array(tmp_path / "shards/0/examples/id", mode="r").shape == (20,)
    with pytest.raises(StoreMismatch, match=r"other columns: id int64 \[\] by 8, not id int32 \[\] by 8"):
        store.add_group(EXAMPLES, [Column("id", (), "int32", 8)], {})
    assert seen(tmp_path) == list(range(20))


@pytest.mark.parametrize("names", [[], ["a", "a"], ["a/b"], [".."], [""], ["zarr.json"]])
def test_columns_need_usable_names(tmp_path, names):
    store = FeatureStore.create(tmp_path, {}, "0")
    with pytest.raises(DataError, match=r"needs its own name|cannot be the name of a column"):
        store.add_group(EXAMPLES, [Column(name, (), "int8", 1) for name in names], {})


def test_chunks_are_the_largest_power_of_two_rows_that_fits():
    assert column("x", (1000,), "float32", 32 << 20).chunk_rows == 8192
    assert column("x", (1 << 30,), "float32").chunk_rows == 1
    assert column("x", (), "int8").chunk_rows == 65_536
    assert column("x", (2,), ">f4") == column("x", (2,), "float32")
    assert column("t", (), TEXT).chunk_rows == 1024
    for shape, dtype in [((0,), "int8"), ((), "U5"), ((), "complex64"), ((), "datetime64[s]")]:
        with pytest.raises(DataError, match="cannot store rows"):
            column("x", shape, dtype)


def test_numbers_of_another_precision_are_converted(tmp_path):
    store = store_with(tmp_path, [Column("x", (2,), "float16", 8), Column("n", (), "uint16", 8)])
    with GroupWriter(store, EXAMPLES) as writer:
        writer.append({"x": [[1, 2], [3, 4]], "n": np.array([1, 65535], ">i8")})
        writer.append({"x": [], "n": []})
        writer.commit()
    assert open_column(store, EXAMPLES, "x").gather([1]).tolist() == [[3.0, 4.0]]
    assert open_column(store, EXAMPLES, "n").gather([1]).tolist() == [65535]


def test_an_array_stored_anew_in_another_form_is_not_appended_to(tmp_path):
    store = counting(tmp_path, 20)
    zarr.create_array(tmp_path / "shards/0/examples/id", data=np.arange(20), chunks=(8,), overwrite=True)
    assert seen(tmp_path) == list(range(20))
    with pytest.raises(StoreMismatch, match="examples/id was rewritten by another tool"):
        GroupWriter(store, EXAMPLES)
    with pytest.raises(StoreMismatch):  # and the refused writer holds no lock
        GroupWriter(store, EXAMPLES)


def test_a_closed_writer_takes_nothing(tmp_path):
    store = counting(tmp_path, 5)
    with GroupWriter(store, EXAMPLES) as writer:
        pass
    writer.close()
    with pytest.raises(StoreError, match="closed"):
        writer.append({"id": np.arange(5)})
    with pytest.raises(StoreError, match="closed"):
        writer.commit()
