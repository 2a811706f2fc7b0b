"""Ids, sources, lines and texts of a store's examples, by row number, in parts whose size is bounded. Knows no method and no
score.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from ...store.feature_store import EXAMPLES, FeatureStore
from ...store.layout import Array
from ...store.reader import open_column
from ...store.text_column import TextColumn

Cell: TypeAlias = str | int | float | bool | None
"""One value of a table."""
Columns: TypeAlias = Mapping[str, Sequence[Cell]]
"""A table: column name → a value per row."""
TEXTS = ("id", "source", "prompt", "text")
"""The columns of text."""
ROW_BYTES, ROW_ARROW_BYTES = 1000, 150
"""Upper bounds of the memory of a row of a table, its texts' bytes aside: as Python objects, and in Arrow's columns."""
_NUMBER_READING_BYTES = 1 << 20
TEXT_COPIES = 14
"""Upper bound of the memory of a byte of UTF-8 in a table that is written: a string of Python takes up to four bytes for it, and
is joined, escaped, or copied to a row group that is encoded.
"""


@dataclass(frozen=True, slots=True)
class PartSize:
    """How much of a table is in memory at a time. Larger parts are faster: each reads every chunk that has one of its rows."""

    rows: int
    """Most rows of a part."""
    text_bytes: int
    """Most bytes of UTF-8 of its rows' texts, unless a single row has more."""


PART_SIZES = tuple(PartSize(max(1 << 10, (1 << 14) >> step), (16 << 20) >> step) for step in (0, 2, 4, 8))
"""Candidate sizes of parts, largest first; a plan takes the first that fits the memory budget."""


class Examples:
    """A store's columns of examples, by row number."""

    def __init__(self, store: FeatureStore) -> None:
        """Open the columns."""
        names = [column.name for column in store.columns(EXAMPLES) if not column.ragged]
        self._columns = {name: open_column(store, EXAMPLES, name) for name in names}

    def get(self, name: str, rows: Array) -> list[Cell]:
        """A column's values at `rows`; empty strings if the store does not have the column."""
        if name not in self._columns:
            return [""] * len(rows)
        return [value if isinstance(value, str) else value.item() for value in self._columns[name].gather(rows)]

    def parts(
        self, names: Sequence[str], rows: Array, most: PartSize = PART_SIZES[0]
    ) -> Iterator[tuple[slice, Columns]]:
        """Consecutive parts of `rows` of a bounded size, each with the values of some columns.

        Raises:
            StoreDamaged: a chunk differs from its checksum.
        """
        size, start = most.rows, 0
        while start < len(rows):
            part = slice(start, min(len(rows), start + size))
            columns = self._within(names, rows[part], None if part.stop == start + 1 else most.text_bytes)
            if columns is None:
                size = (part.stop - start) // 2
                continue
            yield part, columns
            start, size = part.stop, min(most.rows, 2 * size)

    def _within(self, names: Sequence[str], rows: Array, limit: int | None) -> Columns | None:
        """Columns at `rows`; None if their texts have more than `limit` bytes."""
        columns: dict[str, list[Cell]] = {}
        for name in names:
            reader = self._columns.get(name)
            if not isinstance(reader, TextColumn):
                columns[name] = self.get(name, rows)
                continue
            read = reader.gather_within(rows, limit)
            if read is None:
                return None
            columns[name], size = read[0].tolist(), read[1]
            limit = None if limit is None else limit - size
        return columns

    def longest(self, names: Sequence[str], most: int | None = None) -> int:
        """Upper bound of the bytes of UTF-8 that one example has in some columns of text.

        The sizes of chunks give it; if it exceeds `most`, all texts are read, one at a time, for the lengths of the longest ones.
        It is not known, hence 0, of a store on another machine.
        """
        readers = [reader for name in names if isinstance(reader := self._columns.get(name), TextColumn)]
        bound = sum(reader.longest_bound for reader in readers)
        return bound if most is None or bound <= most else sum(reader.longest for reader in readers)

    def text_bytes(self, names: Sequence[str]) -> int:
        """Bytes of UTF-8 of all examples in some columns of text; 0 of a store on another machine."""
        readers = [reader for name in names if isinstance(reader := self._columns.get(name), TextColumn)]
        return sum(sum(reader.chunk_sizes) for reader in readers)

    def scratch_bytes(self, names: Sequence[str]) -> int:
        """Memory of reading some columns of text and columns of numbers, besides the values: of one chunk, or a part of it."""
        texts = [reader.scratch_bytes for name in names if (reader := self._columns.get(name)) is not None]
        numbers = [reader.column.chunk_bytes for reader in self._columns.values() if not reader.column.is_text]
        return max(texts, default=0) + min(_NUMBER_READING_BYTES, max(numbers, default=0))

    def numbers(self, name: str) -> Array:
        """All values of a column of numbers."""
        column = self._columns[name]
        out = np.empty((column.rows, *column.column.shape), column.column.dtype)
        column.read(0, column.rows, out)
        column.close_file()
        return out

    def strings(self, name: str, rows: Array) -> list[str]:
        """A text column's values at `rows`; empty strings if the store does not have the column."""
        return [str(value) for value in self.get(name, rows)]


def joined_texts(columns: Columns) -> list[str]:
    """Prompt and text of each row, joined."""
    return [str(prompt) + str(text) for prompt, text in zip(columns["prompt"], columns["text"], strict=True)]
