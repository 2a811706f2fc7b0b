"""Stores without a row, as an ingestion leaves them that fails or is killed before its first commit: made anew, or removed.

Knows nothing of what rows mean.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import Any

from .errors import HeadwaterError
from .feature_store import ROOT, FeatureStore
from .files import refuse_links
from .layout import FORMAT
from .state import state_folders
from .store_record import METHODS, StoreRecord


def has_no_rows(store: FeatureStore) -> bool:
    """Whether no row of any group is committed."""
    return not any(store.rows(group) for group in store.groups)


def is_unused(store: FeatureStore) -> bool:
    """Whether a store holds neither rows nor anything that was computed for a method, so that nothing is lost with it."""
    return has_no_rows(store) and next(state_folders(store.path / METHODS), None) is None


def make_anew(store: FeatureStore, provenance: dict[str, Any], version: str) -> None:
    """Turn a store without rows into an empty one with another provenance.

    Raises:
        StoreBusy: another process writes to it.
    """
    groups = list(store.groups)
    with _owned(store):
        store.update(lambda root: StoreRecord(FORMAT, version, provenance))
        for group in groups:
            store.shard.remove_group(group)


def remove_rowless(store: FeatureStore) -> None:
    """Remove a store without rows, with all that was computed for its methods; one that cannot be removed stays."""
    with suppress(HeadwaterError, OSError), _owned(store):
        if not has_no_rows(store):
            return
        for place in store.path.iterdir():
            if place.is_dir():
                refuse_links(store.path, place)
                shutil.rmtree(place)
        (store.path / ROOT).unlink()
        store.path.rmdir()


@contextmanager
def _owned(store: FeatureStore) -> Iterator[None]:
    """Own all groups of a store."""
    with ExitStack() as stack:
        for group in store.groups:
            stack.enter_context(closing(store.own(group)))
        store.refresh()
        yield
