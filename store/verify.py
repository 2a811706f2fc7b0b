"""Checks a whole store: every chunk there, of its size, equal to its checksum. Knows nothing of what rows mean."""

from __future__ import annotations

from collections.abc import Iterator

from .errors import StoreDamaged
from .feature_store import FeatureStore
from .layout import Damage
from .reader import open_column

__all__ = ["Damage", "chunk_count", "verify"]


def chunk_count(store: FeatureStore) -> int:
    """Number of chunks that hold committed rows, as headwater wrote them: about what `verify` yields."""
    return sum(-(-store.rows(group) // column.chunk_rows) for group in store.groups for column in store.columns(group))


def verify(store: FeatureStore) -> Iterator[Damage | None]:
    """Check every chunk that holds committed rows; yields one item a chunk, `None` where it is whole.

    A column that cannot be opened is one item, its chunk 0, with all its rows.
    """
    for group in store.groups:
        rows = store.rows(group)
        for declared in store.columns(group):
            try:
                column = open_column(store, group, declared.name)
            except StoreDamaged as error:
                yield Damage(store.folder(group, declared.name), 0, 0, rows - 1, f"cannot be opened: {error}")
                continue
            for chunk in range(-(-rows // column.column.chunk_rows)):
                yield column.fault(chunk)
