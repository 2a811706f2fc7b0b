"""Ids, sources, lines and texts of a store's examples, by row number. Knows no method and no score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np

from ...store.feature_store import EXAMPLES, FeatureStore
from ...store.layout import Array
from ...store.reader import open_column

Cell: TypeAlias = str | int | float | bool | None
"""One value of a table."""
Columns: TypeAlias = Mapping[str, Sequence[Cell]]
"""A table: column name → a value per row."""


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

    def numbers(self, name: str) -> Array:
        """All values of a column of numbers."""
        column = self._columns[name]
        out = np.empty((column.rows, *column.column.shape), column.column.dtype)
        column.read(0, column.rows, out)
        column.close_file()
        return out

    def texts(self, rows: Array) -> list[str]:
        """Prompt and text, joined."""
        prompts, texts = self.strings("prompt", rows), self.strings("text", rows)
        return [prompt + text for prompt, text in zip(prompts, texts, strict=True)]

    def strings(self, name: str, rows: Array) -> list[str]:
        """A text column's values at `rows`; empty strings if the store does not have the column."""
        return [str(value) for value in self.get(name, rows)]
