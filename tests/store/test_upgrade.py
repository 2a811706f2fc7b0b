"""Stores of formats 1 and 2 become format 3 in place: same rows, same scores, whole at every moment.

Run as a script, this file upgrades a copy of a store again and again, and is killed before each change of the disk.
"""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr
from headwater.engine.arrays.scan.scan_loop import ScanShape
from headwater.engine.arrays.scan.scorers import scorer_of
from headwater.engine.arrays.scan.stored_rows import StoredRows
from headwater.engine.arrays.scan.top_k import top_k
from headwater.engine.runtime.run import SILENT_STAGE
from headwater.store import files
from headwater.store.errors import StoreBusy, StoreDamaged, StoreFull
from headwater.store.feature_store import EXAMPLES, FeatureStore, method_group, precision_group
from headwater.store.reader import open_column
from headwater.store.state import read_state, write_state
from headwater.store.upgrade import upgrade
from headwater.store.verify import chunk_count, verify
from headwater.store.writer import GroupWriter
from killing import kill_before
from places import GOLDEN

OLD = [GOLDEN / "store_v1", GOLDEN / "store_v2"]


@pytest.fixture(params=OLD, ids=["format 1", "format 2"])
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of a golden store."""
    return Path(shutil.copytree(request.param, tmp_path / "S"))


def rows_of(path: Path) -> dict[str, list[object]]:
    """All rows of all columns."""
    store = FeatureStore.open(path)
    readers = {
        f"{group} {c.name}": open_column(store, group, c.name) for group in store.groups for c in store.columns(group)
    }
    return {name: reader.gather(range(reader.rows)).tolist() for name, reader in readers.items()}


def scores(path: Path, group: str, column: str) -> tuple[bytes, bytes]:
    """Ranked rows and scores of some queries, to the last bit."""
    stored = StoredRows(FeatureStore.open(path), group)
    precision = stored.precisions[column]
    queries = np.random.default_rng(0).standard_normal((5, precision.depth)).astype(np.float32)
    best = top_k(stored.scanned(column), scorer_of(precision, queries), 7, ScanShape(4, 2), SILENT_STAGE)
    return best.rows.tobytes(), best.scores.tobytes()


def answers(path: Path) -> list[tuple[bytes, bytes]]:
    """Of every method and precision."""
    store = FeatureStore.open(path)
    groups = [method_group(name) for name in store.methods]
    groups += [precision_group(name, form) for name in store.methods for form in store.copies(name)]
    return [scores(path, group, column) for group in groups for column in StoredRows(store, group).precisions
            if StoredRows(store, group).precisions[column].depth > 4]  # fmt: skip


def tree(path: Path) -> dict[str, bytes]:
    """Every file's bytes."""
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_rows_and_scores_stay_the_same(old: Path) -> None:
    before, scored, chunks = rows_of(old), answers(old), chunk_count(FeatureStore.open(old))
    provenance = FeatureStore.open(old).provenance
    told: list[int] = []
    number = FeatureStore.open(old).root.format
    done = upgrade(str(old), told.append)
    assert (done.before, done.chunks, done.dropped) == (number, chunks, ()) and told == list(range(1, chunks + 1))
    store = FeatureStore.open(old)
    assert store.root.format == 3 and store.provenance == {**provenance, "upgraded_from": number}
    assert rows_of(old) == before and answers(old) == scored and scored
    assert all(store.is_complete(group) and store.manifest(group) for group in store.groups)
    assert list(verify(store)) == [None] * chunk_count(store) and chunk_count(store) == chunks
    assert {place.name for place in old.iterdir()} == {"shards", "zarr.json"}
    dict(zarr.open_group(old, mode="r").members(max_depth=None))  # warns of what it does not know


def test_a_second_time_there_is_nothing_to_do(old: Path) -> None:
    upgrade(str(old))
    before = tree(old)
    assert upgrade(str(old)).before == 3 and tree(old) == before


def test_chunks_are_linked_and_the_store_can_be_gone_on_with(tmp_path: Path) -> None:
    path = Path(shutil.copytree(OLD[0], tmp_path / "S"))
    chunk = (path / "examples/loss/c/0").stat().st_ino
    upgrade(str(path))
    assert (path / "shards/0/examples/loss/c/0").stat().st_ino == chunk
    store = FeatureStore.open(path)
    with GroupWriter(store, EXAMPLES) as writer:
        assert writer.rows == 11
        writer.append({"id": [7], "loss": [0.5], "text": ["more"]})
        writer.commit(complete=True)
    assert open_column(store, EXAMPLES, "id").gather([0, 11]).tolist() == [100, 7]
    assert open_column(store, EXAMPLES, "text").gather([4, 11]).tolist() == ["nul\0inside", "more"]
    assert not any(verify(FeatureStore.open(path)))


def test_an_exchanged_chunk_is_found_from_then_on(old: Path) -> None:
    upgrade(str(old))
    one, two = sorted(next(old.glob("shards/0/methods/*/columns/*/c/1")).parent.iterdir())[:2]
    files_of = [
        next(file for file in place.rglob("*") if file.is_file()) if place.is_dir() else place for place in (one, two)
    ]
    data = [file.read_bytes() for file in files_of]
    for file, other in zip(files_of, reversed(data), strict=True):
        file.unlink()
        file.write_bytes(other)
    assert sum("replaced" in str(damage) for damage in verify(FeatureStore.open(old)) if damage) == 2


def test_without_hard_links_files_are_copied(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, linked = rows_of(old), Path(shutil.copytree(old, old.with_name("linked")))
    upgrade(str(linked))

    def refuse(*_: object) -> None:
        raise OSError(files._NO_LINKS[0], "no links")

    monkeypatch.setattr(os, "link", refuse)
    upgrade(str(old))
    assert rows_of(old) == before and tree(old) == tree(linked)


def test_a_full_disk_is_one_line_and_the_old_store_stays(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, linked = rows_of(old), list[object]()

    def full(source: Path, target: Path) -> None:
        linked.append(target)
        if len(linked) > 5:
            raise OSError(28, "full")
        target.write_bytes(source.read_bytes())

    with monkeypatch.context() as patch, pytest.raises(StoreFull) as caught:
        patch.setattr(os, "link", full)
        upgrade(str(old))
    assert "\n" not in str(caught.value) and FeatureStore.open(old).root.format < 3 and rows_of(old) == before
    upgrade(str(old))
    assert rows_of(old) == before and FeatureStore.open(old).root.format == 3


def test_a_damaged_chunk_is_named_and_the_old_store_stays(old: Path) -> None:
    chunk = next(file for file in sorted(old.glob("methods/*/columns/*/c/**/*")) if file.is_file())
    data = chunk.read_bytes()
    chunk.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    with pytest.raises(StoreDamaged, match=r"methods/\w+/columns/\w+ chunk 0 .* differs from its checksum"):
        upgrade(str(old))
    assert FeatureStore.open(old).root.format < 3
    chunk.write_bytes(data)
    upgrade(str(old))
    assert not any(verify(FeatureStore.open(old)))


def test_states_stay_and_files_that_no_version_reads_go(old: Path) -> None:
    method = FeatureStore.open(old).methods[0]
    state = old / f"methods/{method}/state"
    write_state(state / "moments", {"rows": 11}, {"mean": np.ones(2)})
    write_state(state / "base0/operators", {}, {"alpha": np.ones(2)})
    (state / "moments.npz").write_bytes(b"x")
    (state / "base0/hidden.bin").write_bytes(b"x")
    (state / "base0/outside").symlink_to("/etc/hostname")
    dropped = upgrade(str(old)).dropped
    names = ["base0/hidden.bin", "base0/outside", "moments.npz"]
    assert sorted(dropped) == [f"methods/{method}/state/{name}" for name in names] and Path("/etc/hostname").exists()
    assert [read_state(state / name) is not None for name in ("moments", "base0/operators")] == [True, True]
    assert not (old / f"methods/{method}/columns").exists() and not any(verify(FeatureStore.open(old)))
    dict(zarr.open_group(old, mode="r").members(max_depth=None))


def test_a_link_to_elsewhere_is_not_followed(old: Path, tmp_path: Path) -> None:
    column = next(old.glob("methods/*/columns/*/zarr.json")).parent
    moved = column.rename(tmp_path / "elsewhere")
    column.symlink_to(moved)
    before = tree(moved)
    upgrade(str(old))
    assert tree(moved) == before


def test_links_out_of_a_strangers_store_lead_to_nothing_that_is_removed(old: Path, tmp_path: Path) -> None:
    upgrade(str(old))
    outside = tmp_path / "outside"
    for name in ("columns", "state", "0"):
        (outside / name).mkdir(parents=True)
        (outside / name / "mine").write_text("x")
    for place in ("examples", "forms", "methods"):
        (old / place).symlink_to(outside)
    before = tree(outside)
    upgrade(str(old))
    assert tree(outside) == before
    (old / "methods").unlink(missing_ok=True)
    (old / "methods").mkdir()
    (old / "methods/x").symlink_to(outside)
    upgrade(str(old))
    assert tree(outside) == before
    again = Path(shutil.copytree(OLD[0], tmp_path / "again"))
    (again / "shards").symlink_to(outside)
    with pytest.raises(StoreDamaged, match="leads out of the store"):
        upgrade(str(again))
    assert tree(outside) == before


@pytest.mark.parametrize("form", [{"chunks": (5,)}, {"chunks": (4,), "compressors": None}])
def test_arrays_that_others_stored_anew_are_read_as_before(tmp_path: Path, form: dict[str, object]) -> None:
    path = Path(shutil.copytree(OLD[0], tmp_path / "S"))
    zarr.create_array(path / "examples/id", data=np.arange(11), overwrite=True, **form)
    upgrade(str(path))
    store = FeatureStore.open(path)
    assert open_column(store, EXAMPLES, "id").gather(range(11)).tolist() == list(range(11)) and not any(verify(store))
    assert "id" not in store.manifest(EXAMPLES).arrays  # its chunks are known to nobody


def test_two_do_not_upgrade_at_once(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def meanwhile(chunks: int) -> None:
        if chunks == 1:
            with pytest.raises(StoreBusy, match="another process upgrades"):
                upgrade(str(old))
            text = (old / "zarr.json").read_text()
            (old / "zarr.json").write_text(
                text.replace('"0.1.0"', '"0.1.1"')
            )  # as an older version would, which commits

    with pytest.raises(StoreBusy, match="meanwhile\nhint: run headwater upgrade again"):
        upgrade(str(old), meanwhile)
    upgrade(str(old))
    assert FeatureStore.open(old).version == "0.1.1"


def test_rows_that_were_never_committed_are_left_behind(tmp_path: Path) -> None:
    path = Path(shutil.copytree(OLD[0], tmp_path / "S"))
    text = (path / "zarr.json").read_text().replace(f"{11}", "9")
    (path / "zarr.json").write_text(text)
    upgrade(str(path))
    store = FeatureStore.open(path)
    assert store.rows(EXAMPLES) == 9 and not any(verify(store))
    with GroupWriter(store, EXAMPLES) as writer:
        writer.append({"id": [7], "loss": [0.5], "text": ["more"]})
        writer.commit()
    assert open_column(store, EXAMPLES, "id").gather([8, 9]).tolist() == [108, 7] and not any(verify(store))


def stop_before(step: int) -> None:
    """End this process just before its `step`-th change of the disk."""
    kill_before(
        step, *((os, name) for name in ("fsync", "link", "unlink", "rmdir")), (Path, "mkdir"), (Path, "replace")
    )


def kill_at_steps(source: Path, folder: Path, stride: int) -> None:
    """For each change of the disk, or some: a copy whose upgrade is killed there, is whole, and is upgraded again."""
    os.fsync = lambda _: None  # the kernel keeps what a killed process wrote; waiting for the disk shows nothing here
    expected, step, code, formats = numbers_of(source), 0, -signal.SIGKILL, set()
    while code:
        step += stride
        copy = Path(shutil.copytree(source, folder / str(step)))
        child = os.fork()
        if child == 0:
            stop_before(step)
            upgrade(str(copy))
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        formats.add(FeatureStore.open(copy).root.format)
        assert numbers_of(copy) == expected, step
        upgrade(str(copy))
        assert numbers_of(copy) == expected, step
    assert len(formats) == 2 and step > 100, (formats, step)


def numbers_of(path: Path) -> dict[str, bytes]:
    """All rows of the columns of numbers: reading text starts zarr's threads, with which nothing may fork."""
    store, rows = FeatureStore.open(path), {}
    for group in store.groups:
        for column in (column for column in store.columns(group) if not column.is_text):
            rows[f"{group} {column.name}"] = (
                open_column(store, group, column.name).gather(range(store.rows(group))).tobytes()
            )
    return rows


def without_text(source: Path, target: Path) -> Path:
    """A copy of a store without its columns of text."""
    shutil.copytree(source, target)
    root = files.read_json(target / "zarr.json")
    for record in root["attributes"]["headwater"]["groups"].values():
        record["columns"] = [column for column in record["columns"] if column["dtype"] != "string"]
    files.write_json(target / "zarr.json", root)
    return target


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a forked child")
@pytest.mark.parametrize(("source", "stride"), list(zip(OLD, (1, 5), strict=True)), ids=["format 1", "format 2"])
def test_killed_before_any_change_of_the_disk_it_is_whole_and_goes_on(
    tmp_path: Path, source: Path, stride: int
) -> None:
    numbers = without_text(source, tmp_path / "source")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, __file__, str(numbers), str(tmp_path / "copies"), str(stride)]
    subprocess.run(command, check=True, timeout=240, env=environment)
    calm = Path(shutil.copytree(numbers, tmp_path / "calm"))
    upgrade(str(calm))
    copies = list((tmp_path / "copies").iterdir())
    assert len(copies) > 30 and all(tree(copy) == tree(calm) for copy in copies)


if __name__ == "__main__":
    kill_at_steps(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
