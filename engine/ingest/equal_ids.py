"""Counts ids that several examples of a store share. Reads the column of ids alone, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...store.feature_store import EXAMPLES, FeatureStore
from ...store.layout import TEXT_CHUNK_ROWS
from ...store.reader import open_column

PASS_ROWS = 4 << 20  # ids whose 8-byte hashes are in memory together, 64 MiB with their sorted copy


def equal_ids_note(store: FeatureStore) -> str:
    """A sentence about ids that several examples have, with their number and one of them; "" if all ids differ."""
    rows = store.rows(EXAMPLES)
    passes = max(1, -(-rows // PASS_ROWS))
    ids = examples = 0
    repeated_hash: int | None = None
    for part in range(passes):
        own = (number for name in _ids(store) if (number := hash(name)) % passes == part)
        hashes, counts = np.unique(np.fromiter(own, np.int64), return_counts=True)
        repeated = counts > 1
        ids, examples = ids + int(repeated.sum()), examples + int(counts[repeated].sum())
        if repeated_hash is None and repeated.any():
            repeated_hash = int(hashes[repeated][0])
    if repeated_hash is None:
        return ""
    name = next(name for name in _ids(store) if hash(name) == repeated_hash)
    return (
        f"{ids:,} ids are each the id of several examples ({examples:,} in all), such as {name}: wherever an id names an example "
        "(labels, --exclude, --among, tables), it stands for all that have it"
    )


def _ids(store: FeatureStore) -> Iterator[str]:
    column, rows = open_column(store, EXAMPLES, "id"), store.rows(EXAMPLES)
    for first in range(0, rows, TEXT_CHUNK_ROWS):
        yield from map(str, column.gather(np.arange(first, min(rows, first + TEXT_CHUNK_ROWS))))
