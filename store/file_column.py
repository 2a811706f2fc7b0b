"""Reads a column of plain chunk files straight into the caller's buffer. Knows nothing of what rows mean.

Checksums are computed by the thread that uses the rows, while these are still in its cache (20 GB/s per core), so that one thread
can read while others compute checksums.
"""

from __future__ import annotations

import errno
import math
import mmap
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from .checksums import Pieces, checksum_bytes, crc32c
from .columns import ColumnReader, by_chunk
from .errors import StoreDamaged
from .layout import CHECKSUM_BYTES, Array, Column

_PART = 1 << 20  # bytes that are checksummed at a time, and most bytes of one request for rows
_GAP = 1 << 14  # rows at most this many bytes apart are read in one request
_WHOLE_CHECK_BYTES = 1 << 20  # a chunk up to this size is read and verified whole before single rows are taken from it


class FileColumn(ColumnReader):
    """A column of plain chunk files in a folder."""

    def __init__(self, column: Column, rows: int, name: str, folder: Path, checksums: Array | None = None) -> None:
        super().__init__(column, rows, name, checksums)
        self.folder = folder
        self._checked: set[int] = set()  # chunks compared by `gather`
        self._last = threading.local()  # .open: the chunk that a thread loaded last, and its file
        self._pieces: dict[int, Pieces] = {}  # chunk number to the checksums of its parts
        self._lock = threading.Lock()

    @property
    def shared(self) -> bool:
        """Whether several threads may load at once: yes, each thread opens its own file."""
        return True

    def load(self, start: int, stop: int, out: Array) -> None:
        """See :meth:`ColumnReader.load`. The file of the chunk read last stays open, so that the system reads ahead in it."""
        size, done = self.column.chunk_rows, 0
        while start < stop:
            chunk, offset = divmod(start, size)
            count = min(stop - start, size - offset)
            opened, file = self._opened_last
            with self._errors_of(chunk):
                if chunk != opened:
                    self.close_file()
                    file = self._checked_size(chunk)
                    self._last.open = (chunk, file)
                _read_at(file, out[done : done + count], offset * self.column.row_bytes)
            start, done = start + count, done + count

    @property
    def _opened_last(self) -> tuple[int, int]:
        """This thread's open chunk and its file; (-1, -1) where there is none."""
        opened: tuple[int, int] = getattr(self._last, "open", (-1, -1))
        return opened

    def close_file(self) -> None:
        """See :meth:`ColumnReader.close_file`."""
        chunk, file = self._opened_last
        self._last.open = (-1, -1)
        if chunk >= 0:
            os.close(file)

    def __del__(self) -> None:
        if hasattr(self, "_last"):
            self.close_file()

    def confirm(self, start: int, rows: Array) -> None:
        """See :meth:`ColumnReader.confirm`."""
        size, width, done = self.column.chunk_rows, self.column.row_bytes, 0
        while done < len(rows):
            chunk, offset = divmod(start + done, size)
            count = min(len(rows) - done, size - offset)
            part = crc32c(rows[done : done + count])
            with self._lock:
                pieces = self._pieces.get(chunk) or self._pieces.setdefault(chunk, Pieces(self._row_bytes(chunk)))
                crc = pieces.add(offset * width, count * width, part)
                if crc is not None:
                    del self._pieces[chunk]
            if crc is not None:
                with self._opened(chunk) as file:
                    self._compare(file, chunk, crc)
            done += count

    def gather(self, rows: Sequence[int] | Array) -> Array:
        """See :meth:`ColumnReader.gather`. Rows that lie close together are read in one request.

        A chunk of at most 1 MiB is checked before its first row is taken. Of a larger full chunk, only the checksum at its end is
        compared with the manifest's: this shows that it is the chunk that was written there, not that its bytes are undamaged.
        """
        asked = self.asked_rows(rows)
        out = np.empty((len(asked), *self.column.shape), self.column.dtype)
        order = np.argsort(asked, kind="stable")
        for places in by_chunk(order, asked[order] // self.column.chunk_rows):
            chunk = int(asked[places[0]]) // self.column.chunk_rows
            with self._opened(chunk) as file:
                if chunk not in self._checked:
                    self._verify_for_gather(file, chunk)
                    self._checked.add(chunk)
                self._gather_from(file, asked[places] - chunk * self.column.chunk_rows, places, out)
        return out

    def _gather_from(self, file: int, offsets: Array, places: Array, out: Array) -> None:
        """out[places] = rows of a chunk by ascending offsets. One request reads rows with gaps of at most `_GAP` bytes between
        them, and at most `_PART` bytes.
        """
        width = self.column.row_bytes
        room, gap = max(1, _PART // max(1, width)), _GAP // max(1, width) + 1
        ends = [*(np.flatnonzero(np.diff(offsets) > gap) + 1).tolist(), len(offsets)]
        begun, run = 0, 0
        while begun < len(offsets):
            run += begun >= ends[run]
            end = min(ends[run], begun + int(np.searchsorted(offsets[begun : ends[run]], offsets[begun] + room)))
            if end == begun + 1:
                at = int(places[begun])
                _read_at(file, out[at : at + 1], int(offsets[begun]) * width)
            else:
                first, last = int(offsets[begun]), int(offsets[end - 1]) + 1
                span = np.empty((last - first, *self.column.shape), self.column.dtype)
                _read_at(file, span, first * width)
                out[places[begun:end]] = span[offsets[begun:end] - first]
            begun = end

    def mapped(self, chunk: int) -> Array:
        """A chunk's rows (chunk_rows, *row shape), mapped from its file, read only. Nothing is checked but the file's size."""
        with self._opened(chunk) as file:
            shape = (self.column.chunk_rows, *self.column.shape)
            handle = mmap.mmap(file, self.column.chunk_bytes, prot=mmap.PROT_READ)
        return np.frombuffer(handle, self.column.dtype, math.prod(shape)).reshape(shape)

    def checksum(self, chunk: int) -> int:
        """See :meth:`ColumnReader.checksum`. The whole file is read, with its padding."""
        with self._opened(chunk) as file:
            crc = self._sum_rows(file, chunk)
            self._require_whole(file, chunk, crc)
        return crc

    def _verify_for_gather(self, file: int, chunk: int) -> None:
        """Verify a chunk before single rows are taken from it; of a large full one, only the checksum at its end."""
        if self.column.chunk_bytes <= _WHOLE_CHECK_BYTES:
            self._compare(file, chunk, self._sum_rows(file, chunk))
        elif self.listed(chunk) is not None and not self.is_full(chunk):
            self.require_listed(chunk, self._sum_rows(file, chunk))
        elif self.listed(chunk) is not None:
            stored = os.pread(file, CHECKSUM_BYTES, self.column.chunk_bytes)
            self.require_listed(chunk, int.from_bytes(stored, "little"))

    @contextmanager
    def _opened(self, chunk: int) -> Iterator[int]:
        """A chunk's file, of the right size."""
        with self._errors_of(chunk):
            file = self._checked_size(chunk)
            try:
                yield file
            finally:
                os.close(file)

    def _checked_size(self, chunk: int) -> int:
        """Open a chunk's file, after a check that it has the right size; StoreDamaged if not."""
        file = os.open(self.folder / self.column.chunk_key(chunk), os.O_RDONLY)
        size, expected = os.fstat(file).st_size, self.column.chunk_bytes + CHECKSUM_BYTES
        if size != expected:
            os.close(file)
            raise self.damage_error(chunk, f"has {size} bytes, not {expected}")
        return file

    @contextmanager
    def _errors_of(self, chunk: int) -> Iterator[None]:
        """Turn errors of the operating system into StoreDamaged."""
        try:
            yield
        except StoreDamaged:
            raise
        except FileNotFoundError:
            raise self.damage_error(chunk, "is missing") from None
        except OSError as error:
            raise self.damage_error(chunk, f"cannot be read ({error.strerror})") from error

    def _compare(self, file: int, chunk: int, crc: int) -> None:
        """Compare a chunk with its own checksum and the manifest's; `crc` is the checksum of its committed rows."""
        self._require_whole(file, chunk, crc)
        self.require_listed(chunk, crc)

    def _require_whole(self, file: int, chunk: int, crc: int) -> None:
        """Continue the checksum `crc` of a chunk's committed rows to the chunk's end, and compare it with the stored one."""
        size = self.column.chunk_bytes
        crc = self._summed(file, self._row_bytes(chunk), size, crc)
        if os.pread(file, CHECKSUM_BYTES, size) != checksum_bytes(crc):
            raise self.damage_error(chunk, "differs from its checksum")

    def _sum_rows(self, file: int, chunk: int) -> int:
        """The checksum of a chunk's committed rows."""
        return self._summed(file, 0, self._row_bytes(chunk), 0)

    def _row_bytes(self, chunk: int) -> int:
        """Bytes of a chunk's committed rows."""
        first, end = self.column.rows_of(chunk, self.rows)
        return (end - first) * self.column.row_bytes

    def _summed(self, file: int, position: int, end: int, crc: int) -> int:
        """The checksum of a file's bytes up to `end`, given `crc`, the one up to `position`."""
        buffer = np.empty(min(_PART, end - position), np.uint8)
        while position < end:
            part = buffer[: end - position]
            _read_at(file, part, position)
            crc, position = crc32c(part, crc), position + len(part)
        return crc


def _read_at(file: int, out: Array, position: int) -> None:
    """Fill a contiguous array with a file's bytes from `position`."""
    view = out.reshape(-1, copy=False).view(np.uint8).data
    while len(view):
        got = os.preadv(file, [view], position)
        if not got:
            raise OSError(errno.EIO, "it ends too early")
        view, position = view[got:], position + got
