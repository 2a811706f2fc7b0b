"""The store as a whole, opened or created: its groups of columns, where they came from, how many rows are committed.

A directory that is a plain Zarr v3 group. All that changes lives in one file, the root's `zarr.json`: replacing it is the
commit. Knows nothing of what rows mean.

    zarr.json                                   attributes.headwater: format, version, provenance, groups
    examples/<column>/                          what every method shares
    methods/<name>/columns/<column>/            one method's sketches
    forms/<name>.<form>/columns/<column>/       the same in fewer bits, made of them later (format 2)
    methods/<name>/state/                       what a method learnt from them
    …/<column>/values/, …/<column>/offsets/     a ragged column (format 3)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from .errors import DataError, StoreDamaged, StoreError, StoreMismatch, StoreMissing
from .files import hidden_name, locked, make_folder, read_json, write_json
from .layout import FORMAT, Column, array_metadata, group_metadata
from .manifest import (
    EXAMPLES,
    FORMS,
    METHODS,
    GroupRecord,
    StoreRecord,
    method_group,
    precision_group,
    require_name,
)

__all__ = ["EXAMPLES", "ROOT", "FeatureStore", "method_group", "precision_group"]
ROOT = "zarr.json"


class FeatureStore:
    """An existing store. Reading it takes no lock; every change goes through :meth:`update`."""

    def __init__(self, path: str | Path, root: StoreRecord, *, remote: bool = False) -> None:
        """Use :meth:`open` or :meth:`create`."""
        self.path = Path(path)
        self.url = str(path)
        self.remote = remote
        self.root = root

    @classmethod
    def create(cls, path: str | Path, provenance: dict[str, Any], version: str) -> FeatureStore:
        """Make an empty store.

        Raises:
            StoreMismatch: the folder exists and holds something else.
        """
        folder = Path(path)
        if folder.exists() and not folder.is_dir():
            raise StoreMismatch(f"{folder} is a file; name another place for the store")
        make_folder(folder)
        root = StoreRecord(FORMAT, version, provenance)
        with locked(folder):
            if cls.exists(folder):
                raise StoreMismatch(f"{folder} holds a store already; name another place for a new one")
            if any(found != hidden_name(folder / ROOT) for found in folder.iterdir()):
                raise StoreMismatch(f"{folder} exists and is not a headwater store; name another place for the store")
            write_json(folder / ROOT, group_metadata({"headwater": root.to_json()}))
        return cls(folder, root)

    @classmethod
    def open(cls, path: str | Path) -> FeatureStore:
        """Open a store in a folder, or below a URL that fsspec knows (read only).

        Raises:
            StoreMissing: there is none.
            StoreMismatch: a newer format than this version reads.
            StoreDamaged: its root cannot be understood.
        """
        remote = "://" in str(path)
        metadata = _remote_metadata(str(path)) if remote else read_json(Path(path) / ROOT)
        every = metadata.get("attributes", {})
        attributes = every.get("headwater") if isinstance(every, dict) else None
        if attributes is None:
            raise StoreMissing(f"{path} is a Zarr group, but no headwater store")
        if not isinstance(attributes, dict) or not isinstance(attributes.get("format"), int):
            raise StoreDamaged(f"{path}/{ROOT} names no format of the store")
        if attributes["format"] > FORMAT:
            raise StoreMismatch(f"{path} has format {attributes['format']}; this version reads up to {FORMAT}: "
                                f"upgrade headwater (the store was made by {attributes.get('version')})")  # fmt: skip
        return cls(path, _record(path, attributes), remote=remote)

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

    def forms(self, method: str) -> list[str]:
        """Names of the forms in which a method's rows are held besides their own."""
        prefix = f"{FORMS}/{method}."
        return [name.removeprefix(prefix) for name in self.groups if name.startswith(prefix)]

    def record(self, group: str) -> GroupRecord:
        """The record of one group.

        Raises:
            StoreMissing: the store has no such group.
        """
        if group not in self.groups:
            raise StoreMissing(f"{self.url} holds no group {group}, only {sorted(self.groups)}")
        return self.groups[group]

    def rows(self, group: str) -> int:
        """Committed rows of a group: those that a reader sees."""
        return self.record(group).rows

    def folder(self, group: str, column: str) -> str:
        """Path of a column's array below the root."""
        return f"{group}/{column}" if group == EXAMPLES else f"{group}/columns/{column}"

    def columns(self, group: str) -> tuple[Column, ...]:
        """The columns of a group."""
        return self.record(group).columns

    def array_metadata(self, folder: str) -> dict[str, Any]:
        """An array's own `zarr.json`; it may differ from what headwater wrote, if the array was stored anew."""
        if self.remote:
            return _remote_array_metadata(f"{self.url}/{folder}")
        try:
            return read_json(self.path / folder / ROOT)
        except StoreMissing:
            raise StoreDamaged(f"{self.path / folder / ROOT} is missing: run headwater verify") from None

    def update(self, change: Callable[[StoreRecord], StoreRecord]) -> None:
        """Replace the root's record, alone among all processes, in one step: the commit of everything.

        `change` gets the record as it is now and returns the new one. Other attributes of the root stay as they are.
        """
        self.require_local()
        with locked(self.path):
            every = read_json(self.path / ROOT)["attributes"]
            before = _record(self.path, every["headwater"])
            self.root = change(before)
            if self.root != before:
                write_json(self.path / ROOT, group_metadata({**every, "headwater": self.root.to_json()}))

    def require_local(self) -> None:
        """Raise StoreError if the store is behind a URL: such a store is only read."""
        if self.remote:
            raise StoreError(f"{self.url} is remote, and so read only: write to a local folder and copy it")

    def add_group(self, group: str, columns: Sequence[Column], notes: dict[str, Any]) -> None:
        """Declare a group and make its empty arrays; `notes` are kept in its record. One that is there stays as it is.

        Raises:
            StoreMismatch: it is there with other columns.
            DataError: columns that cannot be told apart, or cannot be folders.
        """
        names = [c.name for c in columns]
        if not names or len(set(names)) < len(names):
            raise DataError(f"{group} cannot have the columns {names}: each needs its own name")
        for name in names:
            require_name(name, "column")
        record = GroupRecord(tuple(columns), (), notes)

        def declare(root: StoreRecord) -> StoreRecord:
            newer = group.startswith(f"{FORMS}/") or "declared" in notes
            ragged = any(column.ragged for column in columns)
            root = replace(root, format=max(root.format, 3 if ragged else 2 if newer else 1))
            known = root.groups.get(group)
            if known is None:
                self._make_arrays(group, columns)
                return root.with_group(group, record)
            if known.columns != record.columns:
                raise StoreMismatch(
                    f"{self.path} holds {group} with other columns: {_listed(known)}, not {_listed(record)}"
                )
            return root

        self.update(declare)

    def _make_arrays(self, group: str, columns: Sequence[Column]) -> None:
        """Before the root names them: what a crash leaves here is made anew by the next run."""
        for parent in _parents(group):
            if not (self.path / parent / ROOT).exists():
                write_json(self.path / parent / ROOT, group_metadata({}))
        for column in columns:
            folder = self.path / self.folder(group, column.name)
            if column.ragged:
                write_json(folder / ROOT, group_metadata({}))
            for array in (column.values, column.offsets) if column.ragged else ():
                write_json(folder / array.name / ROOT, array_metadata(array, 0))
            if not column.ragged:
                write_json(folder / ROOT, array_metadata(column, 0))


def _record(path: str | Path, attributes: Mapping[str, Any]) -> StoreRecord:
    """The root's record.

    Raises:
        StoreDamaged: it does not say what a root must.
    """
    try:
        return StoreRecord.from_json(attributes)
    except (KeyError, TypeError, ValueError, AttributeError):  # a DataError is a ValueError
        raise StoreDamaged(f"{path}/{ROOT} does not describe a store's groups and where they came from") from None


def _parents(group: str) -> list[str]:
    if group == EXAMPLES:
        return [EXAMPLES]
    return [group.partition("/")[0], group, f"{group}/columns"]


def _listed(record: GroupRecord) -> str:
    return ", ".join(f"{c.name} {c.dtype} {list(c.shape)} by {c.chunk_rows}" for c in record.columns)


def _remote_metadata(url: str) -> dict[str, Any]:
    import zarr

    try:
        return {"attributes": zarr.open_group(url, mode="r").attrs.asdict()}
    except (OSError, ValueError, ImportError) as error:
        raise StoreMissing(f"{url} is not a headwater store: {error}") from None


def _remote_array_metadata(url: str) -> dict[str, Any]:
    import zarr

    try:
        found: dict[str, Any] = zarr.open_array(url, mode="r").metadata.to_dict()
    except (OSError, ValueError) as error:
        raise StoreDamaged(f"{url} cannot be opened: {error}") from None
    return found
