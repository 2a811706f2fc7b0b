"""The store as a whole, opened or created: its groups of columns, where they came from, how many rows are committed.

A directory that is a plain Zarr v3 group. All that changes lives in one file, the root's `zarr.json`: replacing it is the
commit. Knows nothing of what rows mean.

    zarr.json                                   attributes.headwater: format, version, provenance, groups
    examples/<column>/                          what every method shares
    methods/<name>/columns/<column>/            one method's sketches
    forms/<name>.<form>/columns/<column>/       the same in fewer bits, made of them later (format 2)
    methods/<name>/state/                       what a method learnt from them
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .errors import DataError, StoreDamaged, StoreError, StoreMismatch, StoreMissing
from .files import hidden_name, locked, make_folder, read_json, write_json
from .layout import FORMAT, Column, array_metadata, group_metadata

EXAMPLES = "examples"
ROOT = "zarr.json"
_NAME = re.compile(r"\w[\w.@-]*(?<!zarr\.json)")


def method_group(name: str) -> str:
    """Group that holds a method's columns."""
    return f"methods/{name}"


def precision_group(method: str, form: str) -> str:
    """Group that holds a method's rows in another form."""
    return f"forms/{method}.{form}"


class FeatureStore:
    """An existing store. Reading it takes no lock; every change goes through :meth:`update`."""

    def __init__(self, path: str | Path, attributes: dict[str, Any], *, remote: bool = False) -> None:
        """Use :meth:`open` or :meth:`create`."""
        self.path = Path(path)
        self.url = str(path)
        self.remote = remote
        self._attributes = attributes

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
        headwater = {"format": FORMAT, "version": version, "provenance": provenance, "groups": {}}
        with locked(folder):
            if cls.exists(folder):
                raise StoreMismatch(f"{folder} holds a store already; name another place for a new one")
            if any(found != hidden_name(folder / ROOT) for found in folder.iterdir()):
                raise StoreMismatch(f"{folder} exists and is not a headwater store; name another place for the store")
            write_json(folder / ROOT, group_metadata({"headwater": headwater}))
        return cls(folder, headwater)

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
        if attributes["format"] <= FORMAT and not _is_whole(attributes):
            raise StoreDamaged(f"{path}/{ROOT} does not describe a store's groups and where they came from")
        if attributes["format"] > FORMAT:
            raise StoreMismatch(f"{path} has format {attributes['format']}; this version reads up to {FORMAT}: "
                                f"upgrade headwater (the store was made by {attributes.get('version')})")  # fmt: skip
        return cls(path, attributes, remote=remote)

    @staticmethod
    def exists(path: str | Path) -> bool:
        """Whether a store has been created in the folder."""
        return (Path(path) / ROOT).is_file()

    @property
    def provenance(self) -> dict[str, Any]:
        """What the rows were made from and how, as recorded at creation (and at each append)."""
        found: dict[str, Any] = self._attributes["provenance"]
        return found

    @property
    def version(self) -> str:
        """Version of headwater that created the store."""
        return str(self._attributes["version"])

    @property
    def groups(self) -> dict[str, dict[str, Any]]:
        """Group name to its record: `columns`, `done`, and what its writer noted."""
        found: dict[str, dict[str, Any]] = self._attributes["groups"]
        return found

    @property
    def methods(self) -> list[str]:
        """Names of the methods whose columns are here, complete or not."""
        return [name.removeprefix("methods/") for name in self.groups if name.startswith("methods/")]

    def forms(self, method: str) -> list[str]:
        """Names of the forms in which a method's rows are held besides their own."""
        prefix = precision_group(method, "")
        return [name.removeprefix(prefix) for name in self.groups if name.startswith(prefix)]

    def record(self, group: str) -> dict[str, Any]:
        """The record of one group.

        Raises:
            StoreMissing: the store has no such group.
        """
        if group not in self.groups:
            raise StoreMissing(f"{self.url} holds no group {group}, only {sorted(self.groups)}")
        return self.groups[group]

    def rows(self, group: str) -> int:
        """Committed rows of a group: those that a reader sees."""
        done = self.record(group)["done"]
        return int(done[0][1]) if done and done[0][0] == 0 else 0

    def folder(self, group: str, column: str) -> str:
        """Path of a column's array below the root."""
        return f"{group}/{column}" if group == EXAMPLES else f"{group}/columns/{column}"

    def columns(self, group: str) -> list[Column]:
        """The columns of a group."""
        return [
            Column(c["name"], tuple(c["shape"]), c["dtype"], c["chunk_rows"]) for c in self.record(group)["columns"]
        ]

    def array_metadata(self, group: str, column: str) -> dict[str, Any]:
        """A column's own `zarr.json`; it may differ from what headwater wrote, if the array was stored anew."""
        folder = self.folder(group, column)
        if self.remote:
            return _remote_array_metadata(f"{self.url}/{folder}")
        try:
            return read_json(self.path / folder / ROOT)
        except StoreMissing:
            raise StoreDamaged(f"{self.path / folder / ROOT} is missing: run headwater verify") from None

    def update(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Change the root's attributes, alone among all processes, in one step: the commit of everything.

        `change` gets the freshest attributes and mutates them.
        """
        self.require_local()
        with locked(self.path):
            every = read_json(self.path / ROOT)["attributes"]
            before = json.dumps(every)
            change(every["headwater"])
            if json.dumps(every) != before:
                write_json(self.path / ROOT, group_metadata(every))
            self._attributes = every["headwater"]

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
        if not names or len(set(names)) < len(names) or not all(_NAME.fullmatch(n) for n in names):
            raise DataError(f"{group} cannot have the columns {names}: each needs its own name, of letters and digits")
        record = {
            "columns": [
                {"name": c.name, "shape": list(c.shape), "dtype": c.dtype, "chunk_rows": c.chunk_rows} for c in columns
            ],
            "done": [],
            **notes,
        }

        def declare(attributes: dict[str, Any]) -> None:
            newer = group.startswith("forms/") or "declared" in notes
            attributes["format"] = max(attributes["format"], 2 if newer else 1)
            known = attributes["groups"].setdefault(group, record)
            if known["columns"] != record["columns"]:
                raise StoreMismatch(
                    f"{self.path} holds {group} with other columns: {_listed(known)}, not {_listed(record)}"
                )
            if known is record:
                self._make_arrays(group, columns)

        self.update(declare)

    def _make_arrays(self, group: str, columns: Sequence[Column]) -> None:
        """Before the root names them: what a crash leaves here is made anew by the next run."""
        for parent in _parents(group):
            if not (self.path / parent / ROOT).exists():
                write_json(self.path / parent / ROOT, group_metadata({}))
        for column in columns:
            write_json(self.path / self.folder(group, column.name) / ROOT, array_metadata(column, 0))


def _is_whole(attributes: Mapping[str, Any]) -> bool:
    """Whether the root says what a root must, with names that stay below it: a store may come from a stranger."""
    try:
        for group, record in attributes["groups"].items():
            kind, _, name = group.partition("/")
            named = group == EXAMPLES or (kind in ("methods", "forms") and _NAME.fullmatch(name))
            bounds = all(0 <= start <= stop for start, stop in record["done"])
            columns = [Column(c["name"], tuple(c["shape"]), c["dtype"], c["chunk_rows"]) for c in record["columns"]]
            sized = all(c.chunk_rows >= 1 and c.row_bytes >= 0 and _NAME.fullmatch(c.name) for c in columns)
            if not (named and bounds and sized and columns):
                return False
        return isinstance(attributes["provenance"], dict)
    except (KeyError, TypeError, ValueError, AttributeError):
        return False


def _parents(group: str) -> list[str]:
    if group == EXAMPLES:
        return [EXAMPLES]
    return [group.partition("/")[0], group, f"{group}/columns"]


def _listed(record: dict[str, Any]) -> str:
    return ", ".join(f"{c['name']} {c['dtype']} {c['shape']} by {c['chunk_rows']}" for c in record["columns"])


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
