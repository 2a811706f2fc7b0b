"""One shard's folder: where its arrays lie, how many rows are committed, and the manifests of its chunks.

While a group is written, the attributes of its `zarr.json` are its progress record: rows and the manifest's digest; for finished
groups the root holds the same. Only the group's owner replaces this record. Knows nothing of what rows mean, and nothing of the
root.

    <shard>/<group>/zarr.json                     attributes.headwater: rows, manifest
    <shard>/<group>/columns/<column>/             arrays (of the examples: <shard>/examples/<column>/)
    <shard>/manifests/<group>/<digest>/zarr.json  attributes.headwater: rows, notes, and the checksums of each array's chunks
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .chunk_manifest import ChunkManifest
from .errors import StoreDamaged, StoreMissing
from .files import refuse_links, write_json
from .layout import Column, array_metadata, group_metadata
from .metadata import KEY, ROOT, array_metadata_at, group_attributes
from .store_record import EXAMPLES, SHARD, SHARDED, ShardEntry

_MANIFESTS = "manifests"


@dataclass(frozen=True, slots=True)
class Shard:
    """A shard of a store in a folder, or behind a URL."""

    store: str
    """The store's folder or URL."""
    prefix: str
    """The shard's path below it; empty in formats 1 and 2, where the store's root is its only shard."""

    @classmethod
    def of(cls, store: str, store_format: int) -> Shard:
        """The one shard of a store."""
        return cls(store, f"shards/{SHARD}" if store_format >= SHARDED else "")

    def group_path(self, group: str) -> str:
        """Path of a group below the store."""
        return f"{self.prefix}/{group}" if self.prefix else group

    def column_path(self, group: str, column: str) -> str:
        """Path of a column below the store; `column` may name one of a ragged column's arrays."""
        return (
            f"{self.group_path(group)}/{column}" if group == EXAMPLES else f"{self.group_path(group)}/columns/{column}"
        )

    def array_metadata(self, path: str) -> dict[str, Any]:
        """The `zarr.json` of the array at a path below the store.

        Raises:
            StoreDamaged: it is missing, or cannot be read.
        """
        return array_metadata_at(f"{self.store}/{path}")

    def progress(self, group: str) -> ShardEntry | None:
        """The committed rows and the manifest of a group that is being written; None if nothing was committed yet.

        Raises:
            StoreDamaged: the record cannot be understood.
        """
        place = f"{self.store}/{self.group_path(group)}"
        try:
            attributes = group_attributes(place)
            if attributes == {}:
                return None
            return ShardEntry.from_json({**attributes[KEY], "complete": False})
        except StoreMissing:
            if Path(place, ROOT).is_symlink():
                raise StoreDamaged(
                    f"{place}/{ROOT} is a link that leads nowhere", hint="restore what it led to"
                ) from None
            return None
        except (KeyError, TypeError, ValueError):
            raise StoreDamaged(
                f"{place}/{ROOT} is not a progress record",
                hint=f"remove it, and the unfinished rows of {group} are written again",
            ) from None

    def write_progress(self, group: str, entry: ShardEntry) -> None:
        """Replace a group's progress record, which commits what its owner has written so far."""
        record = {"rows": entry.rows, "manifest": entry.manifest}
        write_json(self._folder(group) / ROOT, group_metadata({KEY: record}))

    def manifest(self, group: str, entry: ShardEntry) -> ChunkManifest:
        """The manifest that an entry names.

        Raises:
            StoreMissing: it is not there. StoreDamaged: it does not match its digest.
        """
        place = f"{self.store}/{self._manifest_path(group)}/{entry.manifest}"
        try:
            manifest = ChunkManifest.from_json(group_attributes(place)[KEY])
            if manifest.digest != entry.manifest or manifest.rows != entry.rows:
                raise ValueError(place)
        except (KeyError, TypeError, ValueError, AttributeError):
            raise StoreDamaged(f"{place}/{ROOT} does not match its digest: it was edited or replaced") from None
        return manifest

    def write_manifest(self, group: str, manifest: ChunkManifest) -> ShardEntry:
        """Write a manifest beside the older ones; returns the entry that names it."""
        entry = ShardEntry(manifest.rows, False, manifest.digest)
        place = Path(self.store) / self._manifest_path(group) / entry.manifest
        if not (place / ROOT).is_file():
            write_json(place / ROOT, group_metadata({KEY: manifest.to_json()}), compact=True)
        return entry

    def written_folders(self, group: str, columns: Sequence[Column]) -> Iterator[Path]:
        """The folders that a writer of a group changes: its manifests, and its arrays' chunks."""
        yield Path(self.store) / self._manifest_path(group)
        for column in columns:
            for name, _ in arrays_of(column):
                yield Path(self.store) / self.column_path(group, name) / "c"

    def remove_manifests(self, group: str, keep: Collection[str]) -> None:
        """Remove a group's manifests, except those whose digests are in `keep`."""
        folder = Path(self.store) / self._manifest_path(group)
        for place in folder.iterdir() if folder.is_dir() else ():
            if place.is_dir() and place.name not in keep:
                shutil.rmtree(place, ignore_errors=True)

    def make_group(self, group: str, columns: Sequence[Column]) -> None:
        """Create a group's folders, and its arrays without rows; what a crash left there of a removed one is removed first.

        Raises:
            StoreDamaged: a symbolic link leads out of the group.
        """
        refuse_links(Path(self.store), self._folder(group))
        self.remove_group(group)
        manifests = self._manifest_path(group)
        for path in (*_parents(f"{self.prefix}/{group}"), *_parents(manifests), manifests):
            if not (Path(self.store) / path / ROOT).exists():
                write_json(Path(self.store) / path / ROOT, group_metadata({}))
        write_json(self._folder(group) / ROOT, group_metadata({}))
        if group != EXAMPLES:
            write_json(self._folder(group) / "columns" / ROOT, group_metadata({}))
        for column in columns:
            if column.ragged:
                write_json(Path(self.store) / self.column_path(group, column.name) / ROOT, group_metadata({}))
            for name, array in arrays_of(column):
                write_json(Path(self.store) / self.column_path(group, name) / ROOT, array_metadata(array, 0))

    def remove_group(self, group: str) -> None:
        """Remove a group's manifests, then its folder."""
        shutil.rmtree(Path(self.store) / self._manifest_path(group), ignore_errors=True)
        shutil.rmtree(self._folder(group), ignore_errors=True)

    def _folder(self, group: str) -> Path:
        return Path(self.store) / self.group_path(group)

    def _manifest_path(self, group: str) -> str:
        return f"{self.prefix}/{_MANIFESTS}/{group}"


def arrays_of(column: Column) -> list[tuple[str, Column]]:
    """(path below the group's columns, array) of each array of a column: itself, or a ragged column's values and offsets."""
    if not column.ragged:
        return [(column.name, column)]
    return [(f"{column.name}/{array.name}", array) for array in (column.values, column.offsets)]


def _parents(path: str) -> list[str]:
    """The folders above a path below the store, from the top."""
    parts = path.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts))]
