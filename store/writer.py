"""Appends rows to a group: who owns which chunks, what is committed, where to continue after a crash.

A writer owns a range of rows that no other writer's chunks touch, held by a lock that dies with it. Rows fill chunk
buffers; a full chunk becomes a file at once. A commit writes the unfinished last chunks too, then the arrays' shapes, then
the root: only that last step makes rows visible. So a crash costs what came after the last commit and nothing else, and
writing the same rows again gives the same bytes. Knows nothing of what rows mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numcodecs import VLenUTF8, Zstd

from .checksums import checksum_bytes, crc32c
from .errors import DataError, StoreDamaged, StoreError, StoreMismatch
from .feature_store import ROOT, FeatureStore
from .files import RangeLock, write_file, write_json
from .layout import CHECKSUM_BYTES, Array, Column, array_metadata, column_from, is_own
from .manifest import StoreRecord

Rows = Mapping[str, Array | Sequence[str]]
Ranges = tuple[tuple[int, int], ...]
_ZEROS = np.zeros(1 << 20, dtype=np.uint8)


class GroupWriter:
    """Writes rows [start, stop) of one group, in order."""

    def __init__(self, store: FeatureStore, group: str, start: int | None = None, stop: int | None = None) -> None:
        """Own the rows from `start` (default: the committed ones' end) to `stop` (default: no end).

        Where some of them are committed already, the writer goes on behind those: see `rows`, the next row to append.

        Raises:
            StoreBusy: another writer owns some of these chunks.
            DataError: `start` or `stop` cuts a chunk that another writer could own.
            StoreMismatch: the arrays were stored anew by somebody else, in another form.
        """
        store.require_local()
        self.store, self.group, self.stop = store, group, stop
        columns = store.columns(group)
        unit = max(column.chunk_rows for column in columns)
        if (start or 0) % unit or (stop or 0) % unit:
            raise DataError(f"rows {start} to {stop} of {group} cut a chunk: owners meet at multiples of {unit} rows")
        self.start = self.rows = store.rows(group) if start is None else start
        if self.start < 0 or (stop is not None and (stop == 0 or stop < self.start)):
            raise DataError(f"rows {self.start} to {stop} of {group} are none that a writer could own")
        first = self.start // unit if stop is None else min(self.start, stop - 1) // unit
        lock = store.path / store.folder(group, columns[0].name) / ".writers"
        self._lock = RangeLock(lock, first, 0 if stop is None else stop // unit - first)
        self._open = True
        try:
            store.update(self._claim)
            self._tails = [_tail(store, group, column, self.start) for column in columns]
        except BaseException:
            self.close()
            raise

    def _claim(self, root: StoreRecord) -> StoreRecord:
        """Go on behind what is committed; forget ranges further on, for their chunks are about to be written again."""
        record = root.groups[self.group]
        for first, end in record.done:
            if first <= self.start <= end:
                self.start = end if self.stop is None else min(end, self.stop)
        self.rows = self.start
        return root.with_group(self.group, replace(record, done=self._done(record.done)))

    def _done(self, before: Ranges) -> Ranges:
        """Committed ranges: those of others as they were, and this writer's own rows so far."""
        below = [(first, min(end, self.start)) for first, end in before]
        above = [] if self.stop is None else [(max(first, self.stop), end) for first, end in before]
        return _merged([*below, *above, (self.start, self.rows)])

    def append(self, rows: Rows) -> None:
        """Take the next rows: for each column (rows, *row shape), or strings.

        Raises:
            DataError: a column is missing, or has another shape or length.
            StoreFull: no room left; the rows since the last commit are lost, and the writer is closed.
        """
        self._require_open()
        missing = [tail.column.name for tail in self._tails if tail.column.name not in rows]
        if missing:
            raise DataError(f"rows for {self.group} lack the columns {missing}")
        values = [tail.checked(rows[tail.column.name]) for tail in self._tails]
        count = len(values[0])
        if any(len(part) != count for part in values):
            lengths = {tail.column.name: len(part) for tail, part in zip(self._tails, values, strict=True)}
            raise DataError(f"rows for {self.group} have columns of different lengths: {lengths}")
        if self.stop is not None and self.rows + count > self.stop:
            raise DataError(f"rows past {self.stop}, the end of what this writer of {self.group} owns")
        try:
            for tail, part in zip(self._tails, values, strict=True):
                tail.append(part)
        except BaseException:
            self.close()  # some columns have rows that others lack
            raise
        self.rows += count

    def commit(self, **notes: Any) -> None:
        """Make every row so far visible and durable, and keep `notes` in the group's record.

        Raises:
            StoreFull: no room left; make some and commit again, or write the rows again.
        """
        self._require_open()
        for tail in self._tails:
            tail.flush()

        def change(root: StoreRecord) -> StoreRecord:
            before = root.groups[self.group]
            record = replace(before, done=self._done(before.done)).noted(**notes)
            for tail in self._tails:
                tail.describe(record.rows)
            return root.with_group(self.group, record)

        self.store.update(change)

    def close(self) -> None:
        """Give the chunks back; rows since the last commit are dropped."""
        self._open = False
        self._lock.close()

    def _require_open(self) -> None:
        if not self._open:
            raise StoreError(f"this writer of {self.group} is closed")

    def __enter__(self) -> GroupWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _merged(ranges: list[tuple[int, int]]) -> Ranges:
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(ranges):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], stop))
        elif stop > start:
            merged.append((start, stop))
    return tuple(merged)


def _tail(store: FeatureStore, group: str, column: Column, row: int) -> _NumberTail | _TextTail:
    metadata = store.array_metadata(group, column.name)
    if not is_own(metadata) or column_from(column.name, metadata) != column:
        raise StoreMismatch(f"{store.path}/{store.folder(group, column.name)} was stored anew in another form: "
                            "it can be read, but not appended to")  # fmt: skip
    kind = _TextTail if column.is_text else _NumberTail
    return kind(store, group, column, row)


class _Tail:
    """The last chunk of a column, unfinished; what both kinds share."""

    def __init__(self, store: FeatureStore, group: str, column: Column, row: int) -> None:
        self.column = column
        self.folder = store.path / store.folder(group, column.name)
        self.chunk, self.filled = divmod(row, column.chunk_rows)
        self.dirty = False

    def describe(self, rows: int) -> None:
        """Write the array's metadata for `rows` rows."""
        write_json(self.folder / ROOT, array_metadata(self.column, rows))

    def _old(self) -> bytes:
        """What the unfinished chunk's file holds, checksum verified and taken off."""
        path = self.folder / self.column.chunk_key(self.chunk)
        data = path.read_bytes() if path.exists() else b""
        body, stored = data[:-CHECKSUM_BYTES], data[-CHECKSUM_BYTES:]
        whole = self.column.is_text or len(body) == self.column.chunk_bytes
        if not whole or checksum_bytes(crc32c(body)) != stored:
            raise StoreDamaged(f"{path} is missing or differs from its checksum: run headwater verify")
        return body


class _NumberTail(_Tail):
    """The unfinished chunk of a column of numbers: one preallocated array."""

    def __init__(self, store: FeatureStore, group: str, column: Column, row: int) -> None:
        super().__init__(store, group, column, row)
        self.buffer = np.empty((column.chunk_rows, *column.shape), column.dtype)
        if self.filled:
            old = np.frombuffer(self._old(), column.dtype).reshape(self.buffer.shape)
            self.buffer[: self.filled] = old[: self.filled]

    def checked(self, values: Array | Sequence[str]) -> Array:
        """The values as an array of numbers of the declared shape, of any precision."""
        try:
            array = np.asarray(values)
        except ValueError as error:
            raise DataError(f"rows of {self.column.name} are no array: {error}") from None
        name, declared = self.column.name, np.dtype(self.column.dtype)
        if array.ndim == 0 or (len(array) and array.shape[1:] != self.column.shape):
            raise DataError(f"rows of {name} have shape {array.shape[1:]}, declared {self.column.shape}")
        both_whole = array.dtype.kind in "iu" and declared.kind in "iu"
        if len(array) and not both_whole and not np.can_cast(array.dtype, declared, "same_kind"):
            raise DataError(f"rows of {name} are {array.dtype}, declared {declared}")
        return array

    def append(self, values: Array | list[str]) -> None:
        """Take values that are checked."""
        taken = 0
        while taken < len(values):
            count = min(len(values) - taken, self.column.chunk_rows - self.filled)
            self.buffer[self.filled : self.filled + count] = values[taken : taken + count]
            self.filled, taken, self.dirty = self.filled + count, taken + count, True
            if self.filled == self.column.chunk_rows:
                self.flush()
                self.chunk, self.filled = self.chunk + 1, 0

    def flush(self) -> None:
        """Write the chunk as far as it is filled; zeros follow, as a hole where the file system has holes."""
        if not self.dirty:
            return
        body = self.buffer[: self.filled].reshape(-1).view(np.uint8)
        crc, left = crc32c(body), self.column.chunk_bytes - body.nbytes
        while left:
            crc = crc32c(_ZEROS[: min(left, len(_ZEROS))], crc)
            left -= min(left, len(_ZEROS))
        path = self.folder / self.column.chunk_key(self.chunk)
        write_file(path, [body.data, checksum_bytes(crc)], self.column.chunk_bytes + CHECKSUM_BYTES)
        self.dirty = False


class _TextTail(_Tail):
    """The unfinished chunk of a column of text: a list of strings."""

    def __init__(self, store: FeatureStore, group: str, column: Column, row: int) -> None:
        super().__init__(store, group, column, row)
        self.values: list[str] = []
        if self.filled:
            self.values = list(VLenUTF8().decode(Zstd().decode(self._old())))[: self.filled]

    def checked(self, values: Array | Sequence[str]) -> list[str]:
        """The values as strings that UTF-8 can hold."""
        found = [values] if isinstance(values, str) else list(values)
        for at, value in enumerate(found):
            try:
                fits = isinstance(value, str) and value.encode() is not None and not isinstance(values, str)
            except UnicodeEncodeError:
                fits = False
            if not fits:
                raise DataError(f"row {at} of {self.column.name} is not text: {value!r:.60}")
        return found

    def append(self, values: Array | list[str]) -> None:
        """Take values that are checked."""
        for value in values:
            self.values.append(str(value))
            self.dirty = True
            if len(self.values) == self.column.chunk_rows:
                self.flush()
                self.chunk, self.values = self.chunk + 1, []

    def flush(self) -> None:
        """Write the chunk as far as it is filled; empty strings follow."""
        if not self.dirty:
            return
        padded = np.array(self.values + [""] * (self.column.chunk_rows - len(self.values)), dtype=object)
        body = bytes(Zstd(level=3).encode(VLenUTF8().encode(padded)))
        write_file(self.folder / self.column.chunk_key(self.chunk), [body, checksum_bytes(crc32c(body))])
        self.dirty = False
