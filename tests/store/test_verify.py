"""Damage to any byte of any chunk is found, and named by column, chunk and rows."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from headwater.store.blocks import read_blocks
from headwater.store.columns import FileColumn
from headwater.store.errors import StoreDamaged
from headwater.store.feature_store import EXAMPLES, FeatureStore
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
    return str(caught.value)


def test_a_whole_store_has_no_damage(whole):
    store = FeatureStore.open(whole)
    assert list(verify(store)) == [None] * chunk_count(store) == [None] * (3 + 6 + 3)


@pytest.mark.parametrize("column", COLUMNS, ids=lambda column: column.name)
def test_every_byte_counts(path, column):
    chunks = -(-ROWS // column.chunk_rows)
    for chunk in range(chunks):
        file = path / "examples" / column.name / column.chunk_key(chunk)
        data = file.read_bytes()
        place = (f"examples/{column.name}", chunk, *column.rows_of(chunk, ROWS))
        for at in range(len(data)):  # values, padding and checksum alike
            file.write_bytes(data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :])
            damages = found(path)
            assert [named(damage) for damage in damages] == [(*place[:3], place[3] - 1)], at
            if at % 5 == 0 or at > len(data) - 5:
                for block_rows in (1, 3, 8, 100):
                    assert raised(path, column.name, block_rows) == f"{damages[0]}: run headwater verify"
        file.write_bytes(data)
    assert found(path) == []


@pytest.mark.parametrize("column", COLUMNS, ids=lambda column: column.name)
@pytest.mark.parametrize("change", ["empty", "1 byte", "half", "less 1", "more 1", "more 4096", "deleted", "folder"])
def test_a_chunk_cut_short_extended_or_gone(path, column, change):
    file = path / "examples" / column.name / column.chunk_key(2)
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
    assert named(damage) == (f"examples/{column.name}", 2, first, end - 1)
    assert "\n" not in str(damage)
    for block_rows in (1, 3, 8, 100):
        assert raised(path, column.name, block_rows) == f"{damage}: run headwater verify"
    with pytest.raises(StoreDamaged, match="run headwater verify"):
        open_column(FeatureStore.open(path), EXAMPLES, column.name).gather([0, ROWS - 1, first])


@pytest.mark.parametrize("column", COLUMNS, ids=lambda column: column.name)
@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"{}", b'{"shape": 3}'])
def test_a_column_whose_metadata_are_broken(path, column, content):
    metadata = path / "examples" / column.name / "zarr.json"
    metadata.unlink() if content is None else metadata.write_bytes(content)
    (damage,) = found(path)
    assert named(damage) == (f"examples/{column.name}", 0, 0, ROWS - 1)
    assert damage.why.startswith("cannot be opened") and str(metadata) in damage.why and "\n" not in damage.why


@pytest.mark.parametrize(("old", "new"), [("float16", "float32"), ("21,", "20,"), ("float16", "bfloat16x")])
def test_a_column_that_is_not_the_one_declared(path, old, new):
    metadata = path / "examples/sketch/zarr.json"
    metadata.write_text(metadata.read_text().replace(old, new))
    with pytest.raises(
        StoreDamaged, match=r"describes 2\d rows of b?float.*, not the 21 rows of float16 \(3,\) written"
    ):
        open_column(FeatureStore.open(path), EXAMPLES, "sketch")


def test_going_on_upon_a_damaged_chunk_is_refused(path):
    file = path / "examples/id/c/2"
    for data in (file.read_bytes()[:-1], b"", bytes(68)):
        file.write_bytes(data)
        with pytest.raises(StoreDamaged, match="examples/id/c/2 is missing or differs"):
            GroupWriter(FeatureStore.open(path), EXAMPLES)


def test_chunks_that_changed_places_are_not_found(path):
    """A known limit: a chunk's checksum covers its bytes, not its number."""
    one, two = path / "examples/id/c/0", path / "examples/id/c/1"
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second), two.write_bytes(first)
    assert found(path) == []
