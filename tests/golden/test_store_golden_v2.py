"""A store written in format 2 stays readable for ever, and its rows keep their meaning: rotations and scales are the format.

`PYTHONPATH=tests python tests/golden/test_store_golden_v2.py` makes it anew;
that is for a new format, in a new folder, never for an old one.
"""

import shutil
from pathlib import Path

import numpy as np
import pytest
from headwater.engine.arrays.scan.compress import TargetPrecision, check_column, compression, row_checks
from headwater.engine.arrays.scan.scan_loop import Shape
from headwater.engine.arrays.scan.scorers import scorer_of
from headwater.engine.arrays.scan.stored_rows import StoredRows
from headwater.engine.arrays.scan.top_k import top_k
from headwater.engine.runtime.run import SILENT_STAGE
from headwater.store.feature_store import FeatureStore, method_group, precision_group
from headwater.store.layout import FORMAT, column
from headwater.store.manifest import columns_json
from headwater.store.verify import verify
from headwater.store.writer import GroupWriter
from places import GOLDEN as STORES

GOLDEN = STORES / "store_v2"
ROWS, DEPTH = 11, 48
FORMS = {"bf16": 4e-3, "int8": 1e-2, "sign256": 0.5}
"""Form → what its scores are off by at most."""


def rows() -> np.ndarray:
    """Numbers that no library version changes."""
    found = np.sin(np.arange(1, ROWS * DEPTH + 1, dtype=np.float64) ** 2).reshape(ROWS, DEPTH)
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float16)


def make(path: Path) -> None:
    """Write the store."""
    store = FeatureStore.create(path, {"text": False}, "0.1.0")
    store.add_group(method_group("m"), [column("c", (DEPTH,), "float16", 512)], {"settings": {"precision": "auto"}})
    with GroupWriter(store, method_group("m")) as writer:
        writer.append({"c": rows()})
        writer.commit(complete=True)
    for precision in ("bf16", "int8", "sign"):
        _add(store, precision)
    for lock in path.rglob(".writers"):
        lock.unlink()


def _add(store: FeatureStore, precision: str) -> None:
    """A form as `headwater compress` makes it, in small chunks."""
    made = compression(FeatureStore.open(store.path), "m", TargetPrecision(precision, 256), None, declare=False)
    columns = [*made.precisions["c"].columns, check_column("c")]
    notes = {
        "settings": {"precision": precision, "bits": 256},
        "declared": columns_json([made.precisions["c"].declared]),
    }
    store.add_group(made.group, [column(c.name, c.shape, c.dtype, 512) for c in columns], notes)
    with GroupWriter(store, made.group) as writer:
        writer.append({**made.precisions["c"].encode(rows().astype(np.float32)), "c.check": row_checks(rows())})
        writer.commit(complete=True)


def scores(stored: StoredRows, queries: np.ndarray) -> np.ndarray:
    """(Q, rows) in the order of rows."""
    found = top_k(stored.scanned("c"), scorer_of(stored.precisions["c"], queries), ROWS, Shape(4, 2), SILENT_STAGE)
    return np.take_along_axis(found.scores, np.argsort(found.rows, axis=1), 1)


def test_format_2_is_read_and_means_what_it_meant() -> None:
    store = FeatureStore.open(GOLDEN)
    assert store.forms("m") == list(FORMS) and not any(verify(store))
    queries = rows()[:5].astype(np.float32)
    exact = queries.astype(np.float64) @ rows().astype(np.float64).T
    assert np.abs(scores(StoredRows(store, method_group("m")), queries) - exact).max() < 1e-6
    for form, off in FORMS.items():
        assert np.abs(scores(StoredRows(store, precision_group("m", form)), queries) - exact).max() < off


@pytest.mark.skipif(FORMAT != 2, reason="the golden store of another format is its own")
def test_the_bytes_are_those_of_today(tmp_path: Path) -> None:
    make(tmp_path / "s")

    def tree(path: Path) -> dict[str, bytes]:
        return {p.relative_to(path).as_posix(): p.read_bytes() for p in path.rglob("*") if p.is_file()}

    assert tree(tmp_path / "s") == tree(GOLDEN)


if __name__ == "__main__":
    shutil.rmtree(GOLDEN, ignore_errors=True)
    make(GOLDEN)
