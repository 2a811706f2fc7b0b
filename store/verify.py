"""Checks a whole store: every chunk is there, has the right size, and matches its own checksum and its manifest's.

No manifest covers arrays that another tool rewrote with other chunks or codecs: a replaced chunk of theirs is not detected, and
if no codec has a checksum, only chunks that cannot be decoded are. Knows nothing of what rows mean.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from .columns import ColumnReader
from .errors import StoreDamaged
from .feature_store import FeatureStore
from .layout import Column, Damage
from .ragged import open_offsets, open_ragged
from .reader import open_column
from .state import read_state, state_folders
from .store_record import METHODS

__all__ = ["Damage", "chunk_count", "verify"]


def chunk_count(store: FeatureStore) -> int:
    """Chunks that hold committed rows, as headwater wrote them, and states: about what `verify` yields."""
    count = len(_states(store))
    for group in store.groups:
        for declared in store.columns(group):
            if declared.ragged:
                count += sum(_chunks(array) for array in _whole_arrays(store, group, declared))
            else:
                count += -(-store.rows(group) // declared.chunk_rows)
    return count


def verify(store: FeatureStore) -> Iterator[Damage | None]:
    """Check every chunk that holds committed rows, then every state; yields one item each, `None` where it is whole.

    A column that cannot be opened is one item, its chunk 0, with all its rows. States of a remote store are not read.
    """
    for group in store.groups:
        for declared in store.columns(group):
            try:
                for array in _arrays(store, group, declared):
                    yield from (array.fault(chunk) for chunk in range(_chunks(array)))
            except StoreDamaged as error:
                path, rows = store.folder(group, declared.name), store.rows(group)
                yield Damage(path, 0, 0, rows - 1, f"cannot be opened: {error}")
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


def _arrays(store: FeatureStore, group: str, declared: Column) -> Iterator[ColumnReader]:
    """The arrays of a column: one, or of a ragged one its offsets and its values.

    Raises:
        StoreDamaged: one is not the one that the root declares.
    """
    if declared.ragged:
        yield open_offsets(store, group, declared.name)
        yield open_ragged(store, group, declared.name).values
    else:
        yield open_column(store, group, declared.name)


def _whole_arrays(store: FeatureStore, group: str, declared: Column) -> list[ColumnReader]:
    """The same, of those that can be opened."""
    arrays: list[ColumnReader] = []
    with suppress(StoreDamaged):
        for array in _arrays(store, group, declared):
            arrays.append(array)
    return arrays


def _chunks(array: ColumnReader) -> int:
    return -(-array.rows // array.column.chunk_rows)
