"""Appends rows to a group: takes its lock, continues after the committed rows, writes chunks and commits them.

A group of a shard has one writer at a time, whose lock ends with its process. Rows fill chunk buffers; a full chunk becomes
a file at once. A commit writes the unfinished last chunks too, then the arrays' shapes, then the manifest of all chunks, then the
progress record: only that last step makes rows visible. So a crash loses only the rows after the last commit, and writing
the same rows again gives the same bytes. The root is replaced when the group is finished. Knows nothing of what rows
mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .chunk_manifest import ChunkManifest
from .errors import DataError, StoreError, StoreMismatch
from .feature_store import FeatureStore
from .layout import Array, Column
from .ragged_tail import RaggedTail
from .reader import described_array
from .shard import arrays_of
from .tails import ColumnTail, CommittedArray, NumberTail, TextTail

Rows = Mapping[str, Array | Sequence[str] | Sequence[Sequence[int]] | Sequence[Array]]


class GroupWriter:
    """Writes the rows of one group, in order."""

    def __init__(self, store: FeatureStore, group: str) -> None:
        """Take the group's lock and continue after its committed rows; `rows` is the number of the next row.

        Raises:
            StoreBusy: another writer owns it.
            StoreMismatch: the store has an older format, or another tool rewrote the arrays with other chunks or codecs.
        """
        self._lock = store.own(group)
        self._open = True
        self.store, self.group = store, group
        try:
            store.refresh()
            store.remove_leftovers(group)
            self.rows = store.rows(group)
            self._notes = dict(store.resume_notes(group))
            self._tails = [_open_tail(store, group, column, self.rows) for column in store.columns(group)]
        except BaseException:
            self.close()
            raise

    def append(self, rows: Rows) -> None:
        """Append rows: for each column (rows, *row shape), or strings, or for a ragged column one array per row.

        Raises:
            DataError: a column is missing, or has another shape or length.
            StoreFull: the disk is full; the rows since the last commit are lost, and the writer is closed.
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
        try:
            for tail, part in zip(self._tails, values, strict=True):
                tail.append(part)
        except BaseException:
            self.close()  # some columns now have rows that others lack
            raise
        self.rows += count

    def commit(self, *, complete: bool = False, **notes: Any) -> None:
        """Make all rows appended so far visible and durable; `notes` replace the previous commit's notes of the same names.

        With `complete`, the root records that the group now has all its rows.

        Raises:
            StoreFull: the disk is full; free some space and commit again, or write the rows again.
        """
        self._require_open()
        for tail in self._tails:
            tail.flush()
        for tail in self._tails:
            tail.write_metadata(self.rows)
        self._notes |= notes
        arrays = {name: checksums for tail in self._tails for name, checksums in tail.checksums().items()}
        self.store.commit(self.group, ChunkManifest(self.rows, dict(self._notes), arrays), complete=complete)

    def close(self) -> None:
        """Release the group; rows since the last commit are dropped."""
        self._open = False
        self._lock.close()

    def _require_open(self) -> None:
        if not self._open:
            raise StoreError(f"this writer of {self.group} is closed")

    def __enter__(self) -> GroupWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _open_tail(store: FeatureStore, group: str, column: Column, row: int) -> ColumnTail:
    """The tail of a column, to which row number `row` is appended next.

    Raises:
        StoreMismatch: another tool rewrote the array with other chunks or codecs.
        StoreDamaged: its last chunk is missing or differs from its checksum.
    """

    def written(name: str, array: Column, rows: int) -> CommittedArray:
        return CommittedArray(
            store.path / store.folder(group, name), name, rows, store.checksums(group, name, array, rows)
        )

    for name, array in arrays_of(column):
        stored, _, _, native = described_array(store, store.folder(group, name), array.name)
        if not native or stored != array:
            raise StoreMismatch(f"{store.path}/{store.folder(group, name)} was rewritten by another tool, with other "
                                "chunks or codecs: it can be read, but not appended to")  # fmt: skip
    if column.ragged:
        return RaggedTail(column, row, written)
    kind = TextTail if column.is_text else NumberTail
    return kind(column, written(column.name, column, row))
