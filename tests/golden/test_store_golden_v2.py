"""A store written in format 2 stays readable for ever, and its rows keep their meaning: rotations and scales are the format.

No version since format 3 writes it.
"""

import numpy as np
from headwater.engine.arrays.scan.scan_loop import ScanShape
from headwater.engine.arrays.scan.scorers import scorer_of
from headwater.engine.arrays.scan.stored_rows import StoredRows
from headwater.engine.arrays.scan.top_k import top_k
from headwater.engine.runtime.run import SILENT_STAGE
from headwater.store.feature_store import FeatureStore, method_group, precision_group
from headwater.store.verify import verify
from places import GOLDEN as STORES

GOLDEN = STORES / "store_v2"
ROWS, DEPTH = 11, 48
FORMS = {"bf16": 4e-3, "int8": 1e-2, "sign256": 0.5}
"""Form → what its scores are off by at most."""


def rows() -> np.ndarray:
    """Numbers that no library version changes."""
    actual = np.sin(np.arange(1, ROWS * DEPTH + 1, dtype=np.float64) ** 2).reshape(ROWS, DEPTH)
    return (actual / np.linalg.norm(actual, axis=1, keepdims=True)).astype(np.float16)


def scores(stored: StoredRows, queries: np.ndarray) -> np.ndarray:
    """(Q, rows) in the order of rows."""
    actual = top_k(stored.scanned("c"), scorer_of(stored.precisions["c"], queries), ROWS, ScanShape(4, 2), SILENT_STAGE)
    return np.take_along_axis(actual.scores, np.argsort(actual.rows, axis=1), 1)


def test_format_2_is_read_and_means_what_it_meant() -> None:
    store = FeatureStore.open(GOLDEN)
    assert store.copies("m") == list(FORMS) and not any(verify(store))
    queries = rows()[:5].astype(np.float32)
    exact = queries.astype(np.float64) @ rows().astype(np.float64).T
    assert np.abs(scores(StoredRows(store, method_group("m")), queries) - exact).max() < 1e-6
    for form, off in FORMS.items():
        assert np.abs(scores(StoredRows(store, precision_group("m", form)), queries) - exact).max() < off
