"""Columns of text: what zarr reads, this reader reads, whole or in pieces, and it holds no more than what was asked for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr
from headwater.store.errors import StoreDamaged
from headwater.store.feature_store import EXAMPLES, FeatureStore
from headwater.store.layout import column
from headwater.store.reader import open_column
from headwater.store.text_column import TextColumn
from headwater.store.writer import GroupWriter

ROWS = 2500
TEXTS = [f"{row}: " + "ünï 漢字 🙂 plain"[: row % 17] * (row % 5) for row in range(ROWS)]


def made(folder: Path, texts: list[str]) -> FeatureStore:
    """A store of texts alone."""
    store = FeatureStore.create(folder, {}, "0")
    store.add_group(EXAMPLES, (column("text", (), "string"),), {})
    with GroupWriter(store, EXAMPLES) as writer:
        writer.append({"text": texts})
        writer.commit(complete=True)
    return store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    return made(tmp_path_factory.mktemp("texts") / "S", TEXTS)


@pytest.fixture(params=["whole", "in pieces"])
def reader(store: FeatureStore, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> TextColumn:
    if request.param == "in pieces":
        monkeypatch.setattr("headwater.store.text_column._WHOLE_BYTES", 0)
    opened = open_column(store, EXAMPLES, "text")
    assert isinstance(opened, TextColumn)
    return opened


def test_strings_are_those_that_zarr_reads(store: FeatureStore, reader: TextColumn) -> None:
    rows = np.random.default_rng(0).integers(0, ROWS, 300)
    expected = zarr.open_array(str(store.path / "shards/0/examples/text"), mode="r")[:]
    assert reader.gather(rows).tolist() == expected[rows].tolist() == [TEXTS[row] for row in rows]
    assert reader.gather(range(ROWS)).tolist() == TEXTS and reader.gather([]).tolist() == []


def test_strings_are_read_up_to_a_limit_in_bytes(reader: TextColumn) -> None:
    rows = [7, 2400, 7, 1100]
    size = sum(len(TEXTS[row].encode()) for row in rows)
    within = reader.gather_within(rows, size)
    assert within is not None and within[0].tolist() == [TEXTS[row] for row in rows] and within[1] == size
    assert reader.gather_within(rows, size - 1) is None


def test_the_longest_string_is_known_and_bounded(reader: TextColumn) -> None:
    longest = max(len(text.encode()) for text in TEXTS)
    chunk = max(sum(len(text.encode()) + 4 for text in TEXTS[first : first + 1024]) for first in (0, 1024, 2048))
    assert reader.longest == longest < chunk <= reader.longest_bound <= chunk + 4 + 4 * 1024


def test_damage_is_found_however_a_chunk_is_read(reader: TextColumn, tmp_path: Path) -> None:
    damaged = TextColumn(reader.column, ROWS, "text", tmp_path, reader.checksums)
    (tmp_path / "c").mkdir()
    body = bytearray((reader.folder / "c/1").read_bytes())
    body[len(body) // 2] ^= 1
    (tmp_path / "c/1").write_bytes(body)
    with pytest.raises(StoreDamaged, match=r"text chunk 1 .* differs from its checksum\nhint: run headwater verify"):
        damaged.gather([1030])
    with pytest.raises(StoreDamaged, match=r"text chunk 0 .* is missing"):
        damaged.gather([3])


def test_reading_a_few_long_texts_holds_only_these(tmp_path: Path) -> None:
    """A chunk of 60 MB, in a fresh process: three texts of it take less than a tenth."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("peaks are measured through /proc")
    made(tmp_path / "S", [f"{row:06d}" + "x" * 60_000 for row in range(1024)])
    program = """
import sys
from headwater.engine.runtime.memory import peak_bytes, reset_peak, resident_bytes
from headwater.store.feature_store import EXAMPLES, FeatureStore
from headwater.store.reader import open_column
reader = open_column(FeatureStore.open(sys.argv[1]), EXAMPLES, "text")
reader.gather([1])
reset_peak()
before = resident_bytes()
assert [text[:6] for text in reader.gather([1000, 3, 500])] == ["001000", "000003", "000500"]
print(peak_bytes() - before)
"""
    out = subprocess.run([sys.executable, "-c", program, str(tmp_path / "S")], capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    assert int(out.stdout) < 5 << 20
