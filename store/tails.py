"""The last, unfinished chunk of a column in a writer's memory: of numbers or of text.

Appended rows are collected in it. A full chunk is written to a file at once; a commit writes the rows that the unfinished chunk
holds so far. Knows nothing of what rows mean.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numcodecs import VLenUTF8, Zstd

from .checksums import checksum_bytes, crc32c
from .chunk_manifest import ArrayChecksums, text_checksum
from .errors import DataError, StoreDamaged
from .files import write_file, write_json
from .layout import CHECKSUM_BYTES, Array, Column, array_metadata
from .metadata import ROOT

_ZEROS = np.zeros(1 << 20, dtype=np.uint8)


class ColumnTail(ABC):
    """The rows of a column that are not yet in a full chunk."""

    column: Column

    @abstractmethod
    def checked(self, values: Any) -> Any:
        """Check the values of some rows, and convert them to what :meth:`append` takes; its length is the number of rows.

        Raises:
            DataError: their shape or dtype does not suit the column.
        """

    @abstractmethod
    def append(self, values: Any) -> None:
        """Append values that :meth:`checked` returned."""

    @abstractmethod
    def flush(self) -> None:
        """Write the unfinished chunks to their files, if rows were appended since they were last written."""

    @abstractmethod
    def write_metadata(self, rows: int) -> None:
        """Write the `zarr.json` of the column's arrays, for `rows` rows."""

    @abstractmethod
    def checksums(self) -> dict[str, ArrayChecksums]:
        """The checksums of each array, by its path below the group's columns; call :meth:`flush` first."""


@dataclass(frozen=True, slots=True)
class CommittedArray:
    """How far an array is committed, and the checksums of its chunks."""

    folder: Path
    name: str
    """The array's path below the group's columns."""
    rows: int
    sums: Array | None
    """Checksums of its chunks, as the manifest lists them; None if no manifest lists the array."""


class _Tail(ColumnTail):
    """What :class:`NumberTail` and :class:`TextTail` share."""

    def __init__(self, column: Column, committed: CommittedArray) -> None:
        self.column, self.folder, self.name = column, committed.folder, committed.name
        self.chunk, self.filled = divmod(committed.rows, column.chunk_rows)
        self.dirty = False
        self.last_sum = 0
        """Checksum of the rows in the unfinished chunk; as last read or written; valid only if the chunk holds rows."""
        sums = np.zeros(0, np.uint32) if committed.sums is None else committed.sums
        if len(sums) != -(-committed.rows // column.chunk_rows):
            raise StoreDamaged(
                f"the manifest of {committed.folder} lists {len(sums)} chunks for {committed.rows} rows",
                hint="run headwater verify",
            )
        self._committed_sums, self._sums = sums, [int(crc) for crc in sums[: self.chunk]]

    def write_metadata(self, rows: int) -> None:
        """Write the array's metadata for `rows` rows."""
        write_json(self.folder / ROOT, array_metadata(self.column, rows))

    def checksums(self) -> dict[str, ArrayChecksums]:
        """The checksums of all chunks."""
        sums = [*self._sums, self.last_sum] if self.filled else self._sums
        return {self.name: ArrayChecksums(self.chunk * self.column.chunk_rows + self.filled, np.array(sums, np.uint32))}

    def finish_chunk(self, crc: int) -> None:
        """Keep the checksum of the current chunk, which is full and written, and start the next chunk."""
        self._sums.append(crc)
        self.chunk, self.filled = self.chunk + 1, 0

    def require_listed(self, chunk: int, crc: int) -> None:
        """Raise StoreDamaged unless a committed chunk has the checksum that the manifest lists."""
        if int(self._committed_sums[chunk]) != crc:
            raise StoreDamaged(
                f"{self.folder / self.column.chunk_key(chunk)} does not match its manifest", hint="run headwater verify"
            )

    def committed_chunk(self, chunk: int) -> bytes:
        """The bytes of a chunk's file without the checksum at its end, which is verified."""
        path = self.folder / self.column.chunk_key(chunk)
        data = path.read_bytes() if path.exists() else b""
        body, stored = data[:-CHECKSUM_BYTES], data[-CHECKSUM_BYTES:]
        whole = self.column.is_text or len(body) == self.column.chunk_bytes
        if not whole or checksum_bytes(crc32c(body)) != stored:
            raise StoreDamaged(f"{path} is missing or differs from its checksum", hint="run headwater verify")
        return body


class NumberTail(_Tail):
    """The unfinished chunk of a column of numbers: one preallocated array."""

    def __init__(self, column: Column, committed: CommittedArray) -> None:
        super().__init__(column, committed)
        self.buffer = np.empty((column.chunk_rows, *column.shape), column.dtype)
        if self.filled:
            old = np.frombuffer(self.committed_chunk(self.chunk), column.dtype).reshape(self.buffer.shape)
            self.buffer[: self.filled] = old[: self.filled]
            self.last_sum = crc32c(self.buffer[: self.filled])
            self.require_listed(self.chunk, self.last_sum)

    def last(self) -> Array:
        """The last row so far, committed or not."""
        if self.filled:
            return np.array(self.buffer[self.filled - 1])
        old = np.frombuffer(self.committed_chunk(self.chunk - 1), self.column.dtype)
        self.require_listed(self.chunk - 1, crc32c(old))
        return np.array(old.reshape(self.buffer.shape)[-1])

    def checked(self, values: Any) -> Array:
        """The values as an array whose rows have the declared shape; :meth:`append` converts them to the declared precision."""
        try:
            array = np.asarray(values)
        except ValueError as error:
            raise DataError(f"rows of {self.column.name} are not an array: {error}") from None
        name, declared = self.column.name, np.dtype(self.column.dtype)
        if array.ndim == 0 or (len(array) and array.shape[1:] != self.column.shape):
            raise DataError(f"rows of {name} have shape {array.shape[1:]}, declared {self.column.shape}")
        both_whole = array.dtype.kind in "iu" and declared.kind in "iu"
        if len(array) and not both_whole and not np.can_cast(array.dtype, declared, "same_kind"):
            raise DataError(f"rows of {name} are {array.dtype}, declared {declared}")
        return array

    def append(self, values: Array | list[str]) -> None:
        """Append values that :meth:`checked` returned."""
        taken = 0
        while taken < len(values):
            count = min(len(values) - taken, self.column.chunk_rows - self.filled)
            self.buffer[self.filled : self.filled + count] = values[taken : taken + count]
            self.filled, taken, self.dirty = self.filled + count, taken + count, True
            if self.filled == self.column.chunk_rows:
                self.flush()
                self.finish_chunk(self.last_sum)

    def flush(self) -> None:
        """Write the chunk's file: the rows so far, then zeros up to the chunk's size, which take no space in a sparse file."""
        if not self.dirty:
            return
        body = self.buffer[: self.filled].reshape(-1).view(np.uint8)
        self.last_sum, left = crc32c(body), self.column.chunk_bytes - body.nbytes
        crc = self.last_sum
        while left:
            crc = crc32c(_ZEROS[: min(left, len(_ZEROS))], crc)
            left -= min(left, len(_ZEROS))
        path = self.folder / self.column.chunk_key(self.chunk)
        write_file(path, [body.data, checksum_bytes(crc)], self.column.chunk_bytes + CHECKSUM_BYTES)
        self.dirty = False


class TextTail(_Tail):
    """The unfinished chunk of a column of text: a list of strings."""

    def __init__(self, column: Column, committed: CommittedArray) -> None:
        super().__init__(column, committed)
        self.values: list[str] = []
        if self.filled:
            self.values = list(VLenUTF8().decode(Zstd().decode(self.committed_chunk(self.chunk))))[: self.filled]
            self.last_sum = text_checksum(self.values)
            self.require_listed(self.chunk, self.last_sum)

    def checked(self, values: Any) -> list[str]:
        """The values as a list of strings, all of which UTF-8 can encode."""
        strings = [values] if isinstance(values, str) else list(values)
        for at, value in enumerate(strings):
            try:
                fits = isinstance(value, str) and value.encode() is not None and not isinstance(values, str)
            except UnicodeEncodeError:
                fits = False
            if not fits:
                raise DataError(f"row {at} of {self.column.name} is not text: {value!r:.60}")
        return strings

    def append(self, values: Array | list[str]) -> None:
        """Append values that :meth:`checked` returned."""
        for value in values:
            self.values.append(str(value))
            self.filled, self.dirty = self.filled + 1, True
            if self.filled == self.column.chunk_rows:
                self.flush()
                self.finish_chunk(self.last_sum)
                self.values = []

    def flush(self) -> None:
        """Write the chunk's file: the strings so far, then empty strings up to the chunk's number of rows."""
        if not self.dirty:
            return
        padded = np.array(self.values + [""] * (self.column.chunk_rows - len(self.values)), dtype=object)
        body = bytes(Zstd(level=3).encode(VLenUTF8().encode(padded)))
        crc = crc32c(body)
        write_file(self.folder / self.column.chunk_key(self.chunk), [body, checksum_bytes(crc)])
        self.last_sum = crc if self.filled == self.column.chunk_rows else text_checksum(self.values)
        self.dirty = False
