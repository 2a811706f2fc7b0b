"""Synthetic stores for the benchmarks of the engine: rows as real sketches are, heavy-tailed and in clusters, of any size.

Knows the store and the forms; measures nothing.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np

POOL = 4096
"""Rows that are drawn; the others are rotations of them."""


def pool(depth: int, rows: int = POOL) -> np.ndarray:
    """Unit rows (rows, depth) float32 around 64 centres, heavy-tailed."""
    random = np.random.default_rng(0)
    centres = random.standard_normal((64, depth), np.float32)
    found = centres[random.integers(64, size=rows)] + random.standard_t(4, (rows, depth)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def fill(path: Path, rows: int, depth: int, precision: str, bits: int = 8192) -> Any:
    """A store of one method with `rows` rows in a form; one that is there already is used. Returns its StoredRows."""
    from headwater.engine.arrays.precision.precisions import precision_of
    from headwater.engine.arrays.scan.stored_rows import StoredRows
    from headwater.store.feature_store import FeatureStore
    from headwater.store.layout import column
    from headwater.store.store_record import columns_json
    from headwater.store.writer import GroupWriter

    group = "methods/made"
    if FeatureStore.exists(path):
        store = FeatureStore.open(path)
        if store.rows(group) == rows:
            return StoredRows(store, group)
        shutil.rmtree(path)
    declared = column("c", (depth,), "float32")
    form = precision_of(precision, declared, bits)
    store = FeatureStore.create(path, {"text": False}, "benchmark")
    notes = {"settings": {"precision": precision, "bits": bits}, "declared": columns_json([declared])}
    store.add_group(group, list(form.columns), notes)
    parts = form.encode(pool(depth))
    with GroupWriter(store, group) as writer:
        for number, start in enumerate(range(0, rows, POOL)):
            count = min(POOL, rows - start)
            turned = {n: np.roll(v, 37 * number, axis=1) if v.ndim > 1 else v for n, v in parts.items()}
            writer.append({name: values[:count] for name, values in turned.items()})
        writer.commit(complete=True)
    return StoredRows(FeatureStore.open(path), group)


def signs_of(stored: Any, bits: int = 8192) -> Any:
    """The StoredRows of a store's signs, made by `headwater compress` where they are not there yet."""
    from headwater.engine.arrays.scan.compress import TargetPrecision, compression
    from headwater.engine.arrays.scan.stored_rows import StoredRows

    made = compression(stored.store, "made", TargetPrecision("sign", bits), None)
    made.run()
    return StoredRows(stored.store, made.group)


def queries(count: int, depth: int) -> np.ndarray:
    """(count, depth) float32: noisy rows of the pool."""
    random = np.random.default_rng(1)
    found = pool(depth)[random.integers(POOL, size=count)]
    return found + random.standard_normal(found.shape, np.float32) / np.float32(2 * np.sqrt(depth))


def chunk_files(stored: Any, name: str) -> list[Path]:
    """The files of one stored column, in order."""
    (reader,) = stored.open([name])
    count = -(-stored.rows // reader.column.chunk_rows)
    return [reader.folder / reader.column.chunk_key(chunk) for chunk in range(count)]


def forget(files: list[Path]) -> None:
    """Drop files from the page cache."""
    for file in files:
        handle = os.open(file, os.O_RDONLY)
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)
