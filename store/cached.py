"""Keeps rows in memory after their first checked read, for callers that ask for the same rows many times.

Blocks of cached columns are views, and nothing is copied: a scan from the page cache is limited by copying (2 to 11 GB/s on one
machine), a scan of these arrays by the memory's bandwidth. Knows nothing of what rows mean.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .checksums import crc32c
from .columns import ColumnReader
from .layout import Array, Column

_READ_BYTES = 2 << 20  # bytes per read: small enough to be checksummed while still in the CPU's cache


class CachedColumn(ColumnReader):
    """A column in memory."""

    def __init__(self, column: Column, rows: int, name: str, array: Array) -> None:
        """`array` (rows, *row shape); :func:`hold` makes one."""
        super().__init__(column, rows, name)
        self.array = array

    @property
    def shared(self) -> bool:
        """Whether several threads may load at once: yes."""
        return True

    def load(self, start: int, stop: int, out: Array) -> None:
        """A copy of rows."""
        out[:] = self.array[start:stop]

    def gather(self, rows: Sequence[int] | Array) -> Array:
        """Copies of rows."""
        copies: Array = self.array[self.asked_rows(rows)]
        return copies

    def checksum(self, chunk: int) -> int:
        """The checksum of the rows in memory; every chunk was compared when it was read."""
        first, end = self.column.rows_of(chunk, self.rows)
        return crc32c(self.array[first:end])


def hold(reader: ColumnReader) -> CachedColumn:
    """Read all committed rows into memory.

    Raises:
        StoreDamaged: a chunk differs from its checksum.
    """
    array = np.empty((reader.rows, *reader.column.shape), reader.column.dtype)
    step = max(1, _READ_BYTES // max(1, reader.column.row_bytes))
    for start in range(0, reader.rows, step):
        stop = min(reader.rows, start + step)
        reader.read(start, stop, array[start:stop])
    reader.close_file()
    return CachedColumn(reader.column, reader.rows, reader.name, array)
