"""Committed rows of one column, read: a range into a buffer, or single rows gathered. Knows nothing of what rows mean.

Plain chunk files are read straight into the caller's buffer. Their checksums are taken by whoever uses the rows, while these
are still in its cache (20 GB/s a core), so that one thread's reading and others' summing run beside each other. Every other
codec, and every remote store, goes through zarr itself.
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

from .checksums import checksum_bytes, crc32c, joined
from .errors import DataError, StoreDamaged
from .layout import CHECKSUM_BYTES, Array, Column, Damage

_PART = 1 << 20  # bytes of a chunk's padding summed at a time
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
        self._pieces: dict[int, list[tuple[int, int, int]]] = {}  # chunk to what of it is summed
        self._lock = threading.Lock()

    def load(self, start: int, stop: int, out: Array) -> None:
        """As promised."""
        size, done = self.column.chunk_rows, 0
        while start < stop:
            chunk, offset = divmod(start, size)
            count = min(stop - start, size - offset)
            with self._opened(chunk) as file:
                _read_at(file, out[done : done + count], offset * self.column.row_bytes)
            start, done = start + count, done + count

    def confirm(self, start: int, rows: Array) -> None:
        """As promised."""
        size, done = self.column.chunk_rows, 0
        while done < len(rows):
            chunk, offset = divmod(start + done, size)
            count = min(len(rows) - done, size - offset)
            piece = (offset, count, crc32c(rows[done : done + count]))
            with self._lock:
                crc = self._joined(chunk, piece)
            if crc is not None:
                first, end = self.column.rows_of(chunk, self.rows)
                with self._opened(chunk) as file:
                    self._compare(file, chunk, (end - first) * self.column.row_bytes, crc)
            done += count

    def _joined(self, chunk: int, piece: tuple[int, int, int]) -> int | None:
        """Add a piece (offset, rows, sum) to its chunk's; the sum of all rows of the chunk if none is missing now."""
        (first, end), (offset, count, _) = self.column.rows_of(chunk, self.rows), piece
        before = self._pieces.pop(chunk, [])  # what overlaps is of an earlier scan, which was left
        pieces = [*(p for p in before if p[0] + p[1] <= offset or offset + count <= p[0]), piece]
        whole = sorted(pieces)[:1]
        for at, rows, part in sorted(pieces)[1:]:  # neighbours become one, so that there are about as many as threads
            start, held, crc = whole[-1]
            if start + held == at:
                whole[-1] = (start, held + rows, joined(crc, part, rows * self.column.row_bytes))
            else:
                whole.append((at, rows, part))
        if whole[0][:2] == (0, end - first):
            return whole[0][2]
        self._pieces[chunk] = whole
        return None

    def gather(self, rows: Sequence[int] | Array) -> Array:
        """As promised; one positioned read a row. A chunk of at most 1 MiB is checked before its first row is taken."""
        wanted = self._wanted(rows)
        out = np.empty((len(wanted), *self.column.shape), self.column.dtype)
        order = np.argsort(wanted, kind="stable")
        for places in _by_chunk(order, wanted[order] // self.column.chunk_rows):
            chunk = int(wanted[places[0]]) // self.column.chunk_rows
            with self._opened(chunk) as file:
                if self.column.chunk_bytes <= _CHECKED and chunk not in self._checked:
                    self._compare(file, chunk, 0, 0)
                    self._checked.add(chunk)
                for at in places:
                    offset = int(wanted[at]) % self.column.chunk_rows
                    _read_at(file, out[at : at + 1], offset * self.column.row_bytes)
        return out

    def check(self, chunk: int) -> None:
        """As promised; the whole file is read, padding too."""
        with self._opened(chunk) as file:
            self._compare(file, chunk, 0, 0)

    @contextmanager
    def _opened(self, chunk: int) -> Iterator[int]:
        """A chunk's file, of the right size."""
        try:
            file = os.open(self.folder / self.column.chunk_key(chunk), os.O_RDONLY)
            try:
                found, expected = os.fstat(file).st_size, self.column.chunk_bytes + CHECKSUM_BYTES
                if found != expected:
                    raise self.damaged(chunk, f"has {found} bytes, not {expected}")
                yield file
            finally:
                os.close(file)
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


def _by_chunk(items: Array, chunks: Array) -> list[Array]:
    """`items` cut where `chunks`, which ascends beside them, changes."""
    return [part for part in np.split(items, np.flatnonzero(np.diff(chunks)) + 1) if len(part)]


class ZarrColumn(ColumnReader):
    """A column read through zarr: text, compressed or remote chunks."""

    def __init__(self, column: Column, rows: int, name: str, url: str, *, own: bool) -> None:
        """`own`: stored as headwater stores it, so that every chunk has a file; zarr takes a missing one for zeros."""
        super().__init__(column, rows, name)
        import zarr

        try:
            self._array = zarr.open_array(url, mode="r")
        except Exception as error:  # a codec that is not installed, metadata that zarr does not take
            raise StoreDamaged(f"{url} cannot be opened: {' '.join(str(error).split()) or repr(error)}") from None
        self._own, self._present = own, -1
        self._chunk, self._rows = -1, np.empty(0)

    @property
    def scratch_bytes(self) -> int:
        """A chunk encoded, decoded, and as zarr hands it on; measured at 5.8 to 6.5 chunks, which varies."""
        return 8 * self.column.chunk_bytes

    def load(self, start: int, stop: int, out: Array) -> None:
        """As promised; codecs that carry a checksum compare it. The last chunk is kept for the next read."""
        size, first = self.column.chunk_rows, start
        while start < stop:
            chunk = start // size
            if chunk != self._chunk:
                begin, end = self.column.rows_of(chunk, self.rows)
                self._chunk, self._rows = -1, np.empty(0)  # let the old one go before the new one comes
                self._chunk, self._rows = chunk, self._slice(begin, end)
            upto = min(stop, (chunk + 1) * size)
            out[start - first : upto - first] = self._rows[start - chunk * size : upto - chunk * size]
            start = upto

    def gather(self, rows: Sequence[int] | Array) -> Array:
        """As promised; every chunk touched is decoded once."""
        wanted = self._wanted(rows)
        unique, back = np.unique(wanted, return_inverse=True)
        parts = [np.empty((0, *self.column.shape), self._array.dtype)]
        for run in _by_chunk(unique, unique // self.column.chunk_rows):
            parts.append(self._slice(int(run[0]), int(run[-1]) + 1)[run - run[0]])
        found: Array = np.concatenate(parts)[back]
        return found

    def check(self, chunk: int) -> None:
        """As promised, by decoding it; without a checksum among the codecs, only what cannot be decoded is found."""
        first, end = self.column.rows_of(chunk, self.rows)
        try:
            self._require(chunk)
            _ = self._array[first:end]
        except StoreDamaged:
            raise
        except Exception as error:  # codecs raise anything on bytes that they did not write
            raise self.damaged(chunk, f"cannot be decoded ({' '.join(str(error).split())})") from None

    def _slice(self, start: int, stop: int) -> Array:
        chunks = range(start // self.column.chunk_rows, -(-stop // self.column.chunk_rows))
        try:
            for chunk in chunks:
                self._require(chunk)
            return np.asarray(self._array[start:stop])
        except StoreDamaged:
            raise
        except Exception:
            for chunk in chunks:
                self.check(chunk)  # says which one it is
            raise

    def _require(self, chunk: int) -> None:
        from zarr.core.sync import sync

        if self._own and chunk != self._present:
            if not sync((self._array.store_path / self.column.chunk_key(chunk)).exists()):
                raise self.damaged(chunk, "is missing")
            self._present = chunk
