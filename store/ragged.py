"""Ragged columns, read: rows of any number of elements, as one array of values and one of offsets.

Row i is values[offsets[i]:offsets[i + 1]]. Both are columns of their own, in chunks with checksums.
Knows nothing of what rows mean.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .columns import ColumnReader
from .errors import StoreDamaged
from .feature_store import FeatureStore
from .layout import Array, Column
from .reader import declared_column, open_array

__all__ = ["RaggedColumn", "open_offsets", "open_ragged"]


class RaggedColumn:
    """Committed rows of one ragged column."""

    def __init__(self, column: Column, rows: int, values: ColumnReader, offsets: ColumnReader) -> None:
        """Use :func:`open_ragged`."""
        self.column, self.rows, self.values, self.offsets = column, rows, values, offsets

    def bounds(self, rows: Sequence[int] | Array) -> tuple[Array, Array]:
        """First and last-plus-one element of rows (n,): two (n,) int64.

        Raises:
            DataError: a row that is not committed. StoreDamaged: offsets that do not ascend, or lie outside the values.
        """
        asked = np.asarray(rows, np.int64)
        both = self.offsets.gather(np.concatenate([asked, asked + 1]))
        first, stop = both[: len(asked)], both[len(asked) :]
        if (first > stop).any() or (first < 0).any() or (stop > self.values.rows).any():
            raise StoreDamaged(f"{self.offsets.name} does not ascend", hint="run headwater verify")
        return first, stop

    def gather(self, rows: Sequence[int] | Array) -> list[Array]:
        """The named rows, in the order asked for: each (elements, *element shape).

        Raises:
            DataError: a row that is not committed. StoreDamaged: a chunk is not what was written.
        """
        first, stop = self.bounds(rows)
        lengths = stop - first
        begins = np.cumsum(lengths) - lengths
        places = np.repeat(first - begins, lengths) + np.arange(int(lengths.sum()))
        return np.split(self.values.gather(places), begins[1:]) if len(first) else []


def open_offsets(store: FeatureStore, group: str, name: str) -> ColumnReader:
    """The offsets of a ragged column: one more than rows; none where there are no rows.

    Raises:
        StoreMissing, StoreDamaged: see :func:`open_ragged`.
    """
    column, rows = declared_column(store, group, name), store.rows(group)
    return open_array(store, group, f"{name}/offsets", column.offsets, rows + 1 if rows else 0)


def open_ragged(store: FeatureStore, group: str, name: str) -> RaggedColumn:
    """The reader for a ragged column.

    Raises:
        StoreMissing: the group or the column is not there. StoreDamaged: an array is not the one that the root declares.
    """
    column, rows = declared_column(store, group, name), store.rows(group)
    offsets = open_offsets(store, group, name)
    end = int(offsets.gather([rows])[0]) if rows else 0
    values = open_array(store, group, f"{name}/values", column.values, end)
    return RaggedColumn(column, rows, values, offsets)
