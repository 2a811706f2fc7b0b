"""Upgrades a store of format 1 or 2 in place: the same files, in the layout of the newest format.

Chunks get a second name in the shard (a hard link; a copy where the file system has none), each is read once to compare its
checksum and list it in the manifest, then the root is replaced, which is the commit, then the old names are removed. Killed at
any moment the store is whole, in the old format or in the new one, and the same call finishes what is left. Knows nothing of
what rows mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .chunk_manifest import ArrayChecksums, ChunkManifest
from .errors import StoreBusy, StoreDamaged
from .feature_store import FeatureStore
from .files import link_tree, make_folder, remove_tree
from .layout import FORMAT
from .locks import OwnerLock, locked
from .metadata import ROOT
from .reader import is_as_written, open_column
from .root import read_root, write_root
from .shard import Shard
from .state import state_folders
from .store_record import COPIES, EXAMPLES, METHODS, SHARDED, ShardEntry, StoreRecord

UPGRADED_FROM = "upgraded_from"
"""Key of the provenance: the format that a store had before."""


@dataclass(frozen=True, slots=True)
class Upgraded:
    """What an upgrade did."""

    before: int
    """The format that the store had."""
    chunks: int
    """Chunks that were read and listed."""
    dropped: tuple[str, ...]
    """Files of older versions' statistics and fits, by their paths below the store: computed again when they are needed."""


def upgrade(path: str, on_progress: Callable[[int], None] = lambda chunks: None) -> Upgraded:
    """Bring a store to the newest format; `on_progress` is called with the number of chunks read.

    Raises:
        StoreBusy: another process upgrades it, or wrote to it meanwhile. StoreDamaged: a chunk differs from its checksum.
        StoreFull: no room left. The store is as it was, and readable.
    """
    store = FeatureStore.open(path)
    store.require_local()
    if store.root.format >= SHARDED:
        return Upgraded(store.root.format, 0, _remove_old(store))
    make_folder(store.path / "shards")
    if (store.path / "shards").is_symlink():
        raise StoreDamaged(
            f"{store.path / 'shards'} leads out of the store", hint="remove it, and run headwater upgrade again"
        )
    with closing(OwnerLock(store.path / "shards", f"upgrades {path}")):
        store = FeatureStore.open(path)  # another upgrade may have just ended
        before = store.root
        if before.format < SHARDED:
            entries, chunks = _fill_shard(store, on_progress)
            _replace_root(store, entries)
            return Upgraded(before.format, chunks, _remove_old(FeatureStore.open(path)))
    return Upgraded(before.format, 0, _remove_old(store))


def _fill_shard(store: FeatureStore, on_progress: Callable[[int], None]) -> tuple[dict[str, ShardEntry], int]:
    """Make the new layout beside the old one: the entry of each group, and the number of chunks."""
    shard, entries, done = Shard.of(store.url, FORMAT), dict[str, ShardEntry](), 0
    remove_tree(store.path / shard.prefix)  # of an upgrade that was killed
    for group in store.groups:
        shard.make_group(group, ())
        arrays = dict[str, ArrayChecksums]()
        for column in store.columns(group):
            link_tree(store.path / store.folder(group, column.name), store.path / shard.column_path(group, column.name))
            reader, sums = open_column(store, group, column.name), list[int]()
            for chunk in range(-(-reader.rows // reader.column.chunk_rows)):
                sums.append(reader.checksum(chunk))
                done += 1
                on_progress(done)
            if is_as_written(store, group, column):
                arrays[column.name] = ArrayChecksums(reader.rows, np.array(sums, np.uint32))
        entry = shard.write_manifest(group, ChunkManifest(store.rows(group), _notes(store, group), arrays))
        shard.write_progress(group, entry)
        entries[group] = ShardEntry(entry.rows, store.is_complete(group), entry.manifest)
    return entries, done


def _notes(store: FeatureStore, group: str) -> dict[str, object]:
    """What is needed to resume a group; formats 1 and 2 count a finished group's sources only when others are appended."""
    sources = store.provenance.get("sources")
    ended = {"sources": len(sources)} if store.is_complete(group) and isinstance(sources, list) else {}
    return store.record(group).resume_notes | ended


def _replace_root(store: FeatureStore, entries: dict[str, ShardEntry]) -> None:
    """Commit the new layout.

    Raises:
        StoreBusy: the root is not the one that the shard was made of.
    """
    before = store.root
    groups = {name: record.without_resume_notes() for name, record in before.groups.items()}
    provenance = {**before.provenance, UPGRADED_FROM: before.format}
    with locked(store.path):
        attributes, now = read_root(store.url)
        if now != before:
            raise StoreBusy(f"another process has written to {store.url} meanwhile", hint="run headwater upgrade again")
        write_root(store.path, attributes, StoreRecord(FORMAT, before.version, provenance, groups, entries))


def _remove_old(store: FeatureStore) -> tuple[str, ...]:
    """Remove the old layout of a store that was upgraded, and files that no version reads any more: those of statistics."""
    if UPGRADED_FROM not in store.provenance:
        return ()
    for group in (EXAMPLES, COPIES):
        remove_tree(store.path / group)
    unread = list[Path]()
    for method in _folders(store.path / METHODS):
        remove_tree(method / "columns")
        for state in _folders(method):
            unread += _unread(state)
        if not _folders(method):
            remove_tree(method)
    for file in unread:
        remove_tree(file)
    if not _folders(store.path / METHODS):
        remove_tree(store.path / METHODS)
    return tuple(file.relative_to(store.path).as_posix() for file in unread)


def _folders(folder: Path) -> list[Path]:
    """The folders in a folder, links left out: they lead to folders that are not the store's."""
    if folder.is_symlink() or not folder.is_dir():
        return []
    return sorted(place for place in folder.iterdir() if place.is_dir() and not place.is_symlink())


def _unread(folder: Path) -> Iterator[Path]:
    """Files in a folder of states, or below, that belong to no state."""
    if folder in state_folders(folder):
        return
    for place in sorted(folder.iterdir()):
        if place.is_dir() and not place.is_symlink():
            yield from _unread(place)
        elif place.name != ROOT:
            yield place
