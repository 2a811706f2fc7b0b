"""Ragged columns: what is written comes back, in any cut of the rows, after kills, through plain zarr; damage is found."""

import itertools
import tempfile
from pathlib import Path

import numpy as np
import pytest
import zarr
from headwater.store.errors import DataError, StoreDamaged
from headwater.store.feature_store import EXAMPLES, FeatureStore
from headwater.store.layout import Column, narrowest_unsigned, ragged_column
from headwater.store.ragged import open_ragged
from headwater.store.reader import open_column
from headwater.store.store_record import columns_from, columns_json
from headwater.store.verify import chunk_count, verify
from headwater.store.writer import GroupWriter
from hypothesis import given, settings
from hypothesis import strategies as st

IDS, VECTORS = Column("ids", (), "uint16", 4, ragged=True), Column("vectors", (2,), "float32", 8, ragged=True)
NUMBER = Column("number", (), "int64", 4)


def rows_of(lengths: list[int]) -> dict[str, list[np.ndarray]]:
    """Rows whose elements tell where they belong."""
    starts = np.cumsum([0, *lengths])
    ids = [np.arange(first, last) % 65536 for first, last in itertools.pairwise(starts)]
    return {
        "ids": ids,
        "vectors": [np.stack([row, -row], 1).astype(np.float32) for row in ids],
        "number": list(range(len(lengths))),
    }


def written(path: Path, lengths: list[int], cuts: list[int]) -> FeatureStore:
    """A store of these rows, committed in parts, each by a writer of its own."""
    store = FeatureStore.create(path, {}, "0")
    store.add_group(EXAMPLES, [NUMBER, IDS, VECTORS], {})
    bounds = [0, *sorted(min(cut, len(lengths)) for cut in cuts), len(lengths)]
    for first, last in itertools.pairwise(bounds):
        with GroupWriter(store, EXAMPLES) as writer:
            writer.append({name: values[first:last] for name, values in rows_of(lengths).items()})
            writer.commit()
            writer.append({name: values[:1] for name, values in rows_of([3]).items()})  # is never committed
    return FeatureStore.open(path)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 11), max_size=25), st.lists(st.integers(0, 25), max_size=4))
def test_round_trip(lengths: list[int], cuts: list[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = written(Path(folder) / "s", lengths, cuts)
        expected = rows_of(lengths)
        for name in ("ids", "vectors"):
            column = open_ragged(store, EXAMPLES, name)
            for asked in (range(len(lengths)), range(len(lengths) - 1, -1, -1), [0, 0] if lengths else []):
                found = column.gather(list(asked))
                assert [part.tolist() for part in found] == [expected[name][row].tolist() for row in asked]
                assert all(part.dtype == column.column.dtype for part in found)
        assert list(verify(store)) == [None] * chunk_count(store)
        group = zarr.open_group(store.path, mode="r")
        if lengths:
            assert group["shards/0/examples/ids/offsets"][:].tolist() == np.cumsum([0, *lengths]).tolist()
        assert group["shards/0/examples/ids/values"][:].tolist() == [
            value for row in expected["ids"] for value in row.tolist()
        ]


def test_zarr_finds_nothing_foreign(tmp_path: Path) -> None:
    store = written(tmp_path / "s", [1, 2], [])
    members = dict(zarr.open_group(store.path, mode="r").members(max_depth=None))  # warns of what it does not know
    assert {"shards/0/examples/ids", "shards/0/examples/ids/values", "shards/0/examples/ids/offsets"} <= set(members)


def test_the_bytes_do_not_depend_on_where_writing_was_cut(tmp_path: Path) -> None:
    lengths = [3, 0, 9, 1, 4, 4, 0, 2]
    trees = []
    for name, cuts in (("a", []), ("b", [1, 4, 6])):
        store = written(tmp_path / name, lengths, cuts)
        with GroupWriter(store, EXAMPLES) as writer:
            writer.append(rows_of([]))
            writer.commit()
        files = [file for file in store.path.rglob("*") if file.is_file() and file.name != ".writers"]
        trees.append({str(file.relative_to(store.path)): file.read_bytes() for file in files})
    assert set(trees[0]) == set(trees[1])
    for file, data in trees[0].items():
        if "/c/" not in file:
            assert trees[1][file] == data, file
    for name in ("ids", "vectors"):  # behind the rows may lie what was never committed
        found = [open_ragged(FeatureStore.open(tmp_path / one), EXAMPLES, name).gather(range(8)) for one in "ab"]
        assert all(np.array_equal(one, other) for one, other in zip(*found, strict=True))


def test_every_byte_of_both_arrays_counts(tmp_path: Path) -> None:
    store = written(tmp_path / "s", [3, 0, 5, 1], [])
    for file in [*store.path.glob("shards/0/examples/ids/*/c/*")]:
        data = file.read_bytes()
        for at in (0, len(data) // 2, len(data) - 1):
            file.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
            damages = [damage for damage in verify(store) if damage]
            assert damages and all(damage.column.startswith("shards/0/examples/ids") for damage in damages), file
            with pytest.raises(StoreDamaged, match="run headwater verify"):
                open_ragged(store, EXAMPLES, "ids").gather(range(4))
        file.write_bytes(data)
    assert not any(verify(store))
    (store.path / "shards/0/examples/ids/values/zarr.json").unlink()
    (damage,) = [damage for damage in verify(store) if damage]
    assert damage.column == "shards/0/examples/ids" and "cannot be opened" in str(damage)


def test_what_the_type_does_not_hold_is_refused(tmp_path: Path) -> None:
    store = FeatureStore.create(tmp_path / "s", {}, "0")
    store.add_group(EXAMPLES, [IDS], {})
    with GroupWriter(store, EXAMPLES) as writer:
        for wrong, told in (
            ([[70_000]], "70000: outside the range of uint16"),
            ([[1], 5], "row 1 of ids is a single number"),
        ):
            with pytest.raises(DataError, match=told):
                writer.append({"ids": wrong})
        writer.append({"ids": [[65_535], []]})
        writer.commit()
    assert [row.tolist() for row in open_ragged(FeatureStore.open(store.path), EXAMPLES, "ids").gather([0, 1])] == [
        [65535],
        [],
    ]
    with pytest.raises(DataError, match="is ragged"):
        open_column(FeatureStore.open(store.path), EXAMPLES, "ids")
    with pytest.raises(DataError, match="asked for"):
        open_ragged(FeatureStore.open(store.path), EXAMPLES, "ids").gather([2])


def test_offsets_that_do_not_ascend_are_damage(tmp_path: Path) -> None:
    store = written(tmp_path / "s", [3, 2], [])
    column = open_ragged(store, EXAMPLES, "ids")
    column.values.rows = 1  # as if fewer elements were there than the offsets say
    with pytest.raises(StoreDamaged, match="does not ascend"):
        column.gather([0])


def test_a_ragged_column_survives_json_and_has_the_narrowest_type() -> None:
    assert columns_from(columns_json([IDS, NUMBER])) == (IDS, NUMBER)
    assert "ragged" not in columns_json([NUMBER])[0]
    types = [narrowest_unsigned(count) for count in (1, 256, 257, 65_536, 65_537, 1 << 33)]
    assert types == ["uint8", "uint8", "uint16", "uint16", "uint32", "uint64"]
    assert ragged_column("x", "float16", (4,)).ragged
    with pytest.raises(DataError, match="not text"):
        ragged_column("x", "string")
