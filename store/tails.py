"""The last chunk of a column, unfinished, as a writer holds it: of numbers, of text, or of a ragged column its two arrays.

Rows fill it, a full one becomes a file at once, a commit writes it as far as it is filled. Knows nothing of what rows mean.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numcodecs import VLenUTF8, Zstd

from .checksums import checksum_bytes, crc32c
from .errors import DataError, StoreDamaged, StoreMismatch
from .feature_store import ROOT, FeatureStore
from .files import write_file, write_json
from .layout import CHECKSUM_BYTES, Array, Column, array_metadata, column_from, is_own

_ZEROS = np.zeros(1 << 20, dtype=np.uint8)


class ColumnTail(ABC):
    """What of a column is not yet in a finished chunk."""

    column: Column

    @abstractmethod
    def checked(self, values: Any) -> Any:
        """The values of some rows as :meth:`append` takes them, something with a length.

        Raises:
            DataError: they are not what the column declares.
        """

    @abstractmethod
    def append(self, values: Any) -> None:
        """Take values that are checked."""

    @abstractmethod
    def flush(self) -> None:
        """Write what is not yet written."""

    @abstractmethod
    def describe(self, rows: int) -> None:
        """Write the metadata for `rows` rows."""


def open_tail(store: FeatureStore, group: str, column: Column, row: int) -> ColumnTail:
    """The tail of a column from a row on.

    Raises:
        StoreMismatch: the array was stored anew by somebody else, in another form. StoreDamaged: its last chunk is not whole.
    """
    path = store.folder(group, column.name)
    arrays = [(f"{path}/{array.name}", array) for array in (column.values, column.offsets)] if column.ragged else []
    for place, array in arrays or [(path, column)]:
        metadata = store.array_metadata(place)
        if not is_own(metadata) or column_from(array.name, metadata) != array:
            raise StoreMismatch(f"{store.path}/{place} was stored anew in another form: "
                                "it can be read, but not appended to")  # fmt: skip
    kind = _RaggedTail if column.ragged else _TextTail if column.is_text else _NumberTail
    return kind(store.path / path, column, row)


class _Tail(ColumnTail):
    """The last chunk of a column, unfinished; what both kinds share."""

    def __init__(self, folder: Path, column: Column, row: int) -> None:
        self.column, self.folder = column, folder
        self.chunk, self.filled = divmod(row, column.chunk_rows)
        self.dirty = False

    def describe(self, rows: int) -> None:
        """Write the array's metadata for `rows` rows."""
        write_json(self.folder / ROOT, array_metadata(self.column, rows))

    def _old(self, chunk: int) -> bytes:
        """What a chunk's file holds, checksum verified and taken off."""
        path = self.folder / self.column.chunk_key(chunk)
        data = path.read_bytes() if path.exists() else b""
        body, stored = data[:-CHECKSUM_BYTES], data[-CHECKSUM_BYTES:]
        whole = self.column.is_text or len(body) == self.column.chunk_bytes
        if not whole or checksum_bytes(crc32c(body)) != stored:
            raise StoreDamaged(f"{path} is missing or differs from its checksum: run headwater verify")
        return body


class _NumberTail(_Tail):
    """The unfinished chunk of a column of numbers: one preallocated array."""

    def __init__(self, folder: Path, column: Column, row: int) -> None:
        super().__init__(folder, column, row)
        self.buffer = np.empty((column.chunk_rows, *column.shape), column.dtype)
        if self.filled:
            old = np.frombuffer(self._old(self.chunk), column.dtype).reshape(self.buffer.shape)
            self.buffer[: self.filled] = old[: self.filled]

    def last(self) -> Array:
        """The row before the next one."""
        if self.filled:
            return np.array(self.buffer[self.filled - 1])
        old = np.frombuffer(self._old(self.chunk - 1), self.column.dtype)
        return np.array(old.reshape(self.buffer.shape)[-1])

    def checked(self, values: Any) -> Array:
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

    def __init__(self, folder: Path, column: Column, row: int) -> None:
        super().__init__(folder, column, row)
        self.values: list[str] = []
        if self.filled:
            self.values = list(VLenUTF8().decode(Zstd().decode(self._old(self.chunk))))[: self.filled]

    def checked(self, values: Any) -> list[str]:
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


@dataclass(frozen=True, slots=True)
class _RaggedRows:
    """Rows of any number of elements."""

    values: Array
    """(elements, *element shape), those of all rows."""
    lengths: Array
    """(rows,) int64."""

    def __len__(self) -> int:
        return len(self.lengths)


class _RaggedTail(ColumnTail):
    """The unfinished chunks of a ragged column: its values, and where rows begin."""

    def __init__(self, folder: Path, column: Column, row: int) -> None:
        self.column = column
        self._offsets = _NumberTail(folder / "offsets", column.offsets, row + 1 if row else 0)
        if not row:
            self._offsets.append(np.zeros(1, np.int64))
        self._end = int(self._offsets.last())
        self._values = _NumberTail(folder / "values", column.values, self._end)

    def checked(self, values: Any) -> _RaggedRows:
        """Rows as one array, with their lengths; numbers that the column's type does not hold are refused."""
        rows = [np.asarray(row) for row in values]
        lengths = np.array([len(row) if row.ndim else -1 for row in rows], np.int64)
        if (lengths < 0).any():
            raise DataError(f"row {int(lengths.argmin())} of {self.column.name} is one number, not a list of them")
        filled = [row for row in rows if len(row)]
        flat = np.concatenate(filled) if filled else np.zeros((0, *self.column.shape), self.column.dtype)
        flat, declared = self._values.checked(flat), np.dtype(self.column.dtype)
        if declared.kind in "iu" and len(flat):
            limits = np.iinfo(declared)
            if int(flat.min()) < limits.min or int(flat.max()) > limits.max:
                raise DataError(f"a row of {self.column.name} holds {int(flat.max())}, which {declared} does not")
        return _RaggedRows(flat, lengths)

    def append(self, values: _RaggedRows) -> None:
        """Take rows that are checked."""
        self._values.append(values.values)
        ends = self._end + np.cumsum(values.lengths)
        self._offsets.append(ends)
        self._end = int(ends[-1]) if len(ends) else self._end

    def flush(self) -> None:
        """Write both arrays' chunks as far as they are filled."""
        self._values.flush()
        self._offsets.flush()

    def describe(self, rows: int) -> None:
        """Write both arrays' metadata; one writer wrote all rows, so these are all there are."""
        self._values.describe(self._end)
        self._offsets.describe(rows + 1)
