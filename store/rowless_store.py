"""Stores without a row, as an ingestion leaves them that fails or is killed before its first commit: replaced, or removed.

Knows nothing of what rows mean.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from typing import Any

from .errors import HeadwaterError, StoreBusy
from .feature_store import ROOT, FeatureStore
from .files import refuse_links
from .layout import FORMAT
from .state import is_unfinished, remove_state, state_folders
from .store_record import METHODS, StoreRecord

_SHARDS = "shards"


def is_unused(store: FeatureStore) -> bool:
    """Whether a store holds neither rows nor a finished computation for a method, so that little is lost with it."""
    has_rows = any(store.rows(group) for group in store.groups)
    return not has_rows and all(is_unfinished(folder) for folder in state_folders(store.path / METHODS))


def replace_unused(store: FeatureStore, provenance: dict[str, Any], version: str) -> None:
    """Turn an unused store into an empty one with another provenance.

    Raises:
        StoreBusy: another process writes to it.
    """
    with _owned(store) as groups:
        _replace_root(store, StoreRecord(FORMAT, version, provenance))
        for group in groups:
            store.shard.remove_group(group)
        for folder in list(state_folders(store.path / METHODS)):
            remove_state(folder)


def remove_unused(store: FeatureStore) -> None:
    """Remove an unused store. One that holds something, or that cannot be removed, stays; so does a folder with other files."""
    with suppress(HeadwaterError, OSError), _owned(store) as groups:
        _replace_root(store, replace(store.root, groups={}, entries={}))
        for group in groups:
            store.shard.remove_group(group)
        own = {ROOT, _SHARDS, METHODS}
        if {place.name for place in store.path.iterdir()} <= own:
            for name in (_SHARDS, METHODS):
                refuse_links(store.path, store.path / name)
                shutil.rmtree(store.path / name, ignore_errors=True)
            (store.path / ROOT).unlink()
            store.path.rmdir()


def _replace_root(store: FeatureStore, record: StoreRecord) -> None:
    """Replace the root's record, unless another process has changed its groups."""
    groups = set(store.groups)

    def change(root: StoreRecord) -> StoreRecord:
        if set(root.groups) != groups:
            raise StoreBusy(f"another process writes to {store.url}", hint="wait for it, or stop it")
        return record

    store.update(change)


@contextmanager
def _owned(store: FeatureStore) -> Iterator[list[str]]:
    """Own all groups of a store, which is unused.

    Raises:
        StoreBusy: it is not, or another process writes to it.
    """
    with ExitStack() as stack:
        groups = list(store.groups)
        for group in groups:
            stack.enter_context(closing(store.own(group)))
        store.refresh()
        if set(store.groups) != set(groups) or not is_unused(store):
            raise StoreBusy(f"another process writes to {store.url}", hint="wait for it, or stop it")
        yield groups
