"""The store as a whole, opened or created: its groups of columns, where they came from, how many rows are committed.

A store is a folder that is a plain Zarr v3 group. The root's `zarr.json` says which groups exist and which of them are finished;
replacing it is the commit of a finished group. Rows lie in the one shard (`shard.py`), where a group's owner records how far
an unfinished group is committed. Knows nothing of what rows mean.

    zarr.json                                         attributes.headwater: format, version, provenance, groups, shards, seal
    shards/0/examples/<column>/                       what every method shares
    shards/0/methods/<name>/columns/<column>/         one method's sketches
    shards/0/forms/<name>.<precision>/columns/…       copies of them in fewer bits, made later
    shards/0/hidden_states/<name>.base0/columns/…     what a method is fitted to
    …/<column>/values/, …/<column>/offsets/           a ragged column
    shards/0/manifests/<group>/<digest>/              checksums of a group's chunks
    methods/<name>/state/                             what was computed for a method: statistics, fits, calibrations

In formats 1 and 2 `examples`, `methods/<name>/columns` and `forms` lie in the root, which has no manifests and no seal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from .chunk_manifest import ChunkManifest
from .errors import StoreDamaged, StoreError, StoreMismatch, StoreMissing
from .files import refuse_links
from .layout import FORMAT, Array, Column
from .locks import OwnerLock, locked
from .metadata import ROOT, is_url
from .root import create_root, read_root, write_root
from .shard import Shard
from .store_record import (
    COPIES,
    EXAMPLES,
    METHODS,
    SHARDED,
    GroupRecord,
    ShardEntry,
    StoreRecord,
    method_group,
    precision_group,
    require_columns,
)

__all__ = ["EXAMPLES", "ROOT", "FeatureStore", "method_group", "precision_group"]


class FeatureStore:
    """An existing store. Reading it takes no lock; every change goes through :meth:`update`."""

    def __init__(self, path: str | Path, root: StoreRecord) -> None:
        """Use :meth:`open` or :meth:`create`."""
        self.path, self.url = Path(path), str(path)
        self.remote = is_url(self.url)
        self._manifests: dict[str, ChunkManifest] = {}  # by digest
        self._load(root)

    def _load(self, root: StoreRecord) -> None:
        """Take over a root's record and, for unfinished groups, the newer progress records of their owners."""
        self.root, self.shard = root, Shard.of(self.url, root.format)
        self.entries = dict(root.entries)  # group name to how far it is committed
        for group, entry in root.entries.items():
            if root.format >= SHARDED and not entry.complete:
                progress = self.shard.progress(group)
                self.entries[group] = progress if progress and progress.rows >= entry.rows else entry

    @classmethod
    def create(cls, path: str | Path, provenance: dict[str, Any], version: str) -> FeatureStore:
        """Make an empty store.

        Raises:
            StoreMismatch: the folder exists and holds something else, or lies inside another store.
        """
        root = StoreRecord(FORMAT, version, provenance)
        create_root(Path(path), root)
        return cls(path, root)

    @classmethod
    def open(cls, path: str | Path) -> FeatureStore:
        """Open a store in a folder, or below a URL that fsspec knows (read only).

        Raises:
            StoreMissing: there is none.
            StoreMismatch: a newer format than this version reads.
            StoreDamaged: its root cannot be understood, or was edited.
        """
        return cls(path, read_root(str(path))[1])

    @staticmethod
    def exists(path: str | Path) -> bool:
        """Whether a store has been created in the folder."""
        return (Path(path) / ROOT).is_file()

    @property
    def provenance(self) -> Mapping[str, Any]:
        """What the rows were made from and how, as recorded at creation (and at each append)."""
        return self.root.provenance

    @property
    def version(self) -> str:
        """Version of headwater that created the store."""
        return self.root.version

    @property
    def groups(self) -> Mapping[str, GroupRecord]:
        """Group name to its record."""
        return self.root.groups

    @property
    def methods(self) -> list[str]:
        """Names of the methods whose columns are here, complete or not."""
        return [name.removeprefix(f"{METHODS}/") for name in self.groups if name.startswith(f"{METHODS}/")]

    def copies(self, method: str) -> list[str]:
        """Names of the precisions in which the store holds further copies of a method's rows."""
        prefix = f"{COPIES}/{method}."
        names = [name.removeprefix(prefix) for name in self.groups if name.startswith(prefix)]
        return [
            name for name in names if "." not in name
        ]  # other copies are of members whose names begin like this one

    def record(self, group: str) -> GroupRecord:
        """The record of one group.

        Raises:
            StoreMissing: the store has no such group.
        """
        if group not in self.groups:
            raise StoreMissing(f"{self.url} holds no group {group}, only {sorted(self.groups)}")
        return self.groups[group]

    def entry(self, group: str) -> ShardEntry:
        """How far a group is committed.

        Raises:
            StoreMissing: the store has no such group.
        """
        self.record(group)
        return self.entries[group]

    def rows(self, group: str) -> int:
        """Committed rows of a group: those that a reader sees."""
        return self.entry(group).rows

    def is_complete(self, group: str) -> bool:
        """Whether all rows of a group are there."""
        return self.entry(group).complete

    def resume_notes(self, group: str) -> Mapping[str, Any]:
        """What the group's writer noted at its last commit, in order to resume from there.

        Raises:
            StoreDamaged: the group's manifest is not what was written.
        """
        manifest = self.manifest(group)
        return manifest.notes if manifest else self.record(group).resume_notes

    def manifest(self, group: str) -> ChunkManifest | None:
        """The manifest of a group's chunks; None in formats 1 and 2, and where nothing was committed.

        If the owner has replaced it since the store was opened, the newer one is returned: it also covers the older rows.

        Raises:
            StoreDamaged: it is missing, or not what was written.
        """
        entry = self.entry(group)
        for _ in range(3):  # its owner may replace it meanwhile
            if not entry.manifest:
                return None
            try:
                if entry.manifest not in self._manifests:
                    self._manifests[entry.manifest] = self.shard.manifest(group, entry)
                return self._manifests[entry.manifest]
            except StoreMissing:
                entry = FeatureStore.open(self.url).entry(group)
        raise StoreDamaged(
            f"{self.url} lacks the manifest {entry.manifest} of {group}", hint="restore it from a backup"
        )

    def checksums(self, group: str, array: str, column: Column, rows: int) -> Array | None:
        """Checksums of the chunks that hold an array's first `rows` rows, (chunks,) uint32; None where the store has none.

        If the manifest is newer than this view, its last checksum may cover more rows; it is then left out.

        Raises:
            StoreDamaged: the group's manifest is not what was written.
        """
        manifest = self.manifest(group)
        return manifest.sums_of(array, column, rows) if manifest else None

    def folder(self, group: str, column: str) -> str:
        """Path of a column's array below the root."""
        return self.shard.column_path(group, column)

    def columns(self, group: str) -> tuple[Column, ...]:
        """The columns of a group."""
        return self.record(group).columns

    def refresh(self) -> None:
        """Update this view to what has been committed since the store was opened."""
        self._load(read_root(self.url)[1])

    def update(self, change: Callable[[StoreRecord], StoreRecord]) -> None:
        """Replace the root's record in one step, under a lock that keeps other processes from replacing it.

        `change` gets the record as it is now and returns the new one. Other attributes of the root stay as they are.
        """
        self.require_writable()
        with locked(self.path):
            attributes, before = read_root(self.url)
            after = change(before)
            if after != before:
                write_root(self.path, attributes, after)
        self._load(after)

    def commit(self, group: str, manifest: ChunkManifest, *, complete: bool = False) -> None:
        """Make the rows that a manifest covers visible; `complete`: the group has no further rows. Only its owner may call this.

        Replacing the progress record in the shard commits an unfinished group; replacing the root commits a finished one.
        """
        entry, committed = self.shard.write_manifest(group, manifest), self.root.entries[group]
        if committed.complete and committed.manifest == entry.manifest:
            return
        if committed.complete:
            self.update(lambda root: root.with_entry(group, replace(committed, complete=False)))
        self.shard.write_progress(group, entry)
        self._manifests.pop(self.entries[group].manifest, None)
        self.entries[group], self._manifests[entry.manifest] = entry, manifest
        if complete:
            self.update(lambda root: root.with_entry(group, replace(entry, complete=True)))
        self.remove_leftovers(group)

    def remove_leftovers(self, group: str) -> None:
        """Remove manifests to which neither the progress record nor the root refers any more. Only the group's owner may call
        it.
        """
        self.shard.remove_manifests(group, (self.entries[group].manifest, self.root.entries[group].manifest))

    def require_local(self) -> None:
        """Raise StoreError if the store is behind a URL: such a store is only read."""
        if self.remote:
            raise StoreError(f"{self.url} is remote, and so read only", hint="write to a local folder and copy it")

    def require_writable(self) -> None:
        """Raise StoreError if the store is behind a URL, StoreMismatch if it has an older format: such stores are only read."""
        self.require_local()
        if self.root.format < SHARDED:
            raise StoreMismatch(
                f"{self.url} has format {self.root.format}, which is only read",
                hint=f"run headwater upgrade {self.url} to make it format {FORMAT}",
            )

    def add_group(self, group: str, columns: Sequence[Column], notes: Mapping[str, Any]) -> None:
        """Declare a group and make its empty arrays; `notes` are kept in its record. A group that exists already is unchanged.

        Raises:
            StoreMismatch: it exists with other columns, or the store has an older format.
            DataError: two columns have the same name, or a name cannot be a folder, the group's included.
        """
        require_columns(group, columns)
        record = GroupRecord(tuple(columns), notes)

        def declare(root: StoreRecord) -> StoreRecord:
            known = root.groups.get(group)
            if known is None:
                self.shard.make_group(group, columns)  # before the root names it
                return root.with_group(group, record)
            if known.columns != record.columns:
                raise StoreMismatch(
                    f"{self.path} holds {group} with other columns: {known.layout}, not {record.layout}"
                )
            return root

        self.update(declare)

    def remove_group(self, group: str) -> None:
        """Remove a group and its rows, if it is there.

        Raises:
            StoreBusy: another process writes to it.
        """
        if group in self.groups:
            with closing(self.own(group)):
                self.update(lambda root: root.without_group(group))
                self.shard.remove_group(group)

    def own(self, group: str) -> OwnerLock:
        """A lock that keeps other writers from a group.

        Raises:
            StoreBusy: another writer holds it. StoreMissing: the store has no such group.
            StoreDamaged: a symbolic link leads out of the group.
        """
        self.require_writable()
        for place in self.shard.written_folders(group, self.record(group).columns):
            refuse_links(self.path, place)
        return OwnerLock(self.path / self.shard.group_path(group), f"writes {group} of {self.url}")
