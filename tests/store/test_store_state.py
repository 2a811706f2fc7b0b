"""States of arrays and values: whole or not there, found where they differ, read by any Zarr client."""

import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import zarr
from headwater.store.errors import DataError, StoreDamaged
from headwater.store.feature_store import FeatureStore
from headwater.store.state import State, has_state, read_state, remove_state, state_folders, whole_state, write_state
from headwater.store.verify import chunk_count, verify
from killing import kill_before

ARRAYS = {
    "mean": np.linspace(0, 1, 7),
    "gram0": np.arange(12, dtype=">i4").reshape(3, 4),
    "one": np.array(5, np.int16),
    "none": np.zeros((0, 3), np.float32),
    "flags": np.array([True, False]),
    "half": np.array([1.5, np.nan], np.float16),
}
VALUES = {"rows": 7, "names": ["a", "ü/../x", ""], "nested": {"x": None, "y": 0.1}}


def equal(state: State | None, values: dict, arrays: dict) -> bool:
    """Whether a state holds these, to the last bit."""
    return (
        state is not None
        and state.values == values
        and list(state.arrays) == list(arrays)
        and all(found.shape == np.shape(arrays[name]) for name, found in state.arrays.items())
        and all(np.array_equal(found, arrays[name], equal_nan=True) for name, found in state.arrays.items())
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A state of a store."""
    FeatureStore.create(tmp_path / "S", {}, "0")
    place = tmp_path / "S/methods/m/state/moments"
    write_state(place, VALUES, ARRAYS)
    return place


def test_what_is_written_is_read(folder: Path) -> None:
    assert equal(read_state(folder), VALUES, ARRAYS) and has_state(folder)
    write_state(folder.with_name("values"), {"only": [1]})
    assert equal(read_state(folder.with_name("values")), {"only": [1]}, {})
    assert read_state(folder.with_name("absent")) is None and not has_state(folder.with_name("absent"))
    remove_state(folder)
    assert read_state(folder) is None and not folder.exists()


def test_any_zarr_client_reads_it_and_finds_nothing_foreign(folder: Path) -> None:
    group = zarr.open_group(folder.parents[3], mode="r")
    members = dict(group.members(max_depth=None))  # warns of what it does not know
    (version,) = [place.name for place in folder.iterdir() if place.is_dir()]
    assert {f"methods/m/state/moments/{version}/{name}" for name in ARRAYS} <= set(members)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(group[f"methods/m/state/moments/{version}/{name}"][...], array)


def test_a_new_state_takes_the_place_of_the_old_one_whole(folder: Path) -> None:
    write_state(folder, {"rows": 8}, {"mean": np.zeros(3)})
    assert equal(read_state(folder), {"rows": 8}, {"mean": np.zeros(3)})
    assert len([place for place in folder.iterdir() if place.is_dir()]) == 1


def test_every_byte_counts(folder: Path) -> None:
    for file in [file for file in folder.rglob("*") if file.is_file()]:
        data = file.read_bytes()
        if json_of_group(data):
            continue
        for at in range(0, len(data), 1 if len(data) < 100 else 7):
            changed = bytes([data[at] ^ 1 << at % 7])
            file.write_bytes(data[:at] + changed + data[at + 1 :])
            if file.name != "zarr.json" or json.loads(data) != parsed(file.read_bytes()):  # not white space alone
                assert whole_state(folder) is None, (file, at)
        for other in (data[:-2], b"", data + b"x"):
            file.write_bytes(other)
            assert whole_state(folder) is None, file
        file.unlink()
        assert (read_state(folder) is None) if file.parent == folder else (whole_state(folder) is None)
        file.write_bytes(data)
    assert equal(read_state(folder), VALUES, ARRAYS)


def parsed(data: bytes) -> object:
    """JSON, or something that is none."""
    try:
        return json.loads(data)
    except ValueError:
        return None


def json_of_group(data: bytes) -> bool:
    """Whether bytes are the metadata of a group without attributes, which decides nothing."""
    return parsed(data) == {"zarr_format": 3, "node_type": "group", "attributes": {}}


def test_an_edited_value_and_an_exchanged_array_are_found(folder: Path) -> None:
    root = folder / "zarr.json"
    whole = root.read_text()
    root.write_text(whole.replace('"rows": 7', '"rows": 8'))
    with pytest.raises(StoreDamaged, match="does not hold what its digest says"):
        read_state(folder)
    root.write_text(whole)
    other = folder.with_name("other")
    write_state(other, VALUES, {**ARRAYS, "mean": ARRAYS["mean"] + 1})
    (mine,), (theirs,) = (list(place.glob("*/mean")) for place in (folder, other))
    shutil.rmtree(mine)
    shutil.copytree(theirs, mine)  # its own checksum agrees
    with pytest.raises(StoreDamaged, match="does not hold what its digest says"):
        read_state(folder)


@pytest.mark.parametrize("odd", [7, 0.5, False, None, [], {}, [1], ["mean", None]])
@pytest.mark.parametrize("name", ["state", "version", "arrays", "values"])
def test_a_record_of_other_types_is_damaged(folder: Path, name: str, odd: object) -> None:
    metadata = json.loads((folder / "zarr.json").read_text())
    metadata["attributes"]["headwater"][name] = odd
    (folder / "zarr.json").write_text(json.dumps(metadata))
    with pytest.raises(StoreDamaged):
        read_state(folder)


def test_verify_reads_states(folder: Path) -> None:
    store = FeatureStore.open(folder.parents[3])
    write_state(folder.parent / "base0/operators", {}, {"alpha": np.ones(3)})
    assert list(verify(store)) == [None, None] and chunk_count(store) == 2
    (chunk,) = (folder.parent / "base0/operators").glob("*/alpha/c/0")
    chunk.write_bytes(bytes(len(chunk.read_bytes())))
    (damage,) = [found for found in verify(store) if found]
    assert str(damage).startswith("methods/m/state/base0/operators is damaged: ") and "checksum" in str(damage)
    (folder / "zarr.json").write_text("{")
    assert sum(found is not None for found in verify(store)) == 2
    assert [place.name for place in state_folders(folder.parent)] == ["operators", "moments"]


@pytest.mark.parametrize("name", ["../x", "", "a/b", "zarr.json"])
def test_names_stay_below_the_state(folder: Path, name: str) -> None:
    with pytest.raises(DataError, match="cannot be the name of a"):
        write_state(folder, {}, {name: np.zeros(1)})
    metadata = json.loads((folder / "zarr.json").read_text())
    metadata["attributes"]["headwater"]["arrays"] = [name]
    (folder / "zarr.json").write_text(json.dumps(metadata))
    assert whole_state(folder) is None


def test_text_is_no_array_of_a_state(folder: Path) -> None:
    for array in (np.array(["a"]), np.array([object()]), np.array([1j])):
        with pytest.raises(DataError, match="not of numbers"):
            write_state(folder, {}, {"x": array})
    assert equal(read_state(folder), VALUES, ARRAYS)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a forked child")
def test_killed_before_each_change_of_the_disk_one_of_both_states_is_whole(tmp_path: Path) -> None:
    old, new = {"mean": np.zeros(4), "a": np.ones(2)}, {"mean": np.ones(4)}
    FeatureStore.create(tmp_path, {}, "0")
    step, seen, code = 0, set(), -signal.SIGKILL
    while code:
        step += 1
        folder = tmp_path / f"methods/m/state/{step}"
        write_state(folder, {"version": 1}, old)
        child = os.fork()
        if child == 0:
            stop_before(step)
            write_state(folder, {"version": 2}, new)
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        state = read_state(folder)
        assert equal(state, {"version": 1}, old) or equal(state, {"version": 2}, new)
        seen.add(state.values["version"])
        write_state(folder, {"version": 2}, new)
        assert equal(read_state(folder), {"version": 2}, new)
        assert not any(verify(FeatureStore.open(tmp_path)))
    assert step > 8 and seen == {1, 2}


def test_killed_before_each_change_of_the_disk_and_written_again_all_groups_above_are_there(tmp_path: Path) -> None:
    step, code = 0, -signal.SIGKILL
    while code:
        step += 1
        store = FeatureStore.create(tmp_path / str(step), {}, "0").path
        child = os.fork()
        if child == 0:
            stop_before(step)
            write_state(store / "methods/m/state/a", {"version": 1}, {"mean": np.ones(2)})
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        write_state(store / "methods/m/state/a", {"version": 1}, {"mean": np.ones(2)})
        assert all((store / group / "zarr.json").is_file() for group in ("methods", "methods/m", "methods/m/state")), (
            step
        )
    assert step > 8


def stop_before(step: int) -> None:
    """End this process just before its `step`-th change of the disk."""
    kill_before(step, (os, "fsync"), (shutil, "rmtree"), (Path, "mkdir"), (Path, "replace"))
