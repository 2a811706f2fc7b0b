"""A store written in format 3 stays readable for ever: a shard with manifests, ragged columns of token ids, and a state.

`PYTHONPATH=tests python tests/golden/test_store_golden_v3.py` makes it anew;
that is for a new format, in a new folder, never for an old one.
"""

import shutil
from pathlib import Path

import numpy as np
import places
import pytest
from headwater.store.feature_store import EXAMPLES, FeatureStore, method_group
from headwater.store.layout import FORMAT, TEXT, Column, column
from headwater.store.ragged import open_ragged
from headwater.store.reader import open_column
from headwater.store.state import read_state, write_state
from headwater.store.verify import chunk_count, verify
from headwater.store.writer import GroupWriter

GOLDEN = places.GOLDEN / "store_v3"
LENGTHS = [3, 0, 1, 9, 4, 2]
NOTES = {"place": [0, 5, 0], "digest": "ab"}


def rows() -> dict[str, list[list[int]] | list[int] | list[str]]:
    """Numbers that no library version changes."""
    ids = [[(31 * row + 7 * at) % 300 for at in range(length)] for row, length in enumerate(LENGTHS)]
    return {
        "number": list(range(len(LENGTHS))),
        "text": [f"example {row}" for row in range(len(LENGTHS))],
        "token_ids": ids,
        "target_positions": [list(range(max(0, len(row) - 1))) for row in ids],
    }


def make(path: Path) -> None:
    """Write the store."""
    store = FeatureStore.create(path, {"text": False, "tokens": True}, "0.1.0")
    ragged = [Column("token_ids", (), "uint16", 8, True), Column("target_positions", (), "uint8", 8, True)]
    store.add_group(EXAMPLES, [Column("number", (), "int32", 4), Column("text", (), TEXT, 4), *ragged], {})
    store.add_group(method_group("m"), [column("c", (2,), "float32", 32)], {"settings": {"seed": 1}})
    with GroupWriter(store, EXAMPLES) as writer:
        writer.append(rows())
        writer.commit(complete=True, **NOTES)
    with GroupWriter(store, method_group("m")) as writer:
        writer.append({"c": np.arange(12, dtype=np.float32).reshape(6, 2)})
        writer.commit(complete=True, **NOTES)
    write_state(path / "methods/m/state/moments", {"rows": 6}, {"mean": np.arange(2.0), "gram0": np.eye(2)})


def test_format_3_is_read() -> None:
    store = FeatureStore.open(GOLDEN)
    assert store.root.format == 3 and list(verify(store)) == [None] * chunk_count(store)
    assert store.is_complete(EXAMPLES) and store.rows(EXAMPLES) == 6 and store.resume_notes(EXAMPLES) == NOTES
    for name, dtype in (("token_ids", "uint16"), ("target_positions", "uint8")):
        found = open_ragged(store, EXAMPLES, name).gather(range(6))
        assert [row.tolist() for row in found] == rows()[name] and all(row.dtype == dtype for row in found)
    assert open_column(store, method_group("m"), "c").gather([5]).tolist() == [[10.0, 11.0]]
    state = read_state(GOLDEN / "methods/m/state/moments")
    assert state is not None and state.values == {"rows": 6} and state.arrays["mean"].tolist() == [0.0, 1.0]


@pytest.mark.skipif(FORMAT != 3, reason="the golden store of another format is its own")
def test_the_golden_store_is_what_is_written_today(tmp_path: Path) -> None:
    """Text apart, and the manifest that lists it: another release of zstd may compress to other bytes."""
    make(tmp_path / "s")

    def tree(path: Path) -> dict[str, bytes]:
        files = {p.relative_to(path).as_posix(): p.read_bytes() for p in path.rglob("*") if p.is_file()}
        return {name: data for name, data in files.items() if "text" not in name and "examples/" not in name}

    new, golden = tree(tmp_path / "s"), tree(GOLDEN)
    assert set(new) == set(golden) and all(new[name] == golden[name] for name in new if name != "zarr.json")
    roots = [FeatureStore.open(place).root for place in (tmp_path / "s", GOLDEN)]
    assert roots[0].groups == roots[1].groups and roots[0].provenance == roots[1].provenance
    assert roots[0].entries["methods/m"] == roots[1].entries["methods/m"]


if __name__ == "__main__":
    shutil.rmtree(GOLDEN, ignore_errors=True)
    make(GOLDEN)
