"""Stored rows by their numbers, decoded; those that were asked for lately stay in memory as they are stored. Knows columns and
forms, not what rows are for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ...store.columns import ColumnReader
from ...store.layout import Array
from ..forms.form import Form
from .moments import decoded
from .scan import Shape


@dataclass(frozen=True, slots=True)
class Source:
    """Where rows are."""

    columns: Sequence[ColumnReader]
    form: Form

    @property
    def rows(self) -> int:
        """How many there are."""
        return self.columns[0].rows

    @property
    def row_bytes(self) -> int:
        """Of a row as it is stored."""
        return sum(reader.column.row_bytes for reader in self.columns)


class Kept:
    """Reads rows by number, and keeps some."""

    def __init__(self, source: Source, room: int) -> None:
        """`room` rows are kept; the longest there gives way."""
        self.source, self.fetched, self.passes = source, 0, 0
        self._slot = np.full(source.rows, -1, np.int32)
        self._rows = np.full(min(room, source.rows), -1, np.int64)
        self._parts = {reader.column.name: np.empty((len(self._rows), *reader.column.shape), reader.column.dtype)
                       for reader in source.columns}  # fmt: skip
        self._next = 0

    def gathered(self, rows: Array) -> Array:
        """(n, D) float32 of distinct rows; what is not kept is read, and counted in `fetched`."""
        slots = self._slot[rows]
        absent = slots < 0
        parts = {name: held[np.maximum(slots, 0)] if len(held) else np.empty((len(rows), *held.shape[1:]), held.dtype)
                 for name, held in self._parts.items()}  # fmt: skip
        if absent.any():
            new = rows[absent]
            read = {reader.column.name: reader.gather(new) for reader in self.source.columns}
            for name, values in read.items():
                parts[name][absent] = values
            self._keep(new, read)
            self.fetched += len(new)
        found: Array = np.asarray(self.source.form.decode(parts), np.float32).reshape(len(rows), -1)
        return found

    def tiles(self, shape: Shape) -> Iterator[tuple[int, Array]]:
        """All rows in order, (first, (n, D) float32) at a time: a pass."""
        self.passes += 1
        for start, rows in decoded(self.source.columns, self.source.form, shape, lambda done: None):
            yield start, rows.numpy()

    def _keep(self, rows: Array, read: dict[str, Array]) -> None:
        rows = rows[: len(self._rows)]
        places = (self._next + np.arange(len(rows))) % max(1, len(self._rows))
        left = self._rows[places]
        self._slot[left[left >= 0]] = -1
        self._rows[places], self._slot[rows] = rows, places
        for name, values in read.items():
            self._parts[name][places] = values[: len(rows)]
        self._next = int(self._next + len(rows)) % max(1, len(self._rows))
