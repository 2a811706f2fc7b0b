"""The root's records: groups, columns, how far each is written; to JSON and back, every name and number checked.

A store may come from a stranger: every name that becomes part of a path is checked where it is made and again where it is read,
so that nothing lies outside the store. Knows no file, no model, no method.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from .errors import DataError
from .layout import FORMAT, Column

EXAMPLES = "examples"
"""The group that every method shares."""
METHODS, FORMS = "methods", "forms"
_NAME = re.compile(r"\w[\w.@-]*(?<!zarr\.json)")


def require_name(name: str, what: str) -> str:
    """The name, if it may be one folder of a store.

    Raises:
        DataError: it is empty, holds a slash, or other characters than letters, digits and `. _ @ -`.
    """
    if not _NAME.fullmatch(name):
        raise DataError(
            f"{name!r} cannot be the name of a {what}: letters, digits and . _ @ - only, a letter or digit first"
        )
    return name


def method_group(name: str) -> str:
    """Group that holds a method's columns.

    Raises:
        DataError: the name cannot be a folder.
    """
    return f"{METHODS}/{require_name(name, 'method')}"


def precision_group(method: str, precision: str) -> str:
    """Group that holds a method's rows in another precision.

    Raises:
        DataError: a name that cannot be a folder.
    """
    return f"{FORMS}/{require_name(method, 'method')}.{require_name(precision, 'precision')}"


def columns_json(columns: Sequence[Column]) -> list[dict[str, Any]]:
    """Columns as JSON values."""
    plain = [{"name": c.name, "shape": list(c.shape), "dtype": c.dtype, "chunk_rows": c.chunk_rows} for c in columns]
    return [{**values, "ragged": True} if c.ragged else values for c, values in zip(columns, plain, strict=True)]


def columns_from(values: Sequence[Mapping[str, Any]]) -> tuple[Column, ...]:
    """Inverse of :func:`columns_json`.

    Raises:
        KeyError, TypeError, ValueError: the values are no columns. DataError: a name that cannot be a folder.
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
    """One group of columns of equally many rows."""

    columns: tuple[Column, ...]
    done: tuple[tuple[int, int], ...] = ()
    """Ranges of rows that are committed, ascending."""
    notes: Mapping[str, Any] = field(default_factory=dict)
    """JSON values that its writer noted; the properties below are those that the engine knows."""

    @property
    def rows(self) -> int:
        """Committed rows from the first on: those that a reader sees."""
        return self.done[0][1] if self.done and self.done[0][0] == 0 else 0

    @property
    def complete(self) -> bool:
        """Whether all rows of the corpus are there."""
        return bool(self.notes.get("complete", False))

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
    def declared(self) -> tuple[Column, ...]:
        """Columns as the method declares them; they differ from the stored ones where precision does."""
        return columns_from(self.notes["declared"]) if "declared" in self.notes else self.columns

    @property
    def place(self) -> tuple[int, int, int]:
        """Source, record and piece of the last example written."""
        source, record, piece = self.notes["place"]
        return source, record, piece

    @property
    def digest(self) -> str:
        """Chained over the examples written."""
        return str(self.notes["digest"])

    @property
    def sources(self) -> int:
        """Sources of the corpus that were read to their end before others were appended."""
        return int(self.notes.get("sources", 0))

    def noted(self, **notes: Any) -> GroupRecord:
        """The same with some notes replaced."""
        return replace(self, notes={**self.notes, **notes})

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {"columns": columns_json(self.columns), "done": [list(part) for part in self.done], **self.notes}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> GroupRecord:
        """Inverse of :meth:`to_json`.

        Raises:
            KeyError, TypeError, ValueError, DataError: the values are no record.
        """
        columns, done = columns_from(values["columns"]), tuple((first, stop) for first, stop in values["done"])
        if not columns or not all(0 <= first <= stop for first, stop in done):
            raise ValueError(f"a group of {len(columns)} columns with the committed rows {done}")
        return cls(columns, done, {key: value for key, value in values.items() if key not in ("columns", "done")})


@dataclass(frozen=True, slots=True)
class StoreRecord:
    """What the root says."""

    format: int
    version: str
    """Of headwater, which created the store."""
    provenance: Mapping[str, Any]
    """What the rows were made from and how, as JSON values."""
    groups: Mapping[str, GroupRecord] = field(default_factory=dict)

    def with_group(self, name: str, record: GroupRecord) -> StoreRecord:
        """The same with one group added or replaced."""
        return replace(self, groups={**self.groups, name: record})

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        groups = {name: record.to_json() for name, record in self.groups.items()}
        return {"format": self.format, "version": self.version, "provenance": dict(self.provenance), "groups": groups}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> StoreRecord:
        """Inverse of :meth:`to_json`.

        Raises:
            KeyError, TypeError, ValueError, AttributeError, DataError: the values describe no store of a known format.
        """
        groups = {_checked_group(name): GroupRecord.from_json(record) for name, record in values["groups"].items()}
        if not isinstance(values["provenance"], dict) or values["format"] > FORMAT:
            raise TypeError("no provenance, or an unknown format")
        return cls(values["format"], str(values["version"]), values["provenance"], groups)


def _checked_group(name: str) -> str:
    """A group's name, which must stay below the store."""
    kind, _, label = name.partition("/")
    if name != EXAMPLES and kind not in (METHODS, FORMS):
        raise DataError(f"{name} is no group of a store")
    if name != EXAMPLES:
        require_name(label, kind)
    return name
