"""What a reader of a column does: fill a buffer with a range of committed rows, gather single ones, check chunks.

Plain chunk files are read by `file_column.py`; every other codec, and every remote store, through zarr itself by
`zarr_column.py`. Both compare a chunk with its own checksum and with the one that the manifest lists. Knows nothing of what rows
mean.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from .errors import DataError, StoreDamaged
from .layout import Array, Column, Damage


class ColumnReader(ABC):
    """Rows of one column."""

    def __init__(self, column: Column, rows: int, name: str, checksums: Array | None = None) -> None:
        """`name` is the array's path below the root, for messages; `checksums` (chunks,) are those of the manifest, if any."""
        self.column, self.rows, self.name, self.checksums = column, rows, name, checksums

    @property
    def scratch_bytes(self) -> int:
        """Memory that reading takes besides the buffers it fills."""
        return 0

    @property
    def shared(self) -> bool:
        """Whether several threads may load at once."""
        return False

    @abstractmethod
    def load(self, start: int, stop: int, out: Array) -> None:
        """Fill `out` (stop-start, *row shape) with rows, as they are: :meth:`confirm` has the last word.

        Raises:
            StoreDamaged: bytes are missing or cannot be decoded.
        """

    def confirm(self, start: int, rows: Array) -> None:  # noqa: B027 - zarr has checked what it decodes
        """Take loaded rows into account; when the last part of a chunk comes by, in any order, the chunk is checked.

        Several threads may call it.

        Raises:
            StoreDamaged: the chunk differs from its checksum.
        """

    def rest(self) -> None:  # noqa: B027 - most readers have nothing to let go
        """Let go of what loading in this thread keeps open for the next load."""

    def read(self, start: int, stop: int, out: Array) -> None:
        """Both of these: a chunk read from its first row to its last, in one call or several, is checked."""
        self.load(start, stop, out)
        self.confirm(start, out)

    @abstractmethod
    def gather(self, rows: Sequence[int] | Array) -> Array:
        """The named rows, in the order asked for: (len(rows), *row shape).

        Raises:
            DataError: a row that is not committed.
        """

    def fault(self, chunk: int) -> Damage | None:
        """What is wrong with a chunk, if anything."""
        try:
            self.check(chunk)
        except StoreDamaged as error:
            return self.damage(chunk, error.why)
        return None

    @abstractmethod
    def checksum(self, chunk: int) -> int:
        """Checksum of a chunk's committed rows, as a manifest lists it, once the chunk's own was compared.

        Raises:
            StoreDamaged: the chunk is not whole.
        """

    def check(self, chunk: int) -> None:
        """Raise StoreDamaged unless a chunk is whole, and the one that the manifest lists."""
        self.require_listed(chunk, self.checksum(chunk))

    def listed(self, chunk: int) -> int | None:
        """The manifest's checksum of a chunk, if it has one."""
        return int(self.checksums[chunk]) if self.checksums is not None and chunk < len(self.checksums) else None

    def require_listed(self, chunk: int, crc: int) -> None:
        """Raise StoreDamaged where the manifest lists another chunk."""
        if self.listed(chunk) not in (None, crc):
            raise self.damaged(chunk, "is not the one that was written: exchanged, older, or of another store")

    def is_full(self, chunk: int) -> bool:
        """Whether all rows of a chunk are committed."""
        return (chunk + 1) * self.column.chunk_rows <= self.rows

    def damage(self, chunk: int, why: str) -> Damage:
        """A name for one bad chunk."""
        first, end = self.column.rows_of(chunk, self.rows)
        return Damage(self.name, chunk, first, end - 1, why)

    def damaged(self, chunk: int, why: str) -> StoreDamaged:
        """The error for one bad chunk."""
        error = StoreDamaged(f"{self.damage(chunk, why)}: run headwater verify")
        error.why = why
        return error

    def asked_rows(self, rows: Sequence[int] | Array) -> Array:
        asked = np.asarray(rows, dtype=np.int64)
        outside = asked[(asked < 0) | (asked >= self.rows)]
        if len(outside):
            raise DataError(f"{self.name} has rows 0 to {self.rows - 1}; asked for {outside[:5].tolist()}")
        return asked


def by_chunk(items: Array, chunks: Array) -> list[Array]:
    """`items` cut where `chunks`, which ascends beside them, changes."""
    return [part for part in np.split(items, np.flatnonzero(np.diff(chunks)) + 1) if len(part)]
