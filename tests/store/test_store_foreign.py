"""Stores that others wrote anew, with other codecs and chunks, or put behind a URL, read the same."""

import shutil
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import zarr
from headwater.store.blocks import read_blocks
from headwater.store.errors import StoreDamaged, StoreError, StoreMissing
from headwater.store.feature_store import EXAMPLES, FeatureStore
from headwater.store.file_column import FileColumn
from headwater.store.layout import TEXT, Column, column_from
from headwater.store.reader import open_column
from headwater.store.verify import verify
from headwater.store.writer import GroupWriter
from headwater.store.zarr_column import ZarrColumn
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, GzipCodec, ZstdCodec

ROWS = 37
VALUES = np.random.default_rng(0).standard_normal((ROWS, 6)).astype("float32")
VALUES[8:16] = 0  # a chunk that zarr does not store
TEXTS = [f"text {row}" * (row % 4) for row in range(ROWS)]

FORMS: dict[str, dict[str, Any]] = {
    "plain": {"chunks": (5, 6), "compressors": [Crc32cCodec()]},
    "no checksum": {"chunks": (8, 6), "compressors": None},
    "blosc": {"chunks": (8, 6), "compressors": [BloscCodec(cname="zstd")]},
    "zstd": {"chunks": (8, 6), "compressors": [ZstdCodec(level=1)]},
    "gzip and checksum": {"chunks": (8, 6), "compressors": [GzipCodec(), Crc32cCodec()]},
    "big endian": {"chunks": (8, 6), "serializer": BytesCodec(endian="big"), "compressors": [Crc32cCodec()]},
    "cut columns": {"chunks": (8, 4), "compressors": [Crc32cCodec()]},
    "one chunk": {"chunks": (ROWS, 6), "compressors": [ZstdCodec()]},
    "sharded": {"chunks": (2, 6), "shards": (8, 6), "compressors": [ZstdCodec()]},
    "flat keys": {"chunks": (8, 6), "compressors": None, "chunk_key_encoding": {"name": "default", "separator": "."}},
}


@pytest.fixture
def store(tmp_path) -> FeatureStore:
    """A store as we write it."""
    store = FeatureStore.create(tmp_path / "s", {}, "0")
    store.add_group(EXAMPLES, [Column("x", (6,), "float32", 8), Column("text", (), TEXT, 8)], {})
    with GroupWriter(store, EXAMPLES) as writer:
        writer.append({"x": VALUES, "text": TEXTS})
        writer.commit()
    return store


def assert_reads(store: FeatureStore) -> None:
    """Every way to read gives what was written, and nothing is damaged."""
    column = open_column(store, EXAMPLES, "x")
    for block_rows in (1, 5, 8, 100):
        blocks = [block.columns["x"].copy() for block in read_blocks([column], block_rows)]
        np.testing.assert_array_equal(np.concatenate(blocks), VALUES)
    blocks = [block.columns["x"].copy() for block in read_blocks([column], 4, start=3, stop=30)]
    np.testing.assert_array_equal(np.concatenate(blocks), VALUES[3:30])
    np.testing.assert_array_equal(column.gather([36, 0, 36, 9]), VALUES[[36, 0, 36, 9]])
    assert column.gather([]).shape == (0, 6)
    assert open_column(store, EXAMPLES, "text").gather([36, 0, 36]).tolist() == [TEXTS[36], TEXTS[0], TEXTS[36]]
    assert not any(verify(store))


@pytest.mark.parametrize("form", FORMS)
def test_an_array_stored_anew_reads_the_same(store, form):
    zarr.create_array(store.path / "shards/0/examples/x", data=VALUES, overwrite=True, **FORMS[form])
    kind = FileColumn if form == "plain" else ZarrColumn
    if form == "plain":  # zarr leaves out chunks of zeros, which a store of ours never lacks
        with zarr.config.set({"array.write_empty_chunks": True}):
            zarr.create_array(store.path / "shards/0/examples/x", data=VALUES, overwrite=True, **FORMS[form])
    opened = FeatureStore.open(store.path)
    assert isinstance(open_column(opened, EXAMPLES, "x"), kind)
    assert_reads(opened)


@pytest.mark.parametrize("form", ["zstd", "blosc", "sharded", "gzip and checksum"])
def test_damage_that_a_foreign_codec_notices_is_named(store, form):
    zarr.create_array(store.path / "shards/0/examples/x", data=VALUES, overwrite=True, **FORMS[form])
    file = store.path / "shards/0/examples/x/c/3/0"
    file.write_bytes(file.read_bytes()[:9])
    (damage,) = [damage for damage in verify(store) if damage]
    assert str(damage).startswith("shards/0/examples/x chunk 3 (rows 24 to 31) cannot be decoded (")
    for block_rows in (3, 8, 100):
        with pytest.raises(StoreDamaged, match=r"shards/0/examples/x chunk 3 \(rows 24 to 31\) cannot be decoded"):
            list(read_blocks([open_column(store, EXAMPLES, "x")], block_rows))


@pytest.fixture
def in_memory(store) -> FeatureStore:
    """The store behind a URL that fsspec alone knows."""
    memory = fsspec.filesystem("memory")
    memory.put(str(store.path), "/headwater-test", recursive=True)
    yield FeatureStore.open("memory://headwater-test")
    memory.rm("/headwater-test", recursive=True)


def test_a_store_behind_a_url_reads_the_same(store, in_memory):
    for remote in (in_memory, FeatureStore.open(f"file://{store.path}")):
        assert remote.remote
        assert remote.rows(EXAMPLES) == ROWS
        assert column_from("x", remote.shard.array_metadata(remote.folder(EXAMPLES, "x"))) == Column(
            "x", (6,), "float32", 8
        )
        assert_reads(remote)


def test_a_store_behind_a_url_is_not_written(in_memory):
    for change in (
        lambda: in_memory.update(lambda root: root),
        lambda: in_memory.add_group("methods/a", [Column("x", (), "int8", 1)], {}),
        lambda: GroupWriter(in_memory, EXAMPLES),
    ):
        with pytest.raises(StoreError, match=r"^memory://headwater-test is remote, and so read only"):
            change()
    assert not Path("memory:").exists()


def test_damage_behind_a_url_is_found(in_memory):
    memory = fsspec.filesystem("memory")
    memory.rm_file("/headwater-test/shards/0/examples/x/c/2/0")
    data = memory.cat_file("/headwater-test/shards/0/examples/text/c/1")
    memory.pipe_file("/headwater-test/shards/0/examples/text/c/1", data[:-1] + b"?")
    first, second = [str(damage) for damage in verify(in_memory) if damage]
    assert first == "shards/0/examples/x chunk 2 (rows 16 to 23) is missing"
    assert second.startswith("shards/0/examples/text chunk 1 (rows 8 to 15) cannot be decoded (")
    with pytest.raises(
        StoreDamaged, match=r"shards/0/examples/x chunk 2 \(rows 16 to 23\) is missing\nhint: run headwater verify"
    ):
        list(read_blocks([open_column(in_memory, EXAMPLES, "x")], 100))


@pytest.mark.parametrize("url", ["memory://nothing-here", "file:///nothing/here", "nosuchscheme://a/b"])
def test_nothing_behind_a_url(url):
    with pytest.raises(StoreMissing) as caught:
        FeatureStore.open(url)
    assert str(caught.value).startswith(f"{url} is not a headwater store") and "\n" not in str(caught.value)


def test_a_foreign_group_behind_a_url(tmp_path):
    zarr.create_group(tmp_path / "other")
    with pytest.raises(StoreMissing, match="is a Zarr group, but not a headwater store"):
        FeatureStore.open(f"file://{tmp_path}/other")
    shutil.rmtree(tmp_path / "other")
