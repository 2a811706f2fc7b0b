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

from .errors import DataError, StoreError
from .feature_store import FeatureStore
from .files import RangeLock
from .layout import Array
from .manifest import StoreRecord
from .tails import open_tail

Rows = Mapping[str, Array | Sequence[str] | Sequence[Sequence[int]] | Sequence[Array]]
Ranges = tuple[tuple[int, int], ...]


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
        if any(column.ragged for column in columns) and (start is not None or stop is not None):
            raise DataError(f"{group} has ragged columns: one writer writes all of its rows, in order")
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
            self._tails = [open_tail(store, group, column, self.start) for column in columns]
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
        """Take the next rows: for each column (rows, *row shape), or strings, or of a ragged column an array a row.

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
