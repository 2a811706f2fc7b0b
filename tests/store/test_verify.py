"""Damage to any byte of any chunk is found, and named by column, chunk and rows."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from headwater.store.blocks import read_blocks
from headwater.store.cached import hold
from headwater.store.columns import ColumnReader
from headwater.store.errors import StoreDamaged, StoreMismatch
from headwater.store.feature_store import EXAMPLES, FeatureStore
from headwater.store.file_column import FileColumn
from headwater.store.layout import TEXT, Column
from headwater.store.reader import open_column
from headwater.store.verify import Damage, chunk_count, verify
from headwater.store.writer import GroupWriter

ROWS = 21
COLUMNS = [Column("id", (), "int64", 8), Column("sketch", (3,), "float16", 4), Column("text", (), TEXT, 8)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A store whose last chunks are padded."""
    path = tmp_path_factory.mktemp("whole") / "s"
    store = FeatureStore.create(path, {}, "0")
    store.add_group(EXAMPLES, COLUMNS, {})
    with GroupWriter(store, EXAMPLES) as writer:
        rows = np.arange(ROWS)
        writer.append({"id": rows, "sketch": np.ones((ROWS, 3)), "text": [f"text {r}" for r in rows]})
        writer.commit()
    return path


@pytest.fixture
def path(whole: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(whole, tmp_path / "s"))


def found(path: Path) -> list[Damage]:
    """What verify says."""
    return [damage for damage in verify(FeatureStore.open(path)) if damage]


def named(damage: Damage) -> tuple[str, int, int, int]:
    """A damage's place."""
    return damage.column, damage.chunk, damage.first, damage.last


def raised(path: Path, name: str, block_rows: int) -> str:
    """What reading says."""
    reader = open_column(FeatureStore.open(path), EXAMPLES, name)
    with pytest.raises(StoreDamaged) as caught:
        if isinstance(reader, FileColumn):
            for _ in read_blocks([reader], block_rows):
                pass
        else:
            reader.gather(range(ROWS))
    return "\n".join([str(caught.value), *caught.value.__notes__])


def test_a_whole_store_has_no_damage(whole):
    store = FeatureStore.open(whole)
    assert list(verify(store)) == [None] * chunk_count(store) == [None] * (3 + 6 + 3)


@pytest.mark.parametrize("column", COLUMNS, ids=lambda column: column.name)
def test_every_byte_counts(path, column):
    chunks = -(-ROWS // column.chunk_rows)
    for chunk in range(chunks):
        file = path / "shards/0/examples" / column.name / column.chunk_key(chunk)
        data = file.read_bytes()
        place = (f"shards/0/examples/{column.name}", chunk, *column.rows_of(chunk, ROWS))
        for at in range(len(data)):  # values, padding and checksum alike
            file.write_bytes(data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :])
            damages = found(path)
            assert [named(damage) for damage in damages] == [(*place[:3], place[3] - 1)], at
            if at % 5 == 0 or at > len(data) - 5:
                for block_rows in (1, 3, 8, 100):
                    assert raised(path, column.name, block_rows) == f"{damages[0]}\nhint: run headwater verify"
        file.write_bytes(data)
    assert found(path) == []


@pytest.mark.parametrize("column", COLUMNS, ids=lambda column: column.name)
@pytest.mark.parametrize("change", ["empty", "1 byte", "half", "less 1", "more 1", "more 4096", "deleted", "folder"])
def test_a_chunk_cut_short_extended_or_gone(path, column, change):
    file = path / "shards/0/examples" / column.name / column.chunk_key(2)
    data = file.read_bytes()
    cut: dict[str, Callable[[], object]] = {
        "empty": lambda: file.write_bytes(b""),
        "1 byte": lambda: file.write_bytes(data[:1]),
        "half": lambda: file.write_bytes(data[: len(data) // 2]),
        "less 1": lambda: file.write_bytes(data[:-1]),
        "more 1": lambda: file.write_bytes(data + b"\0"),
        "more 4096": lambda: file.write_bytes(data + data[:1] * 4096),
        "deleted": file.unlink,
        "folder": lambda: (file.unlink(), file.mkdir()),
    }
    cut[change]()
    (damage,) = found(path)
    first, end = column.rows_of(2, ROWS)
    assert named(damage) == (f"shards/0/examples/{column.name}", 2, first, end - 1)
    assert "\n" not in str(damage)
    for block_rows in (1, 3, 8, 100):
        assert raised(path, column.name, block_rows) == f"{damage}\nhint: run headwater verify"
    with pytest.raises(StoreDamaged, match="run headwater verify"):
        open_column(FeatureStore.open(path), EXAMPLES, column.name).gather([0, ROWS - 1, first])


@pytest.mark.parametrize("column", COLUMNS, ids=lambda column: column.name)
@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"{}", b'{"shape": 3}'])
def test_a_column_whose_metadata_are_broken(path, column, content):
    metadata = path / "shards/0/examples" / column.name / "zarr.json"
    metadata.unlink() if content is None else metadata.write_bytes(content)
    (damage,) = found(path)
    assert named(damage) == (f"shards/0/examples/{column.name}", 0, 0, ROWS - 1)
    assert damage.why.startswith("cannot be opened") and str(metadata) in damage.why and "\n" not in damage.why


@pytest.mark.parametrize(("old", "new"), [("float16", "float32"), ("21,", "20,"), ("float16", "bfloat16x")])
def test_a_column_that_is_not_the_one_declared(path, old, new):
    metadata = path / "shards/0/examples/sketch/zarr.json"
    metadata.write_text(metadata.read_text().replace(old, new))
    with pytest.raises(
        StoreDamaged, match=r"describes 2\d rows of b?float.*, not the 21 rows of float16 \(3,\) written"
    ):
        open_column(FeatureStore.open(path), EXAMPLES, "sketch")


@pytest.mark.parametrize("odd", ["Infinity", "1.5", "null", "[]", '"8"', "-1", "NaN", "true", "1" + "0" * 400])
@pytest.mark.parametrize("entry", ['"shape": [', '"chunk_shape": ['])
def test_metadata_with_odd_numbers_are_damaged_for_readers_and_writers(path, entry, odd):
    file = path / "shards/0/examples/sketch/zarr.json"
    text = " ".join(file.read_text().split()).replace("[ ", "[")
    at = text.index(entry) + len(entry)
    file.write_text(text[:at] + odd + text[text.index(",", at) :])
    for open_it in (lambda store: open_column(store, EXAMPLES, "sketch"), lambda store: GroupWriter(store, EXAMPLES)):
        try:
            open_it(FeatureStore.open(path))
        except (StoreDamaged, StoreMismatch):
            continue
        assert odd.lstrip("-").isdigit() and entry == '"shape": ['  # which a writer replaces at its next commit


def test_going_on_upon_a_damaged_chunk_is_refused(path):
    file = path / "shards/0/examples/id/c/2"
    for data in (file.read_bytes()[:-1], b"", bytes(68)):
        file.write_bytes(data)
        with pytest.raises(StoreDamaged, match="examples/id/c/2 is missing or differs"):
            GroupWriter(FeatureStore.open(path), EXAMPLES)


EXCHANGED = "is not the one that was written: replaced, older, or of another store"


def read_every_way(path: Path, name: str, rows: range) -> list[str]:
    """What each way of reading some rows of a column says."""
    said = []
    ways: list[Callable[[ColumnReader], object]] = [
        lambda reader: reader.gather(list(rows)),
        lambda reader: reader.gather([rows[0]]),
        lambda reader: list(read_blocks([reader], 3)),
        lambda reader: hold(reader),
    ]
    for way in ways[: 2 if name == "text" else 4]:
        reader = open_column(FeatureStore.open(path), EXAMPLES, name)
        with pytest.raises(StoreDamaged) as caught:
            way(reader)
        said.append(str(caught.value))
    return said


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("column", COLUMNS, ids=lambda column: column.name)
def test_chunks_that_changed_places_are_found(path, column, large, monkeypatch):
    if large:  # a chunk that is not read whole for the sake of one row
        monkeypatch.setattr("headwater.store.file_column._WHOLE_CHECK_BYTES", 0)
    one, two = (path / "shards/0/examples" / column.name / column.chunk_key(chunk) for chunk in (0, 1))
    if column.name == "sketch":
        rewrite_sketch(path)
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second), two.write_bytes(first)
    assert [(damage.chunk, damage.why) for damage in found(path)] == [(0, EXCHANGED), (1, EXCHANGED)]
    for chunk in (0, 1):
        rows = range(*column.rows_of(chunk, ROWS))
        for message in read_every_way(path, column.name, rows)[:2]:
            assert f"chunk {chunk} " in message and message.endswith(EXCHANGED)
    assert all(EXCHANGED in message for message in read_every_way(path, column.name, range(ROWS)))


def rewrite_sketch(path: Path) -> None:
    """Sketches that differ by chunk."""
    shutil.rmtree(path)
    store = FeatureStore.create(path, {}, "0")
    store.add_group(EXAMPLES, COLUMNS, {})
    with GroupWriter(store, EXAMPLES) as writer:
        rows = np.arange(ROWS)
        writer.append({"id": rows, "sketch": np.stack([rows] * 3, 1), "text": [f"text {r}" for r in rows]})
        writer.commit(complete=True)


@pytest.mark.parametrize("column", COLUMNS, ids=lambda column: column.name)
def test_a_chunk_of_another_store_is_found(path, column, tmp_path):
    other = FeatureStore.create(tmp_path / "other", {}, "0")
    other.add_group(EXAMPLES, COLUMNS, {})
    with GroupWriter(other, EXAMPLES) as writer:
        rows = np.arange(ROWS) + 1
        writer.append({"id": rows, "sketch": np.zeros((ROWS, 3)), "text": [f"text {r}" for r in rows]})
        writer.commit(complete=True)
    for chunk in (0, -(-ROWS // column.chunk_rows) - 1):  # a full one and the last one, which is not full
        key = Path("shards/0/examples", column.name, column.chunk_key(chunk))
        whole = (path / key).read_bytes()
        shutil.copy(other.path / key, path / key)
        assert [(damage.chunk, damage.why) for damage in found(path)] == [(chunk, EXCHANGED)]
        messages = read_every_way(path, column.name, range(*column.rows_of(chunk, ROWS)))
        assert all(f"chunk {chunk} " in message and EXCHANGED in message for message in messages)
        (path / key).write_bytes(whole)
    assert found(path) == []


def test_an_older_chunk_is_found(path):
    store = FeatureStore.open(path)
    keys = [
        Path("shards/0/examples", column.name, column.chunk_key((ROWS - 1) // column.chunk_rows)) for column in COLUMNS
    ]
    old = [(path / key).read_bytes() for key in keys]
    with GroupWriter(store, EXAMPLES) as writer:
        writer.append({"id": [ROWS], "sketch": np.ones((1, 3)), "text": ["new"]})
        writer.commit()
    assert found(path) == []
    for key, data in zip(keys, old, strict=True):
        (path / key).write_bytes(data)
    assert [damage.column.rpartition("/")[2] for damage in found(path)] == [column.name for column in COLUMNS]


@pytest.mark.parametrize("hurt", ["gone", "edited", "exchanged"])
def test_a_damaged_manifest_is_named(path, hurt):
    (manifest,) = path.glob("shards/0/manifests/examples/*/zarr.json")
    if hurt == "gone":
        manifest.unlink()
    else:
        text = manifest.read_text()
        manifest.write_text(text.replace('"rows":21', '"rows":20') if hurt == "edited" else text[:-40])
    damages = found(path)
    assert [named(damage)[0] for damage in damages] == [f"shards/0/examples/{column.name}" for column in COLUMNS]
    assert all("cannot be opened: " in damage.why and "manifest" in damage.why for damage in damages)
    with pytest.raises(StoreDamaged):
        open_column(FeatureStore.open(path), EXAMPLES, "id")
    with pytest.raises(StoreDamaged):
        GroupWriter(FeatureStore.open(path), EXAMPLES)


@pytest.mark.parametrize("content", ["{", '{"attributes": {"headwater": {"rows": 3}}}', '{"attributes": {"headwater": 3}}',
                                     '{"attributes": {"headwater": {"rows": 3, "manifest": "../../../escaped"}}}'])  # fmt: skip
def test_a_damaged_progress_record_is_one_line(path, content):
    (path / "shards/0/examples/zarr.json").write_text(content)
    with pytest.raises(StoreDamaged) as caught:
        FeatureStore.open(path)
    assert "examples/zarr.json" in str(caught.value) and "\n" not in str(caught.value)


def test_an_older_progress_record_is_found(path):
    record = path / "shards/0/examples/zarr.json"
    old = record.read_bytes()
    with GroupWriter(FeatureStore.open(path), EXAMPLES) as writer:
        writer.append({"id": [ROWS], "sketch": np.ones((1, 3)), "text": ["new"]})
        writer.commit()
    record.write_bytes(old)
    with pytest.raises(StoreDamaged, match="lacks the manifest"):
        open_column(FeatureStore.open(path), EXAMPLES, "id")
