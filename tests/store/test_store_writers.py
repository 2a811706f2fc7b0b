"""One owner of a group at a time; what it has committed is seen by others while it goes on, whichever view they have.

Run as a script, this file is one writer: `python test_store_writers.py STORE ROWS` appends rows up to ROWS, commits, says so,
and waits for a line on its standard input before it ends.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr
from headwater.store.errors import StoreBusy, StoreDamaged
from headwater.store.feature_store import EXAMPLES, FeatureStore
from headwater.store.layout import TEXT, Column
from headwater.store.reader import open_column
from headwater.store.verify import verify
from headwater.store.writer import GroupWriter

COLUMNS = [Column("id", (), "int64", 16), Column("half", (2,), "float16", 4), Column("text", (), TEXT, 8)]


def empty(path: Path) -> FeatureStore:
    """A new store without rows."""
    store = FeatureStore.create(path, {}, "0")
    store.add_group(EXAMPLES, COLUMNS, {})
    return store


def batch(first: int, last: int) -> dict[str, object]:
    """Rows by row number."""
    rows = np.arange(first, last)
    return {"id": rows, "half": np.stack([rows, -rows], 1).astype("float16"), "text": [f"row {row}" for row in rows]}


def write(writer: GroupWriter, last: int, *, complete: bool = False) -> None:
    """Append up to a row, and commit."""
    writer.append(batch(writer.rows, last))
    writer.commit(complete=complete)


def require_rows(store: FeatureStore, rows: int) -> None:
    """A view of the store has so many rows, which are as written."""
    assert store.rows(EXAMPLES) == rows
    for name, expected in batch(0, rows).items():
        assert open_column(store, EXAMPLES, name).gather(range(rows)).tolist() == np.asarray(expected).tolist()


def entry_in_root(path: Path) -> dict[str, object]:
    """What the root says of the examples."""
    record = json.loads((path / "zarr.json").read_text())["attributes"]["headwater"]
    return record["shards"]["0"][EXAMPLES]


def process(path: Path, rows: int) -> subprocess.Popen[str]:
    """A writer in a process of its own that has committed and goes on owning the group."""
    command = [sys.executable, __file__, str(path), str(rows)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None and child.stdout.readline() == "committed\n"
    return child


def test_a_group_has_one_owner_and_a_killed_one_frees_it(tmp_path):
    store = empty(tmp_path)
    child = process(tmp_path, 21)
    with pytest.raises(StoreBusy, match=r"another process writes examples of .*\nhint: wait for it, or stop it"):
        GroupWriter(store, EXAMPLES)
    require_rows(FeatureStore.open(tmp_path), 21)
    child.kill()
    child.communicate()
    with GroupWriter(store, EXAMPLES) as writer:
        assert writer.rows == 21
        with pytest.raises(StoreBusy):  # within one process too
            GroupWriter(store, EXAMPLES)
        write(writer, 30)
    require_rows(FeatureStore.open(tmp_path), 30)
    assert not list(tmp_path.rglob(".*")), "a lock leaves no file"


def test_the_root_is_touched_when_a_group_is_declared_and_when_it_is_finished(tmp_path):
    store = empty(tmp_path)
    root, nothing = (tmp_path / "zarr.json").read_bytes(), {"rows": 0, "complete": False, "manifest": ""}
    assert entry_in_root(tmp_path) == nothing
    with GroupWriter(store, EXAMPLES) as writer:
        for rows in (3, 16, 17):
            write(writer, rows)
            assert (tmp_path / "zarr.json").read_bytes() == root
            reader = FeatureStore.open(tmp_path)
            assert not reader.is_complete(EXAMPLES) and store.rows(EXAMPLES) == rows
            require_rows(reader, rows)
        write(writer, 20, complete=True)
        entry = entry_in_root(tmp_path)
        assert entry == {"rows": 20, "complete": True, "manifest": store.entry(EXAMPLES).manifest}
        writer.commit(complete=True)  # nothing new
        writer.commit()
        assert entry_in_root(tmp_path) == entry and FeatureStore.open(tmp_path).is_complete(EXAMPLES)
        write(writer, 22)  # appended rows make it unfinished again
        assert entry_in_root(tmp_path) == {**entry, "complete": False}
        assert (
            len(list((tmp_path / "shards/0/manifests/examples").glob("*/zarr.json"))) == 2
        )  # the root's, and the newest
        write(writer, 25, complete=True)
    require_rows(FeatureStore.open(tmp_path), 25)
    assert [place.parent.name for place in (tmp_path / "shards/0/manifests/examples").glob("*/zarr.json")] == [
        FeatureStore.open(tmp_path).entry(EXAMPLES).manifest
    ]


def test_a_progress_record_that_is_gone_costs_what_the_root_does_not_know(tmp_path):
    with GroupWriter(empty(tmp_path), EXAMPLES) as writer:
        write(writer, 20, complete=True)
        write(writer, 30)
    (tmp_path / "shards/0/examples/zarr.json").unlink()
    require_rows(FeatureStore.open(tmp_path), 20)
    with GroupWriter(FeatureStore.open(tmp_path), EXAMPLES) as writer:
        assert writer.rows == 20
        write(writer, 30, complete=True)
    require_rows(FeatureStore.open(tmp_path), 30)


@pytest.mark.parametrize(
    "change", ['"headwater"->"headwateb"', '"attributes"->"Attributes"', '{->{"odd": 1,', '"rows"->"sows"']
)
def test_a_progress_record_with_a_changed_key_is_damaged_not_empty(tmp_path, change):
    with GroupWriter(empty(tmp_path), EXAMPLES) as writer:
        write(writer, 20)
    file = tmp_path / "shards/0/examples/zarr.json"
    file.write_text(file.read_text().replace(*change.split("->"), 1))
    with pytest.raises(StoreDamaged):
        FeatureStore.open(tmp_path)


def test_a_progress_record_that_is_a_link_to_nothing_is_damaged(tmp_path):
    with GroupWriter(empty(tmp_path), EXAMPLES) as writer:
        write(writer, 20)
    file = tmp_path / "shards/0/examples/zarr.json"
    file.unlink()
    file.symlink_to(tmp_path / "nowhere")
    with pytest.raises(StoreDamaged, match="leads nowhere"):
        FeatureStore.open(tmp_path)


@pytest.mark.parametrize("rows", [1, 4, 7, 8, 16, 20])
def test_an_older_view_stays_true_while_the_owner_goes_on(tmp_path, rows):
    """Its last chunks are filled up and its manifest is removed: what it shows is still there, and is still checked."""
    store = empty(tmp_path)
    with GroupWriter(store, EXAMPLES) as writer:
        write(writer, rows)
        lazy, eager = FeatureStore.open(tmp_path), FeatureStore.open(tmp_path)
        readers = {column.name: open_column(eager, EXAMPLES, column.name) for column in COLUMNS}
        for last in (rows + 1, rows + 5, rows + 30):
            write(writer, last)
        writer.append(batch(writer.rows, writer.rows + 40))  # full chunks become files before their commit
        require_rows(FeatureStore.open(tmp_path), rows + 30)
        require_rows(lazy, rows)
        for name, reader in readers.items():
            assert reader.gather(range(rows)).tolist() == np.asarray(batch(0, rows)[name]).tolist()
            assert not any(reader.fault(chunk) for chunk in range(-(-rows // reader.column.chunk_rows)))
        assert not any(verify(FeatureStore.open(tmp_path))) and not any(verify(lazy))
    assert not any(verify(FeatureStore.open(tmp_path)))


def test_a_flipped_bit_is_found_through_an_older_view(tmp_path):
    with GroupWriter(empty(tmp_path), EXAMPLES) as writer:
        write(writer, 6)
        old = FeatureStore.open(tmp_path)
        write(writer, 7)
        chunk = tmp_path / "shards/0/examples/half/c/1/0"
        chunk.write_bytes(b"x" + chunk.read_bytes()[1:])
        with pytest.raises(StoreDamaged, match=r"half chunk 1 \(rows 4 to 5\) differs from its checksum"):
            open_column(old, EXAMPLES, "half").gather([4])


def test_what_a_kill_left_of_a_removed_group_is_not_in_the_next_one(tmp_path, monkeypatch):
    store, path = empty(tmp_path / "S"), tmp_path / "S"
    with GroupWriter(store, EXAMPLES) as writer:
        write(writer, 40, complete=True)
    empty(tmp_path / "calm")
    with monkeypatch.context() as patch:  # killed after the root was replaced, before a folder is removed
        patch.setattr("headwater.store.shard.Shard.remove_group", lambda *_: None)
        store.remove_group(EXAMPLES)
    assert list(path.glob("shards/0/examples/*/c/*"))
    again = FeatureStore.open(path)
    again.add_group(EXAMPLES, FeatureStore.open(tmp_path / "calm").columns(EXAMPLES), {})
    left, calm = (sorted(path.relative_to(place) for path in place.rglob("*")) for place in (path, tmp_path / "calm"))
    assert left == calm
    with GroupWriter(again, EXAMPLES) as writer:
        write(writer, 20, complete=True)
    require_rows(FeatureStore.open(path), 20)


def test_removed_is_removed(tmp_path):
    store = empty(tmp_path)
    with GroupWriter(store, EXAMPLES) as writer:
        write(writer, 20, complete=True)
        with pytest.raises(StoreBusy):
            FeatureStore.open(tmp_path).remove_group(EXAMPLES)
    store.remove_group(EXAMPLES)
    store.remove_group(EXAMPLES)
    assert not FeatureStore.open(tmp_path).groups and not (tmp_path / "shards/0/examples").exists()
    store.add_group(EXAMPLES, COLUMNS, {})
    with GroupWriter(store, EXAMPLES) as writer:
        assert writer.rows == 0
        write(writer, 9, complete=True)
    require_rows(FeatureStore.open(tmp_path), 9)
    dict(zarr.open_group(tmp_path, mode="r").members(max_depth=None))  # warns of what it does not know


if __name__ == "__main__":
    with GroupWriter(FeatureStore.open(sys.argv[1]), EXAMPLES) as own:
        write(own, int(sys.argv[2]))
        print("committed", flush=True)
        sys.stdin.readline()
