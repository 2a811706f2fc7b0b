"""The store record that the root file holds: its groups with their columns, its shards and how far each is written; to JSON and
back, every name checked.

A store may come from a stranger: every name that becomes part of a path is checked where it is made and again where it is read,
so that no path leads out of the store. A seal, a digest of all else in the record, lets an edited root be refused. Knows no file.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from .errors import DataError
from .layout import FORMAT, Column
from .names import require_method, require_name

EXAMPLES = "examples"
"""The group that every method shares."""
METHODS, COPIES, HIDDEN = "methods", "forms", "hidden_states"  # "forms": the name on disk of copies in other precisions
FITTED = "base0"  # the name on disk of what a fit keeps: its operators' folder, and the end of its hidden states' name
SHARD = "0"  # name of a store's only shard: so far, every store has exactly one
SHARDED = 3
"""The first format whose groups lie in shards, with manifests of their chunks. In earlier ones the root itself is the only
shard.
"""
_DIGEST = re.compile(r"(?:[0-9a-f]{24})?")
_ABOUT_ALL = ("settings", "declared", "model")
"""Notes that hold for all shards; in formats 1 and 2 all other notes say where to resume."""


def require_columns(group: str, columns: Sequence[Column]) -> None:
    """Check the columns of a new group.

    Raises:
        DataError: there are none, or two have the same name, or a name cannot be a folder.
    """
    names = [require_name(column.name, "column") for column in columns]
    if not names or len(set(names)) < len(names):
        raise DataError(f"{group} cannot have the columns {names}: each needs its own name")


def method_group(name: str) -> str:
    """Group that holds a method's columns.

    Raises:
        DataError: the name cannot be a folder.
    """
    return f"{METHODS}/{require_method(name)}"


def precision_group(method: str, precision: str) -> str:
    """Group that holds a method's rows in another precision.

    Raises:
        DataError: a name that cannot be a folder.
    """
    return f"{COPIES}/{require_method(method)}.{require_name(precision, 'precision')}"


def hidden_group(method: str) -> str:
    """Group that holds a corpus's hidden states, by the model of a member of a fitted method.

    Raises:
        DataError: the name cannot be a folder.
    """
    return f"{HIDDEN}/{require_method(method)}.{FITTED}"


def digest_of(values: Any) -> str:
    """Digest of JSON values, whatever the order of their keys and the spaces between them."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def columns_json(columns: Sequence[Column]) -> list[dict[str, Any]]:
    """Columns as JSON values."""
    plain = [{"name": c.name, "shape": list(c.shape), "dtype": c.dtype, "chunk_rows": c.chunk_rows} for c in columns]
    return [{**values, "ragged": True} if c.ragged else values for c, values in zip(columns, plain, strict=True)]


def columns_from(values: Sequence[Mapping[str, Any]]) -> tuple[Column, ...]:
    """Inverse of :func:`columns_json`.

    Raises:
        KeyError, TypeError, ValueError: the values are not columns. DataError: a name that cannot be a folder.
    """
    columns = tuple(
        Column(c["name"], tuple(c["shape"]), c["dtype"], c["chunk_rows"], bool(c.get("ragged"))) for c in values
    )
    for column in columns:
        require_name(column.name, "column")
        if column.chunk_rows < 1 or column.row_bytes < 0:
            raise ValueError(f"column {column.name} has chunks of {column.chunk_rows} rows of {column.row_bytes} bytes")
    return columns


@dataclass(frozen=True, slots=True)
class GroupRecord:
    """One group of columns of equally many rows: what is true of all its shards."""

    columns: tuple[Column, ...]
    notes: Mapping[str, Any] = field(default_factory=dict)
    """JSON values that its writer noted; the properties below are those that the engine knows."""

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of the method or precision that made the rows.

        Raises:
            TypeError: they are no JSON object.
        """
        settings = self.notes.get("settings", {})
        if not isinstance(settings, dict):
            raise TypeError(f"settings are {settings!r}")
        return dict(settings)

    @property
    def model(self) -> dict[str, str]:
        """`path` and fingerprints of the model that made the rows, if it is not the store's own; else empty.

        Raises:
            TypeError: they are no JSON object of strings.
        """
        model = self.notes.get("model", {})
        if not isinstance(model, dict) or not all(isinstance(value, str) for value in model.values()):
            raise TypeError(f"the model is {model!r}")
        return dict(model)

    @property
    def declared(self) -> tuple[Column, ...]:
        """Columns as the method declares them; the stored ones differ if rows are stored in another precision."""
        return columns_from(self.notes["declared"]) if "declared" in self.notes else self.columns

    @property
    def resume_notes(self) -> dict[str, Any]:
        """What is needed to resume a group, which formats 1 and 2 note in the root, and format 3 in the group's manifest."""
        return {key: value for key, value in self.notes.items() if key not in _ABOUT_ALL}

    def without_resume_notes(self) -> GroupRecord:
        """The same with only the notes that hold for all shards."""
        return replace(self, notes={key: value for key, value in self.notes.items() if key in _ABOUT_ALL})

    @property
    def layout(self) -> str:
        """The columns in words, for messages."""
        return ", ".join(f"{c.name} {c.dtype} {list(c.shape)} by {c.chunk_rows}" for c in self.columns)

    def noted(self, **notes: Any) -> GroupRecord:
        """The same with some notes replaced."""
        return replace(self, notes={**self.notes, **notes})

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {"columns": columns_json(self.columns), **self.notes}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> GroupRecord:
        """Inverse of :meth:`to_json`.

        Raises:
            KeyError, TypeError, ValueError, DataError: the values are not a record.
        """
        columns = columns_from(values["columns"])
        if not columns:
            raise ValueError("a group without columns")
        return cls(columns, {key: value for key, value in values.items() if key != "columns"})


@dataclass(frozen=True, slots=True)
class ShardEntry:
    """How far one group of one shard is written. It is in the root and, while the shard is written, in a progress record."""

    rows: int = 0
    complete: bool = False
    """Whether all rows of the group in this shard are there."""
    manifest: str = ""
    """Digest of the manifest of the group's chunks in this shard; empty in formats 1 and 2, and where nothing was committed."""

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {"rows": self.rows, "complete": self.complete, "manifest": self.manifest}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ShardEntry:
        """Inverse of :meth:`to_json`.

        Raises:
            KeyError, TypeError, ValueError: the values are not an entry.
        """
        rows, complete, manifest = values["rows"], values["complete"], values["manifest"]
        if type(rows) is not int or rows < 0 or type(complete) is not bool:
            raise ValueError(f"{values} does not say how far a group is written")
        if not _DIGEST.fullmatch(manifest) or (rows and not manifest):
            raise ValueError(f"{values} does not say how far a group is written")
        return cls(rows, complete, manifest)


@dataclass(frozen=True, slots=True)
class StoreRecord:
    """What the root says."""

    format: int
    version: str
    """Version of headwater that created the store."""
    provenance: Mapping[str, Any]
    """What the rows were made from and how, as JSON values."""
    groups: Mapping[str, GroupRecord] = field(default_factory=dict)
    entries: Mapping[str, ShardEntry] = field(default_factory=dict)
    """Group name to the one shard's entry for it."""

    def with_group(self, name: str, record: GroupRecord, entry: ShardEntry | None = None) -> StoreRecord:
        """The same with one group added or replaced; a new one has no rows, unless `entry` gives it some.

        Raises:
            DataError: a name under which the group could not be read again.
        """
        _checked_group(name)
        entry = entry or self.entries.get(name, ShardEntry())
        return replace(self, groups={**self.groups, name: record}, entries={**self.entries, name: entry})

    def with_entry(self, name: str, entry: ShardEntry) -> StoreRecord:
        """The same with another entry of one group."""
        return replace(self, entries={**self.entries, name: entry})

    def without_group(self, name: str) -> StoreRecord:
        """The same without one group."""
        groups = {other: record for other, record in self.groups.items() if other != name}
        return replace(self, groups=groups, entries={other: self.entries[other] for other in groups})

    def to_json(self) -> dict[str, Any]:
        """JSON values, with their seal."""
        groups = {name: record.to_json() for name, record in self.groups.items()}
        shards = {SHARD: {name: entry.to_json() for name, entry in self.entries.items()}}
        values = {"format": self.format, "version": self.version, "provenance": dict(self.provenance),
                  "groups": groups, "shards": shards}  # fmt: skip
        return {**values, "seal": seal_of(values)}

    @property
    def digest(self) -> str:
        """Digest of all that the record says: its seal, also of formats that have none on disk."""
        return str(self.to_json()["seal"])

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> StoreRecord:
        """Inverse of :meth:`to_json`; reads formats 1 and 2, too. The seal is not checked.

        Raises:
            KeyError, TypeError, ValueError, AttributeError, DataError: the values describe no store of a known format.
        """
        if not isinstance(values["provenance"], dict) or values["format"] > FORMAT:
            raise TypeError("no provenance, or an unknown format")
        parts = values["groups"].items()
        if values["format"] < SHARDED:
            groups = {_checked_group(name): _flat_record(record) for name, record in parts}
            entries = {name: _flat_entry(record) for name, record in parts}
        else:
            groups = {_checked_group(name): GroupRecord.from_json(record) for name, record in parts}
            (shard,) = values["shards"]  # ValueError if there are several, as later versions may write
            entries = {name: ShardEntry.from_json(entry) for name, entry in values["shards"][shard].items()}
            if shard != SHARD or set(entries) != set(groups):
                raise ValueError(f"shard {shard} has other groups than the store")
        return cls(values["format"], str(values["version"]), values["provenance"], groups, entries)


def seal_of(values: Mapping[str, Any]) -> str:
    """Digest of a root's record, the seal itself left out."""
    return digest_of({key: value for key, value in values.items() if key != "seal"})


def is_sealed(values: Mapping[str, Any]) -> bool:
    """Whether a root's record is what its seal says; formats 1 and 2 have none."""
    return values["format"] < SHARDED or values.get("seal") == seal_of(values)


def _flat_record(values: Mapping[str, Any]) -> GroupRecord:
    """A group's record as formats 1 and 2 write it."""
    return GroupRecord.from_json({key: value for key, value in values.items() if key not in ("done", "complete")})


def _flat_entry(values: Mapping[str, Any]) -> ShardEntry:
    """How far a group is written, which formats 1 and 2 record as ranges of rows; a reader sees the first range."""
    ranges = [(first, stop) for first, stop in values["done"]]
    if not all(0 <= first <= stop for first, stop in ranges):
        raise ValueError(f"a group with the committed rows {ranges}")
    rows = ranges[0][1] if ranges and ranges[0][0] == 0 else 0
    return ShardEntry(rows, bool(values.get("complete", False)))


def _checked_group(name: str) -> str:
    """A group's name, after a check that it leads to no path outside the store."""
    kind, _, label = name.partition("/")
    if name != EXAMPLES and kind not in (METHODS, COPIES, HIDDEN):
        raise DataError(f"{name} is not the name of a group")
    if name != EXAMPLES:
        require_name(label, kind)
    return name
