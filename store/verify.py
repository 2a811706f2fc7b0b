"""Whether a store is whole: every chunk there, of its size, equal to its checksum, and every state.

Knows nothing of what rows mean.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from .errors import StoreDamaged
from .feature_store import FeatureStore
from .layout import Damage
from .manifest import METHODS
from .reader import open_column
from .state import read_state, state_folders

__all__ = ["Damage", "chunk_count", "verify"]


def chunk_count(store: FeatureStore) -> int:
    """Chunks that hold committed rows, as headwater wrote them, and states: about what `verify` yields."""
    chunks = sum(
        -(-store.rows(group) // column.chunk_rows) for group in store.groups for column in store.columns(group)
    )
    return chunks + len(_states(store))


def verify(store: FeatureStore) -> Iterator[Damage | None]:
    """Check every chunk that holds committed rows, then every state; yields one item each, `None` where it is whole.

    A column that cannot be opened is one item, its chunk 0, with all its rows. States of a remote store are not read.
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
    for folder in _states(store):
        try:
            read_state(folder)
            yield None
        except StoreDamaged as error:
            yield Damage(folder.relative_to(store.path).as_posix(), -1, 0, -1, f"is damaged: {error}")


def _states(store: FeatureStore) -> list[Path]:
    if store.remote:
        return []
    return [state for place in sorted(store.path.glob(f"{METHODS}/*/state")) for state in state_folders(place)]
