"""Several writers with chunks of their own: what is visible grows as one piece, and no chunk has two owners.

Run as a script, this file is one writer: `python test_store_writers.py STORE START STOP ROWS` appends rows START … START
+ ROWS, commits, says so, and waits for a line on its standard input before it ends.
"""

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr
from headwater.store.errors import DataError, StoreBusy
from headwater.store.feature_store import EXAMPLES, FeatureStore
from headwater.store.layout import Column
from headwater.store.reader import open_column
from headwater.store.verify import verify
from headwater.store.writer import GroupWriter

UNIT = 16


def empty(path: Path) -> FeatureStore:
    """A new store of two columns whose owners meet at multiples of 16 rows."""
    store = FeatureStore.create(path, {}, "0")
    store.add_group(EXAMPLES, [Column("id", (), "int64", UNIT), Column("half", (2,), "float16", 4)], {})
    return store


def batch(first: int, last: int) -> dict[str, np.ndarray]:
    """Rows by row number."""
    rows = np.arange(first, last)
    return {"id": rows, "half": np.stack([rows, -rows], 1).astype("float16")}


def write(writer: GroupWriter, last: int) -> None:
    """Append up to a row, and commit."""
    writer.append(batch(writer.rows, last))
    writer.commit()


def seen(path: Path) -> int:
    """Number of visible rows, which are as written."""
    store = FeatureStore.open(path)
    rows = store.rows(EXAMPLES)
    for name, expected in batch(0, rows).items():
        np.testing.assert_array_equal(open_column(store, EXAMPLES, name).gather(range(rows)), expected)
    assert zarr.open_array(path / "examples/id", mode="r").shape == (rows,)
    return rows


def process(path: Path, start: int, stop: int | None, rows: int) -> subprocess.Popen[str]:
    """A writer in a process of its own that has committed and holds on to its rows."""
    command = [sys.executable, __file__, str(path), str(start), str(stop), str(rows)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None and child.stdout.readline() == "committed\n"
    return child


def end(child: subprocess.Popen[str]) -> None:
    """Let a writer go."""
    child.communicate("\n", timeout=60)
    assert child.returncode == 0


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_the_visible_rows_are_one_piece_in_any_order(tmp_path, order):
    store = empty(tmp_path)
    stops = [UNIT, 2 * UNIT, None]
    written: set[int] = set()
    for part in order:
        with GroupWriter(store, EXAMPLES, part * UNIT, stops[part]) as writer:
            write(writer, part * UNIT + 7)
            write(writer, (part + 1) * UNIT)
        written.add(part)
        assert seen(tmp_path) == UNIT * next(n for n in range(4) if n not in written)
    assert FeatureStore.open(tmp_path).record(EXAMPLES).done == ((0, 3 * UNIT),)


def test_three_processes_write_at_once(tmp_path):
    empty(tmp_path)
    last = process(tmp_path, 2 * UNIT, None, 40)
    middle = process(tmp_path, UNIT, 2 * UNIT, UNIT)
    assert seen(tmp_path) == 0
    first = process(tmp_path, 0, UNIT, UNIT)
    assert seen(tmp_path) == 2 * UNIT + 40
    for child in (first, middle, last):
        end(child)
    store = FeatureStore.open(tmp_path)
    assert not any(verify(store))
    with GroupWriter(store, EXAMPLES) as writer:
        assert writer.rows == 2 * UNIT + 40


def test_rows_have_one_owner_until_it_is_killed(tmp_path):
    store = empty(tmp_path)
    child = process(tmp_path, 0, 2 * UNIT, 5)
    for start, stop in [(None, None), (0, None), (UNIT, 2 * UNIT), (UNIT, None)]:
        with pytest.raises(
            StoreBusy, match=r"^another writer owns these rows of .*/examples: wait for it, or stop it$"
        ):
            GroupWriter(store, EXAMPLES, start, stop)
    with GroupWriter(store, EXAMPLES, 2 * UNIT, 3 * UNIT):
        pass
    child.kill()
    child.communicate()
    with GroupWriter(store, EXAMPLES) as writer:
        assert writer.rows == 5
        with pytest.raises(StoreBusy):  # within one process too
            GroupWriter(store, EXAMPLES, UNIT, 2 * UNIT)
        write(writer, 3 * UNIT)
    assert seen(tmp_path) == 3 * UNIT


def test_a_range_begun_before_is_gone_on_with(tmp_path):
    store = empty(tmp_path)
    for last in (UNIT + 3, UNIT + 9, 2 * UNIT):
        with GroupWriter(store, EXAMPLES, UNIT, 2 * UNIT) as writer:
            write(writer, last)
    with GroupWriter(store, EXAMPLES, UNIT, 2 * UNIT) as writer:
        assert writer.rows == 2 * UNIT  # nothing left
        writer.commit()
    with GroupWriter(store, EXAMPLES, 0, UNIT) as writer:
        write(writer, UNIT)
    assert seen(tmp_path) == 2 * UNIT
    with GroupWriter(store, EXAMPLES, 0, UNIT) as writer:  # rows that a reader has seen stay
        assert writer.rows == UNIT


def test_rows_that_are_about_to_be_written_again_do_not_become_visible(tmp_path):
    store = empty(tmp_path)
    with GroupWriter(store, EXAMPLES, UNIT, 2 * UNIT) as writer:
        write(writer, 2 * UNIT)
    with GroupWriter(store, EXAMPLES) as writer:  # to the end: over the other's rows too
        writer.append(batch(0, UNIT + 4))
        writer.append(batch(UNIT + 4, UNIT + 6))
        writer.commit()
    assert seen(tmp_path) == UNIT + 6


def test_owners_meet_between_chunks(tmp_path):
    store = empty(tmp_path)
    for start, stop in [(8, 2 * UNIT), (0, 8)]:
        with pytest.raises(DataError, match=f"cut a chunk: owners meet at multiples of {UNIT} rows"):
            GroupWriter(store, EXAMPLES, start, stop)
    for start, stop in [(-UNIT, UNIT), (2 * UNIT, UNIT), (0, 0)]:
        with pytest.raises(DataError, match="none that a writer could own"):
            GroupWriter(store, EXAMPLES, start, stop)


if __name__ == "__main__":
    folder, begin, until, count = sys.argv[1:]
    until_row = None if until == "None" else int(until)
    with GroupWriter(FeatureStore.open(folder), EXAMPLES, int(begin), until_row) as own:
        write(own, int(begin) + int(count))
        print("committed", flush=True)
        sys.stdin.readline()
