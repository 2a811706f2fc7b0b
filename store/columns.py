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
        """Fill `out` (stop-start, *row shape) with rows that are not verified yet; :meth:`confirm` verifies them.

        Raises:
            StoreDamaged: bytes are missing or cannot be decoded.
        """

    def confirm(self, start: int, rows: Array) -> None:  # noqa: B027 - zarr has checked what it decodes
        """Add loaded rows to their chunk's checksum; once all rows of the chunk were added, in any order, it is verified.

        Several threads may call it.

        Raises:
            StoreDamaged: the chunk differs from its checksum.
        """

    def close_file(self) -> None:  # noqa: B027 - most readers keep nothing open
        """Close the file that loading in this thread keeps open for the next load."""

    def read(self, start: int, stop: int, out: Array) -> None:
        """Load and confirm: a chunk of which all rows are read, in one call or several, is verified."""
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
        """Checksum of a chunk's committed rows, as a manifest lists it. The checksum stored in the chunk is compared first.

        Raises:
            StoreDamaged: the chunk is missing, cannot be read, or differs from its own checksum.
        """

    def check(self, chunk: int) -> None:
        """Raise StoreDamaged unless a chunk matches its own checksum and the one that the manifest lists."""
        self.require_listed(chunk, self.checksum(chunk))

    def listed(self, chunk: int) -> int | None:
        """The manifest's checksum of a chunk, if it has one."""
        return int(self.checksums[chunk]) if self.checksums is not None and chunk < len(self.checksums) else None

    def require_listed(self, chunk: int, crc: int) -> None:
        """Raise StoreDamaged if the manifest lists another checksum for the chunk."""
        if self.listed(chunk) not in (None, crc):
            raise self.damage_error(chunk, "is not the one that was written: replaced, older, or of another store")

    def is_full(self, chunk: int) -> bool:
        """Whether all rows of a chunk are committed."""
        return (chunk + 1) * self.column.chunk_rows <= self.rows

    def damage(self, chunk: int, why: str) -> Damage:
        """The description of one damaged chunk."""
        first, end = self.column.rows_of(chunk, self.rows)
        return Damage(self.name, chunk, first, end - 1, why)

    def damage_error(self, chunk: int, why: str) -> StoreDamaged:
        """The error for one damaged chunk."""
        error = StoreDamaged(str(self.damage(chunk, why)), hint="run headwater verify")
        error.why = why
        return error

    def asked_rows(self, rows: Sequence[int] | Array) -> Array:
        asked = np.asarray(rows, dtype=np.int64)
        outside = asked[(asked < 0) | (asked >= self.rows)]
        if len(outside):
            raise DataError(f"{self.name} has rows 0 to {self.rows - 1}; asked for {outside[:5].tolist()}")
        return asked


def by_chunk(items: Array, chunks: Array) -> list[Array]:
    """`items` split into parts that lie in one chunk each. `chunks`: the chunk number of each item, ascending."""
    return [part for part in np.split(items, np.flatnonzero(np.diff(chunks)) + 1) if len(part)]
