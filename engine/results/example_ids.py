"""Ids of a store's examples: the rows that an id names, and the error for ids that no example has. Knows no file."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from ...store.completeness import finishing_command, is_whole
from ...store.errors import DataError
from ...store.feature_store import EXAMPLES, FeatureStore
from ...store.layout import TEXT_CHUNK_ROWS
from .example_table import Examples
from .group_labels import document_of

_NAMED = 3  # ids that an error names


def rows_by_id(store: FeatureStore, count: int) -> dict[str, list[int]]:
    """Example or document id → its rows among the first `count`: a long document has several."""
    examples = Examples(store)
    rows_of_id: dict[str, list[int]] = {}
    for first in range(0, count, TEXT_CHUNK_ROWS):
        rows = np.arange(first, min(count, first + TEXT_CHUNK_ROWS))
        for row, name in zip(rows.tolist(), examples.strings("id", rows), strict=True):
            rows_of_id.setdefault(name, []).append(row)
            if document_of(name) != name:
                rows_of_id.setdefault(document_of(name), []).append(row)
    return rows_of_id


def require_known_ids(names: Collection[str], known: Collection[str], source: str, store: FeatureStore) -> None:
    """Refuse ids that no example of a store has. names: the ids that `source`, a file or part of one, names; known: those of the
    store.

    Raises:
        DataError: with the number of unknown ids, the first of them, an id of the store, and what to do.
    """
    unknown = sorted({name for name in names if name not in known})
    if not unknown:
        return
    some = ", ".join(unknown[:_NAMED]) + (" …" if len(unknown) > _NAMED else "")
    own = Examples(store).strings("id", np.arange(1))[0] if store.rows(EXAMPLES) else "none"
    finish = "" if is_whole(store) else f", or run {finishing_command(store)} first, since the store is unfinished"
    raise DataError(
        f"{source} names {len(unknown)} example{'s' * (len(unknown) > 1)} that {store.url} does not hold ({some}); "
        f"its ids are such as {own}",
        hint=f"correct these ids or remove them{finish}",
    )
