"""A store written in format 1 stays readable for ever. No version since format 3 writes it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr
from headwater.engine.arrays.scan.compress import TargetPrecision, compression
from headwater.store.blocks import read_blocks
from headwater.store.errors import StoreMismatch
from headwater.store.feature_store import EXAMPLES, FeatureStore, method_group
from headwater.store.layout import FORMAT, TEXT, Column, column
from headwater.store.reader import open_column
from headwater.store.verify import chunk_count, verify
from headwater.store.writer import GroupWriter
from places import GOLDEN as STORES

GOLDEN = STORES / "store_v1"
ROWS = 11
PROVENANCE = {"model": {"name": "tiny", "fingerprint": "0123abcd"}, "corpus": {"fingerprint": "feed"}}
TEXTS = ["a", "", "two\nlines", "ünïcödé 🙂", "nul\0inside", *(f"example {row}" for row in range(5, ROWS))]
GROUPS = {
    EXAMPLES: {"id": np.arange(100, 100 + ROWS), "loss": np.linspace(0, 2, ROWS, dtype="float32"), "text": TEXTS},
    method_group("rise"): {
        "sketch": (np.arange(6 * ROWS).reshape(ROWS, 2, 3) / 8).astype("float16"),
        "scale": np.arange(1, ROWS + 1, dtype="float32"),
        "signs": np.arange(4 * ROWS, dtype="uint8").reshape(ROWS, 4),
    },
}


def declared(name: str, values: np.ndarray | list[str]) -> Column:
    """A column of tiny chunks."""
    if isinstance(values, list):
        return Column(name, (), TEXT, 4)
    return column(name, values.shape[1:], values.dtype.name, chunk_bytes=48)


def test_format_1_is_read():
    store = FeatureStore.open(GOLDEN)
    assert store.provenance == PROVENANCE
    assert store.version == "0.1.0"
    assert store.methods == ["rise"]
    for group, columns in GROUPS.items():
        assert store.rows(group) == ROWS
        assert store.record(group).settings == {"seed": 0} and store.is_complete(group)
        assert store.columns(group) == tuple(declared(name, values) for name, values in columns.items())
        for name, values in columns.items():
            expected = np.asarray(values) if name != "text" else values
            assert open_column(store, group, name).gather(range(ROWS)).tolist() == list(map(_plain, expected))
    assert list(verify(store)) == [None] * chunk_count(store)


def _plain(value: object) -> object:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def test_format_1_is_read_in_blocks_and_by_zarr():
    store = FeatureStore.open(GOLDEN)
    names = ["sketch", "scale", "signs"]
    columns = [open_column(store, method_group("rise"), name) for name in names]
    blocks = [{n: v.copy() for n, v in block.columns.items()} for block in read_blocks(columns, 4)]
    for name in names:
        expected = GROUPS[method_group("rise")][name]
        np.testing.assert_array_equal(np.concatenate([block[name] for block in blocks]), expected)
        plain = zarr.open_group(GOLDEN, mode="r")[f"methods/rise/columns/{name}"]
        np.testing.assert_array_equal(plain[:], expected)
    assert zarr.open_group(GOLDEN, mode="r")["examples/text"][:].tolist() == TEXTS


def test_format_1_is_not_written(tmp_path):
    store = FeatureStore.open(shutil.copytree(GOLDEN, tmp_path / "s"))
    for change in (
        lambda: GroupWriter(store, EXAMPLES),
        lambda: store.add_group(method_group("other"), [column("x", (), "int8")], {}),
        lambda: store.update(lambda root: root),
        lambda: compression(store, "rise", TargetPrecision("int8"), None),
    ):
        with pytest.raises(StoreMismatch) as caught:
            change()
        assert str(caught.value) == f"{store.path} has format 1, which is only read"
        assert caught.value.hint == f"run headwater upgrade {store.path} to make it format 3"


def test_a_newer_format_is_refused_with_a_sentence(tmp_path):
    path = Path(shutil.copytree(GOLDEN, tmp_path / "s"))
    root = json.loads((path / "zarr.json").read_text())
    root["attributes"]["headwater"].update(format=FORMAT + 1, version="9.0.0")
    (path / "zarr.json").write_text(json.dumps(root))
    with pytest.raises(StoreMismatch) as caught:
        FeatureStore.open(path)
    assert str(caught.value) == f"{path} has format {FORMAT + 1}; this version reads up to {FORMAT}"
    assert caught.value.hint == "upgrade headwater (the store was made by 9.0.0)"
