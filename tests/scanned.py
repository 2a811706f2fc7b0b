"""Rows that scans read, and what a scan must find in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from headwater.engine.arrays.precision.precisions import Precision, precision_of
from headwater.store.feature_store import FeatureStore
from headwater.store.layout import column
from headwater.store.reader import ColumnReader, open_column
from headwater.store.writer import GroupWriter


def stored(
    folder: Path, data: np.ndarray, chunk_bytes: int = 4096, form: Precision | None = None
) -> list[ColumnReader]:
    """Rows in a form, by default as they are; readers of what is scanned."""
    form = form or precision_of("auto", column("c", data.shape[1:], data.dtype.name))
    store = FeatureStore.create(folder, {}, "test")
    store.add_group("methods/m", [column(c.name, c.shape, c.dtype, chunk_bytes) for c in form.columns], {})
    with GroupWriter(store, "methods/m") as writer:
        writer.append(form.encode(data))
        writer.commit()
    return [open_column(store, "methods/m", name) for name in form.scanned]


def brute_force(data: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Float64 scores, sorted by descending score, ties by row."""
    scores = queries.astype(np.float64) @ data.astype(np.float64).T
    order = np.lexsort((np.broadcast_to(np.arange(len(data)), scores.shape), -scores), axis=1)[:, :k]
    return np.take_along_axis(scores, order, 1), order
