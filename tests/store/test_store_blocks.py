"""Blocks equal the source, whatever their size; they are read ahead in bounded memory and end when they should."""

import gc
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from headwater.store.blocks import BlockStream, SharedBlocks, read_blocks
from headwater.store.cached import hold
from headwater.store.columns import ColumnReader
from headwater.store.errors import DataError, StoreDamaged, StoreMissing
from headwater.store.feature_store import EXAMPLES, FeatureStore
from headwater.store.layout import TEXT, Array, Block, Column
from headwater.store.reader import open_column
from headwater.store.writer import GroupWriter

ROWS = 21
SOURCE = {"id": np.arange(ROWS), "pair": np.arange(2 * ROWS, dtype="float32").reshape(ROWS, 2)}


def make(path: Path, columns: list[Column], rows: dict[str, Array]) -> FeatureStore:
    """A new store with these rows."""
    store = FeatureStore.create(path, {}, "0")
    store.add_group(EXAMPLES, columns, {})
    with GroupWriter(store, EXAMPLES) as writer:
        writer.append(rows)
        writer.commit()
    return store


@pytest.fixture(scope="module")
def columns(tmp_path_factory) -> list[ColumnReader]:
    """Two columns cut into chunks of different sizes."""
    kinds = [Column("id", (), "int64", 8), Column("pair", (2,), "float32", 4)]
    store = make(tmp_path_factory.mktemp("blocks"), kinds, SOURCE)
    return [open_column(store, EXAMPLES, kind.name) for kind in kinds]


def assert_equal(blocks: Iterator[Block], start: int, stop: int) -> None:
    """The blocks are the rows start … stop-1 of the source, in order."""
    at = start
    for block in blocks:
        assert block.start == at
        for name, values in block.columns.items():
            np.testing.assert_array_equal(values, SOURCE[name][at : at + block.rows])
        at += block.rows
    assert at == stop


@pytest.mark.parametrize("ahead", [0, 1, 3])
@pytest.mark.parametrize("block_rows", range(1, ROWS + 2))
def test_blocks_equal_the_source(columns, block_rows, ahead):
    assert_equal(read_blocks(columns, block_rows, ahead=ahead), 0, ROWS)


def test_any_range_equals_the_source(columns):
    for start in range(0, ROWS + 1, 2):
        for stop in range(start, ROWS + 1, 3):
            assert_equal(read_blocks(columns, 5, start=start, stop=stop), start, stop)


def test_rows_or_columns_that_are_not_there_are_refused(columns):
    for start, stop in [(0, ROWS + 1), (-1, 3), (5, 4)]:
        with pytest.raises(DataError, match=rf"rows {start} to {stop} asked for, but shards/0/examples/id has 21 rows"):
            next(read_blocks(columns, 4, start=start, stop=stop))
    with pytest.raises(DataError, match="different names"):
        next(read_blocks([columns[0], columns[0]], 4))


def test_text_is_gathered_not_read_in_blocks(tmp_path):
    store = make(tmp_path, [Column("text", (), TEXT, 2)], {"text": ["a", "", "ü"]})
    text = open_column(store, EXAMPLES, "text")
    assert text.gather([2, 0, 2, 1]).tolist() == ["ü", "a", "ü", ""]
    assert text.gather([]).tolist() == []
    with pytest.raises(DataError, match="has rows 0 to 2; asked for"):
        text.gather([0, 3])
    with pytest.raises(DataError, match="columns of numbers"):
        next(read_blocks([text], 2))


def test_a_part_of_a_block_is_a_view(columns):
    with_part = next(read_blocks(columns, 10)).part(3, 5)
    assert (with_part.start, with_part.rows) == (3, 2)
    assert with_part.columns["id"].tolist() == [3, 4] and with_part.columns["id"].base is not None


def test_gather_takes_any_order_and_repeats(columns):
    rng = np.random.default_rng(0)
    for rows in ([], [20], [20, 0, 20, 7, 8], rng.integers(0, ROWS, 100), range(ROWS)):
        for column in columns:
            np.testing.assert_array_equal(column.gather(rows), SOURCE[column.column.name][np.asarray(rows, int)])


@pytest.mark.parametrize("rows", [[-1], [ROWS], [0, 1 << 40], [3, -5, 99]])
def test_rows_that_are_not_committed_are_refused(columns, rows):
    for column in columns:
        with pytest.raises(DataError, match=r"^shards/0/examples/\w+ has rows 0 to 20; asked for \["):
            column.gather(rows)


def test_reading_into_an_array_that_is_not_contiguous_fails_loudly(columns):
    with pytest.raises(ValueError, match=r"contiguous|copy"):
        columns[1].read(0, 4, np.empty((4, 4), "float32")[:, ::2])


def test_memory_is_a_few_blocks(tmp_path):
    rows = np.ones((1 << 16, 256), "float32")  # 64 MB
    store = make(tmp_path, [Column("x", (256,), "float32", 1 << 13)], {"x": rows})
    column = open_column(store, EXAMPLES, "x")
    tracemalloc.start()
    seen, addresses = 0, set()
    for block in read_blocks([column], 1 << 10):  # 1 MB
        seen += block.rows
        addresses.add(block.columns["x"].ctypes.data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert seen == 1 << 16
    assert len(addresses) == 2
    assert peak < 2.5e6


def test_padding_is_summed_in_small_parts(tmp_path):
    store = make(tmp_path, [Column("x", (256,), "float32", 1 << 14)], {"x": np.ones((3, 256), "float32")})  # of 16 MB
    column = open_column(store, EXAMPLES, "x")
    tracemalloc.start()
    assert sum(block.rows for block in read_blocks([column], 100)) == 3
    assert column.fault(0) is None
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.5e6


def test_closed_early_it_leaves_no_thread(columns):
    before = threading.active_count()
    for ahead in (0, 1, 5):
        blocks = read_blocks(columns, 1, ahead=ahead)
        next(blocks)
        assert threading.active_count() == before + 1
        blocks.close()
        assert threading.active_count() == before
    dropped = read_blocks(columns, 1)
    next(dropped)
    del dropped
    gc.collect()
    assert threading.active_count() == before


def test_closed_early_it_reads_nothing_more(columns):
    class Counting(type(columns[0])):
        reads = 0

        def load(self, start: int, stop: int, out: Array) -> None:
            Counting.reads += 1
            super().load(start, stop, out)

    first = columns[0]
    blocks = read_blocks([Counting(first.column, first.rows, first.name, first.folder)], 1, ahead=8)
    next(blocks)
    blocks.close()
    assert Counting.reads <= 10


@pytest.mark.parametrize("error", [StoreDamaged("x"), MemoryError(), KeyboardInterrupt()])
def test_what_goes_wrong_in_the_reading_thread_surfaces(error):
    class Broken(ColumnReader):
        def load(self, start: int, stop: int, out: Array) -> None:
            if start == 4:
                raise error
            out[:] = start

        def gather(self, rows: object) -> Array:
            raise AssertionError("whole blocks are read by load alone")

        checksum = gather

    before = threading.active_count()
    blocks = read_blocks([Broken(Column("x", (), "int8", 4), 8, "x")], 2)
    assert [next(blocks).start, next(blocks).start] == [0, 2]
    with pytest.raises(type(error)):
        next(blocks)
    assert threading.active_count() == before


@pytest.mark.parametrize("takers", [1, 2, 5])
@pytest.mark.parametrize("kind", ["ahead", "shared", "held"])
def test_several_takers_get_each_block_once(columns, takers, kind):
    taken: list[tuple[int, np.ndarray]] = []
    readers = [hold(column) for column in columns] if kind == "held" else columns
    source = BlockStream(readers, 2, takers + 1) if kind == "ahead" else SharedBlocks(readers, 2)

    def work() -> None:
        for block in source.blocks():
            taken.append((block.start, block.columns["pair"].copy()))

    threads = [threading.Thread(target=work) for _ in range(takers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    source.close()
    found = np.concatenate([rows for _, rows in sorted(taken, key=lambda item: item[0])])
    np.testing.assert_array_equal(found, SOURCE["pair"])


@pytest.mark.parametrize("block_rows", [1, 3, 4, 5, 100])
def test_shared_blocks_equal_the_source(columns, block_rows):
    for readers in (columns, [hold(column) for column in columns]):
        assert_equal(SharedBlocks(readers, block_rows).blocks(), 0, ROWS)
        assert_equal(SharedBlocks(readers, block_rows, start=3, stop=17).blocks(), 3, 17)
        source = SharedBlocks(readers, block_rows)
        blocks = source.blocks()
        next(blocks)
        source.close()
        assert next(blocks, None) is None


def test_shared_blocks_leave_no_file_open(tmp_path):
    store = make(tmp_path / "s", [Column("pair", (2,), "float32", 4)], {"pair": SOURCE["pair"]})
    source = SharedBlocks([open_column(store, EXAMPLES, "pair")], 4)
    before = len(list(Path("/proc/self/fd").iterdir()))
    threads = [threading.Thread(target=lambda: list(source.blocks())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    left = source.blocks()
    next(left, None)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_damage_in_shared_blocks_is_found_by_the_taker_of_the_last_part(tmp_path, monkeypatch):
    monkeypatch.setattr("headwater.store.blocks.STRIDE", 1)
    store = make(tmp_path / "s", [Column("pair", (2,), "float32", 4)], {"pair": SOURCE["pair"]})
    path = next((tmp_path / "s").rglob("c/2/0"))
    path.write_bytes(b"x" + path.read_bytes()[1:])
    source = SharedBlocks([open_column(store, EXAMPLES, "pair")], 2)
    one, other = source.blocks(), source.blocks()
    for taker in (one, other, one, other, one):
        next(taker)
    with pytest.raises(StoreDamaged, match="chunk 2 "):
        next(other)


def test_blocks_of_held_columns_are_views(columns):
    held = [hold(column) for column in columns]
    before = threading.active_count()
    block = next(SharedBlocks(held, 8).blocks())
    assert threading.active_count() == before and np.shares_memory(block.columns["pair"], held[1].array)
    np.testing.assert_array_equal(held[1].gather([5, 0]), SOURCE["pair"][[5, 0]])


def test_damage_is_found_by_who_would_hold_it(columns, tmp_path):
    store = make(tmp_path / "s", [Column("pair", (2,), "float32", 4)], {"pair": SOURCE["pair"]})
    path = next((tmp_path / "s").rglob("c/2/0"))
    path.write_bytes(b"x" + path.read_bytes()[1:])
    with pytest.raises(StoreDamaged, match="chunk 2 "):
        hold(open_column(store, EXAMPLES, "pair"))


def test_damage_is_found_whatever_the_order_of_the_parts(columns, tmp_path):
    store = make(tmp_path / "s", [Column("pair", (2,), "float32", 16)], {"pair": SOURCE["pair"]})
    rows = np.empty((ROWS, 2), "float32")
    for order in ([(0, 5), (5, 9), (9, 16)], [(9, 16), (0, 5), (5, 9)], [(5, 9), (9, 16), (0, 5)]):
        column = open_column(store, EXAMPLES, "pair")
        for start, stop in [(2, 7), *order]:  # the first is left alone, and its rows are read again
            column.load(start, stop, rows[start:stop])
            column.confirm(start, rows[start:stop])
        with pytest.raises(StoreDamaged, match=r"chunk 0 \(rows 0 to 15\) differs"):
            for start, stop in order:
                column.confirm(start, rows[start:stop] + (start == 5))


def test_a_script_that_ends_amid_the_blocks_ends(columns, tmp_path):
    make(tmp_path / "s", [Column("id", (), "int64", 8)], {"id": SOURCE["id"]})
    script = f"""
from headwater.store.feature_store import FeatureStore
from headwater.store.blocks import BlockStream, SharedBlocks, read_blocks
from headwater.store.reader import open_column
blocks = read_blocks([open_column(FeatureStore.open({str(tmp_path / "s")!r}), "examples", "id")], 2)
print(next(blocks).start)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")


def test_a_missing_column_or_group_is_named(tmp_path):
    store = make(tmp_path / "s", [Column("id", (), "int64", 8)], {"id": SOURCE["id"]})
    with pytest.raises(StoreMissing, match="holds no examples column other"):
        open_column(store, EXAMPLES, "other")
    with pytest.raises(StoreMissing, match=r"holds no group methods/x, only \['examples'\]"):
        open_column(store, "methods/x", "id")


@pytest.mark.parametrize(("gap", "part"), [(0, 1 << 20), (16, 1 << 20), (40, 64), (1 << 14, 100)])
def test_rows_are_gathered_in_runs(tmp_path, monkeypatch, gap, part):
    monkeypatch.setattr("headwater.store.file_column._GAP", gap)
    monkeypatch.setattr("headwater.store.file_column._PART", part)
    rows = np.arange(400, dtype="float32").reshape(200, 2)
    store = make(tmp_path, [Column("x", (2,), "float32", 64)], {"x": rows})
    column = open_column(store, EXAMPLES, "x")
    random = np.random.default_rng(0)
    for count in (1, 2, 30, 150, 400):
        wanted = random.integers(200, size=count)
        np.testing.assert_array_equal(column.gather(wanted), rows[wanted])
