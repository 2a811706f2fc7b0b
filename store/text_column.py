"""Reads a column of text from local chunk files, without holding a chunk: only the strings that are asked for.

A chunk is one zstd frame of strings, each preceded by its length. A large one is decompressed in pieces, of which those between
the asked strings are dropped. Knows nothing of what rows mean.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import IO, cast

import numpy as np

from .checksums import checksum_bytes, crc32c
from .chunk_manifest import text_checksum
from .columns import ColumnReader, by_chunk
from .errors import StoreDamaged
from .layout import CHECKSUM_BYTES, Array, Column

TEXT_READING_BYTES = 4 << 20
"""Memory of reading a chunk, besides the strings: its bytes if both forms have at most `_WHOLE_BYTES`, or else zstd's window (2
MiB at the level that headwater writes) and buffers.
"""
_WHOLE_BYTES = 1 << 19  # a chunk up to this size is decompressed at once, which is faster
_PART = 1 << 18  # bytes of a request
_LENGTH = 4  # bytes of a string's length, and of the number of strings before the first


class TextColumn(ColumnReader):
    """A column of text in chunk files in a folder, as headwater writes them."""

    def __init__(self, column: Column, rows: int, name: str, folder: Path, checksums: Array | None = None) -> None:
        super().__init__(column, rows, name, checksums)
        self.folder = folder

    @property
    def scratch_bytes(self) -> int:
        """See :meth:`ColumnReader.scratch_bytes`."""
        strings = 8 * self.longest_bound + 100 * self.column.chunk_rows  # of a chunk that is read whole
        return min(TEXT_READING_BYTES, strings)

    def load(self, start: int, stop: int, out: Array) -> None:
        """See :meth:`ColumnReader.load`."""
        out[:] = self.gather(range(start, stop))

    def gather(self, rows: Sequence[int] | Array) -> Array:
        """See :meth:`ColumnReader.gather`: an array of `str`. A chunk is compared with its checksums before it is read."""
        read = self.gather_within(rows, None)
        assert read is not None
        return read[0]

    def gather_within(self, rows: Sequence[int] | Array, limit: int | None) -> tuple[Array, int] | None:
        """The same, and the bytes of UTF-8 of the named rows in all; None, without having read more, if these exceed `limit`.

        Raises:
            DataError: a row that is not committed. StoreDamaged: a chunk is not what was written.
        """
        unique, indices = np.unique(self.asked_rows(rows), return_inverse=True)
        strings, total = np.empty(len(unique), object), 0
        counts = np.bincount(indices, minlength=len(unique)).tolist()
        for places in by_chunk(np.arange(len(unique)), unique // self.column.chunk_rows):
            chunk = int(unique[places[0]]) // self.column.chunk_rows
            with self._strings(chunk) as opened:
                for place in places.tolist():
                    size = opened.seek(int(unique[place]) - chunk * self.column.chunk_rows)
                    total += size * counts[place]
                    if limit is not None and total > limit:
                        return None
                    strings[place] = opened.take()
        return strings[indices], total

    @cached_property
    def longest(self) -> int:
        """Bytes of UTF-8 of the longest string: all chunks are decompressed."""
        sizes = (self._sizes(chunk) for chunk in range(-(-self.rows // self.column.chunk_rows)))
        return max((max(chunk_sizes, default=0) for chunk_sizes in sizes), default=0)

    @cached_property
    def longest_bound(self) -> int:
        """An upper bound of :attr:`longest`: the bytes of the largest chunk."""
        return max(self.chunk_sizes, default=0)

    @cached_property
    def chunk_sizes(self) -> list[int]:
        """Bytes of each chunk's strings and their lengths, as the first bytes of its file say."""
        return [self._decompressed_bytes(chunk) for chunk in range(-(-self.rows // self.column.chunk_rows))]

    def _sizes(self, chunk: int) -> list[int]:
        first, end = self.column.rows_of(chunk, self.rows)
        with self._strings(chunk) as opened:
            return [opened.seek(row) for row in range(end - first)]

    def _decompressed_bytes(self, chunk: int) -> int:
        with self._file(chunk) as file:
            size = _content_size(os.pread(file, 18, 0))
        if size is not None:
            return size
        return sum(size + _LENGTH for size in self._sizes(chunk))

    def checksum(self, chunk: int) -> int:
        """See :meth:`ColumnReader.checksum`. That of an unfinished chunk is computed from its strings."""
        with self._file(chunk) as file:
            crc = self._own_checksum(file, chunk)
        if self.is_full(chunk):
            return crc
        first, end = self.column.rows_of(chunk, self.rows)
        with self._decompressed(chunk) as opened:
            return opened.checksum(end - first)

    @contextmanager
    def _strings(self, chunk: int) -> Iterator[_Strings | _StreamedStrings]:
        """The strings of a chunk that is the one that was written."""
        with self._file(chunk) as file:
            own = self._own_checksum(file, chunk)
        if self.listed(chunk) is not None and self.is_full(chunk):
            self.require_listed(chunk, own)
        elif self.listed(chunk) is not None:
            self.check(chunk)
        with self._decompressed(chunk) as opened:
            yield opened

    @contextmanager
    def _decompressed(self, chunk: int) -> Iterator[_Strings | _StreamedStrings]:
        """The strings of a chunk, of which its own checksum alone was compared."""
        with self._file(chunk) as file:
            body = os.fstat(file).st_size - CHECKSUM_BYTES
            size = _content_size(os.pread(file, 18, 0))
            try:
                if size is not None and max(size, body) <= _WHOLE_BYTES:
                    yield _Strings(os.pread(file, body, 0))
                else:
                    yield _StreamedStrings(_decompressing(file, body))
            except (EOFError, OSError, ValueError, RuntimeError) as error:
                if isinstance(error, StoreDamaged):
                    raise
                raise self.damage_error(chunk, f"cannot be decoded ({' '.join(str(error).split())})") from None

    @contextmanager
    def _file(self, chunk: int) -> Iterator[int]:
        try:
            file = os.open(self.folder / self.column.chunk_key(chunk), os.O_RDONLY)
        except FileNotFoundError:
            raise self.damage_error(chunk, "is missing") from None
        except OSError as error:
            raise self.damage_error(chunk, f"cannot be read ({error.strerror})") from None
        try:
            yield file
        finally:
            os.close(file)

    def _own_checksum(self, file: int, chunk: int) -> int:
        """The checksum at the end of a chunk's file, which is compared with the bytes before it."""
        try:
            at, end, crc = 0, os.fstat(file).st_size - CHECKSUM_BYTES, 0
            while at < end and (part := os.pread(file, min(_PART, end - at), at)):
                crc, at = crc32c(part, crc), at + len(part)
            stored = os.pread(file, CHECKSUM_BYTES, max(0, end))
        except OSError as error:
            raise self.damage_error(chunk, f"cannot be read ({error.strerror})") from None
        if stored != checksum_bytes(crc):
            raise self.damage_error(chunk, "differs from its checksum")
        return crc


class _Strings:
    """The strings of one chunk, all in memory."""

    def __init__(self, body: bytes) -> None:
        from numcodecs import VLenUTF8, Zstd

        self._strings, self._at = VLenUTF8().decode(Zstd().decode(body)), 0

    def seek(self, number: int) -> int:
        """Go to a string; returns its size in bytes."""
        if number >= len(self._strings):
            raise EOFError(f"it has {len(self._strings)} strings")
        self._at = number
        return len(self.take().encode())

    def take(self) -> str:
        """The string that :meth:`seek` went to."""
        return str(self._strings[self._at])

    def checksum(self, count: int) -> int:
        """See `text_checksum`, of the first strings."""
        return text_checksum(self._strings[:count])


class _StreamedStrings:
    """The strings of one chunk, read forwards."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._count, self._next, self._size = int.from_bytes(self._read(_LENGTH), "little"), 0, 0

    def seek(self, number: int) -> int:
        """Go on to a string, at or behind the next one; returns its size in bytes."""
        while True:
            self._skip(self._size)
            if self._next >= self._count:
                raise EOFError(f"it has {self._count} strings")
            self._size, self._next = int.from_bytes(self._read(_LENGTH), "little"), self._next + 1
            if self._next > number:
                return self._size

    def take(self) -> str:
        """The string that :meth:`seek` went to; once."""
        size, self._size = self._size, 0
        return str(self._read(size), "utf-8")

    def checksum(self, count: int) -> int:
        """CRC32C of the first strings, each preceded by its length (see `text_checksum`); nothing was read before."""
        crc = 0
        for number in range(count):
            size = self.seek(number)
            crc = crc32c(size.to_bytes(_LENGTH, "little"), crc)
            while self._size:
                part = self._read(min(self._size, _PART))
                crc, self._size = crc32c(part, crc), self._size - len(part)
        return crc

    def _skip(self, size: int) -> None:
        while size:
            size -= len(self._read(min(size, _PART)))

    def _read(self, size: int) -> bytes:
        data = self._file.read(size)
        if len(data) < size:
            raise EOFError("it ends too early")
        return data


class _Body(io.RawIOBase):
    """The first bytes of an open file."""

    def __init__(self, file: int, size: int) -> None:
        self._descriptor, self._at, self._end = file, 0, size

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = os.pread(self._descriptor, min(_PART if size < 0 else size, self._end - self._at), self._at)
        self._at += len(data)
        return data


def _decompressing(file: int, size: int) -> IO[bytes]:
    """A file of the decompressed bytes, which are computed as they are read."""
    import pyarrow as pa

    stream = pa.CompressedInputStream(pa.PythonFile(_Body(file, size), mode="r"), "zstd")
    return cast(IO[bytes], io.BufferedReader(stream, _PART))


def _content_size(frame: bytes) -> int | None:
    """The size of a zstd frame's content, as its header says (RFC 8878, section 3.1.1.1); None if it does not say."""
    if len(frame) < 5 or frame[:4] != b"\x28\xb5\x2f\xfd":
        return None
    descriptor = frame[4]
    single, kind = descriptor >> 5 & 1, descriptor >> 6
    size = (single, 2, 4, 8)[kind]
    at = 5 + (not single) + (0, 1, 2, 4)[descriptor & 3]
    if not size or len(frame) < at + size:
        return None
    return int.from_bytes(frame[at : at + size], "little") + (256 if size == 2 else 0)
