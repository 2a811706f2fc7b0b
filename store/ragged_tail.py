"""The unfinished chunks of a ragged column in a writer's memory: its values, and where rows begin. Knows no file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .chunk_manifest import ArrayChecksums
from .errors import DataError
from .layout import Array, Column
from .tails import ColumnTail, CommittedArray, NumberTail


@dataclass(frozen=True, slots=True)
class _RaggedRows:
    """Rows, each with its own number of elements."""

    values: Array
    """(elements, *element shape): the elements of all rows, one row after the other."""
    lengths: Array
    """(rows,) int64."""

    def __len__(self) -> int:
        return len(self.lengths)


class RaggedTail(ColumnTail):
    """The unfinished chunks of a ragged column: its values, and where rows begin."""

    def __init__(self, column: Column, row: int, written: Callable[[str, Column, int], CommittedArray]) -> None:
        """`written`: returns how far the array at a path is committed, given its number of rows."""
        self.column = column
        offsets = written(f"{column.name}/offsets", column.offsets, row + 1 if row else 0)
        self._offsets = NumberTail(column.offsets, offsets)
        if not row:
            self._offsets.append(np.zeros(1, np.int64))
        self._end = int(self._offsets.last())
        self._values = NumberTail(column.values, written(f"{column.name}/values", column.values, self._end))

    def checked(self, values: Any) -> _RaggedRows:
        """Rows as one array, with their lengths. Raises DataError for a number outside the range of the column's dtype."""
        rows = [np.asarray(row) for row in values]
        lengths = np.array([len(row) if row.ndim else -1 for row in rows], np.int64)
        if (lengths < 0).any():
            raise DataError(
                f"row {int(lengths.argmin())} of {self.column.name} is a single number: each row must be a list of numbers"
            )
        filled = [row for row in rows if len(row)]
        flat = np.concatenate(filled) if filled else np.zeros((0, *self.column.shape), self.column.dtype)
        flat, declared = self._values.checked(flat), np.dtype(self.column.dtype)
        if declared.kind in "iu" and len(flat):
            limits = np.iinfo(declared)
            if int(flat.min()) < limits.min or int(flat.max()) > limits.max:
                raise DataError(
                    f"rows of {self.column.name} hold {int(flat.min())} to {int(flat.max())}: outside the range of {declared}"
                )
        return _RaggedRows(flat, lengths)

    def append(self, values: _RaggedRows) -> None:
        """Append rows that :meth:`checked` returned."""
        self._values.append(values.values)
        ends = self._end + np.cumsum(values.lengths)
        self._offsets.append(ends)
        self._end = int(ends[-1]) if len(ends) else self._end

    def flush(self) -> None:
        """Write both arrays' chunks as far as they are filled."""
        self._values.flush()
        self._offsets.flush()

    def write_metadata(self, rows: int) -> None:
        """Write both arrays' metadata; the group has no other writer, so this one's counts are the arrays' lengths."""
        self._values.write_metadata(self._end)
        self._offsets.write_metadata(rows + 1)

    def checksums(self) -> dict[str, ArrayChecksums]:
        """The checksums of both arrays."""
        return self._values.checksums() | self._offsets.checksums()
