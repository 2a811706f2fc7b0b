"""Symbolic links in a store: what they lead to is read and upgraded, and nothing behind them is written or removed."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from headwater.store.errors import StoreDamaged
from headwater.store.feature_store import EXAMPLES, FeatureStore
from headwater.store.layout import Column
from headwater.store.reader import open_column
from headwater.store.state import read_state, remove_state, write_state
from headwater.store.upgrade import upgrade
from headwater.store.verify import verify
from headwater.store.writer import GroupWriter
from places import GOLDEN


def precious(folder: Path) -> Path:
    """A folder outside the store, with a folder in it."""
    (folder / "precious/photos").mkdir(parents=True)
    (folder / "precious/photos/one").write_text("1")
    return folder / "precious"


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    made = FeatureStore.create(tmp_path / "S", {"sources": []}, "0")
    made.add_group(EXAMPLES, [Column("number", (), "int64", 4)], {})
    with GroupWriter(made, EXAMPLES) as writer:
        writer.append({"number": np.arange(10)})
        writer.commit()
    return made


@pytest.mark.parametrize(
    "place", ["shards/0/manifests/examples", "shards/0/manifests", "shards/0/examples/number/c", "shards"]
)
def test_a_writer_changes_nothing_behind_a_link(store: FeatureStore, tmp_path: Path, place: str) -> None:
    outside = precious(tmp_path)
    shutil.copytree(store.path / place, outside, dirs_exist_ok=True)
    shutil.rmtree(store.path / place)
    (store.path / place).symlink_to(outside)
    before = sorted(outside.rglob("*"))
    with pytest.raises(StoreDamaged, match="is a symbolic link"):
        GroupWriter(FeatureStore.open(store.path), EXAMPLES)
    assert sorted(outside.rglob("*")) == before


@pytest.mark.parametrize("place", ["methods/m/state/moments", "methods/m/state", "methods"])
def test_a_state_behind_a_link_is_neither_replaced_nor_removed(store: FeatureStore, tmp_path: Path, place: str) -> None:
    outside, folder = precious(tmp_path), store.path / "methods/m/state/moments"
    write_state(folder, {"rows": 1}, {"mean": np.zeros(3)})
    shutil.copytree(store.path / place, outside, dirs_exist_ok=True)
    shutil.rmtree(store.path / place)
    (store.path / place).symlink_to(outside)
    for change in (lambda: write_state(folder, {"rows": 2}), lambda: remove_state(folder)):
        with pytest.raises(StoreDamaged, match="is a symbolic link"):
            change()
    assert (outside / "photos/one").read_text() == "1"
    state = read_state(folder)
    assert state is not None and state.values == {"rows": 1}


def test_linked_chunks_are_copied_by_an_upgrade(tmp_path: Path) -> None:
    """A tree of links, as `cp -rs` makes it."""
    origin, linked = shutil.copytree(GOLDEN / "store_v2", tmp_path / "origin"), tmp_path / "linked"
    for file in (file for file in origin.rglob("*") if file.is_file()):
        (linked / file.relative_to(origin)).parent.mkdir(parents=True, exist_ok=True)
        (linked / file.relative_to(origin)).symlink_to(file)
    (linked / "zarr.json").unlink()
    shutil.copy(origin / "zarr.json", linked)
    before = {file: file.read_bytes() for file in origin.rglob("*") if file.is_file()}
    upgrade(str(linked))
    shutil.rmtree(origin)
    store = FeatureStore.open(linked)
    assert not any(verify(store)) and not any(place.is_symlink() for place in linked.rglob("*"))
    rows = open_column(store, "methods/m", "c").gather(range(store.rows("methods/m")))
    assert (
        rows.tobytes()
        == b"".join(before[origin / f"methods/m/columns/c/c/{chunk}/0"][:-4] for chunk in range(3))[: rows.nbytes]
    )


def test_a_linked_folder_is_not_upgraded(tmp_path: Path) -> None:
    path = Path(shutil.copytree(GOLDEN / "store_v2", tmp_path / "S"))
    chunks = path / "methods/m/columns/c/c"
    chunks.rename(tmp_path / "elsewhere")
    chunks.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreDamaged, match="is a symbolic link"):
        upgrade(str(path))
    store = FeatureStore.open(path)
    assert store.root.format == 2 and not any(verify(store))


def test_a_missing_folder_of_manifests_is_made_again(tmp_path: Path) -> None:
    made = FeatureStore.create(tmp_path / "S", {"sources": []}, "0")
    made.add_group(EXAMPLES, [Column("number", (), "int64", 4)], {})
    shutil.rmtree(tmp_path / "S/shards/0/manifests/examples")
    with GroupWriter(made, EXAMPLES) as writer:
        writer.append({"number": np.arange(3)})
        writer.commit()
    assert not any(verify(FeatureStore.open(tmp_path / "S")))
