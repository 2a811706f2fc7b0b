"""Reads committed rows of one column: a range into a buffer, or single rows gathered. Knows nothing of what rows mean.

Plain chunk files are read straight into the caller's buffer. Their checksums are taken by whoever uses the rows, while these
are still in its cache (20 GB/s a core), so that one thread's reading and others' summing run beside each other. Every other
codec, and every remote store, goes through zarr itself (`zarr_column.py`).
"""

from __future__ import annotations

import errno
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from .checksums import Pieces, checksum_bytes, crc32c
from .errors import DataError, StoreDamaged
from .layout import CHECKSUM_BYTES, Array, Column, Damage

_PART = 1 << 20  # bytes of a chunk's padding summed at a time
_GAP = 1 << 14  # bytes between two rows that are read through, rather than asked for apart
_CHECKED = 1 << 20  # largest chunk that is read whole for the sake of some rows


class ColumnReader(ABC):
    """Rows of one column."""

    def __init__(self, column: Column, rows: int, name: str) -> None:
        """`name` is the array's path below the root, for messages."""
        self.column, self.rows, self.name = column, rows, name

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

    @abstractmethod
    def check(self, chunk: int) -> None:
        """Raise StoreDamaged unless a chunk is whole."""

    def fault(self, chunk: int) -> Damage | None:
        """What is wrong with a chunk, if anything."""
        try:
            self.check(chunk)
        except StoreDamaged as error:
            return self.damage(chunk, error.why)
        return None

    def damage(self, chunk: int, why: str) -> Damage:
        """A name for one bad chunk."""
        first, end = self.column.rows_of(chunk, self.rows)
        return Damage(self.name, chunk, first, end - 1, why)

    def damaged(self, chunk: int, why: str) -> StoreDamaged:
        """The error for one bad chunk."""
        error = StoreDamaged(f"{self.damage(chunk, why)}: run headwater verify")
        error.why = why
        return error

    def _wanted(self, rows: Sequence[int] | Array) -> Array:
        wanted = np.asarray(rows, dtype=np.int64)
        outside = wanted[(wanted < 0) | (wanted >= self.rows)]
        if len(outside):
            raise DataError(f"{self.name} has rows 0 to {self.rows - 1}; asked for {outside[:5].tolist()}")
        return wanted


class FileColumn(ColumnReader):
    """A column of plain chunk files in a folder."""

    def __init__(self, column: Column, rows: int, name: str, folder: Path) -> None:
        super().__init__(column, rows, name)
        self.folder = folder
        self._checked: set[int] = set()  # chunks compared by `gather`
        self._last = threading.local()  # .open: the chunk that a thread loaded last, and its file
        self._pieces: dict[int, Pieces] = {}  # chunk to what of it is summed
        self._lock = threading.Lock()

    @property
    def shared(self) -> bool:
        """Yes: each thread has a file open of its own."""
        return True

    def load(self, start: int, stop: int, out: Array) -> None:
        """As promised. The last chunk's file stays open: the system reads ahead by open file."""
        size, done = self.column.chunk_rows, 0
        while start < stop:
            chunk, offset = divmod(start, size)
            count = min(stop - start, size - offset)
            opened, file = self._opened_last
            with self._errors_of(chunk):
                if chunk != opened:
                    self.rest()
                    file = self._checked_size(chunk)
                    self._last.open = (chunk, file)
                _read_at(file, out[done : done + count], offset * self.column.row_bytes)
            start, done = start + count, done + count

    @property
    def _opened_last(self) -> tuple[int, int]:
        """This thread's open chunk and its file; (-1, -1) where there is none."""
        found: tuple[int, int] = getattr(self._last, "open", (-1, -1))
        return found

    def rest(self) -> None:
        """As promised."""
        chunk, file = self._opened_last
        self._last.open = (-1, -1)
        if chunk >= 0:
            os.close(file)

    def __del__(self) -> None:
        if hasattr(self, "_last"):
            self.rest()

    def confirm(self, start: int, rows: Array) -> None:
        """As promised."""
        size, width, done = self.column.chunk_rows, self.column.row_bytes, 0
        while done < len(rows):
            chunk, offset = divmod(start + done, size)
            count = min(len(rows) - done, size - offset)
            part = crc32c(rows[done : done + count])
            first, end = self.column.rows_of(chunk, self.rows)
            with self._lock:
                pieces = self._pieces.get(chunk) or self._pieces.setdefault(chunk, Pieces((end - first) * width))
                crc = pieces.add(offset * width, count * width, part)
                if crc is not None:
                    del self._pieces[chunk]
            if crc is not None:
                with self._opened(chunk) as file:
                    self._compare(file, chunk, (end - first) * width, crc)
            done += count

    def gather(self, rows: Sequence[int] | Array) -> Array:
        """As promised; rows that lie close together are read at once. A chunk of at most 1 MiB is checked before its first
        row is taken.
        """
        wanted = self._wanted(rows)
        out = np.empty((len(wanted), *self.column.shape), self.column.dtype)
        order = np.argsort(wanted, kind="stable")
        for places in by_chunk(order, wanted[order] // self.column.chunk_rows):
            chunk = int(wanted[places[0]]) // self.column.chunk_rows
            with self._opened(chunk) as file:
                if self.column.chunk_bytes <= _CHECKED and chunk not in self._checked:
                    self._compare(file, chunk, 0, 0)
                    self._checked.add(chunk)
                self._gather_from(file, wanted[places] - chunk * self.column.chunk_rows, places, out)
        return out

    def _gather_from(self, file: int, offsets: Array, places: Array, out: Array) -> None:
        """out[places] = rows of a chunk by ascending offsets, in runs without a gap of `_GAP` bytes, `_PART` at most."""
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

    def check(self, chunk: int) -> None:
        """As promised; the whole file is read, padding too."""
        with self._opened(chunk) as file:
            self._compare(file, chunk, 0, 0)

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
        """A chunk's file, opened; not one of another size."""
        file = os.open(self.folder / self.column.chunk_key(chunk), os.O_RDONLY)
        found, expected = os.fstat(file).st_size, self.column.chunk_bytes + CHECKSUM_BYTES
        if found != expected:
            os.close(file)
            raise self.damaged(chunk, f"has {found} bytes, not {expected}")
        return file

    @contextmanager
    def _errors_of(self, chunk: int) -> Iterator[None]:
        """Turn what the operating system says of a chunk's file into damage."""
        try:
            yield
        except StoreDamaged:
            raise
        except FileNotFoundError:
            raise self.damaged(chunk, "is missing") from None
        except OSError as error:
            raise self.damaged(chunk, f"cannot be read ({error.strerror})") from error

    def _compare(self, file: int, chunk: int, position: int, crc: int) -> None:
        """Sum the rest of a chunk from `position`, where the sum is `crc`, and compare it with the stored one."""
        buffer = np.empty(min(_PART, self.column.chunk_bytes - position), np.uint8)
        while position < self.column.chunk_bytes:
            part = buffer[: self.column.chunk_bytes - position]
            _read_at(file, part, position)
            crc, position = crc32c(part, crc), position + len(part)
        if os.pread(file, CHECKSUM_BYTES, position) != checksum_bytes(crc):
            raise self.damaged(chunk, "differs from its checksum")


def _read_at(file: int, out: Array, position: int) -> None:
    """Fill a contiguous array with a file's bytes from `position`."""
    view = out.reshape(-1, copy=False).view(np.uint8).data
    while len(view):
        got = os.preadv(file, [view], position)
        if not got:
            raise OSError(errno.EIO, "it ends too early")
        view, position = view[got:], position + got


def by_chunk(items: Array, chunks: Array) -> list[Array]:
    """`items` cut where `chunks`, which ascends beside them, changes."""
    return [part for part in np.split(items, np.flatnonzero(np.diff(chunks)) + 1) if len(part)]
