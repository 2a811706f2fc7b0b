"""Ids, sources, lines and texts of a store's examples, by row number. Knows no method and no score."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from ...store.feature_store import EXAMPLES, FeatureStore
from ...store.layout import Array
from ...store.reader import open_column

Columns: TypeAlias = dict[str, list[Any]]
"""Rows as columns: name → a value of each row (strings, numbers or booleans)."""


class Examples:
    """What a store keeps of its examples, by row number."""

    def __init__(self, store: FeatureStore) -> None:
        """Open the columns."""
        names = [column.name for column in store.columns(EXAMPLES) if not column.ragged]
        self._columns = {name: open_column(store, EXAMPLES, name) for name in names}

    def get(self, name: str, rows: Array) -> list[Any]:
        """One column's values; empty strings where the store keeps no text."""
        if name not in self._columns:
            return [""] * len(rows)
        return [value if isinstance(value, str) else value.item() for value in self._columns[name].gather(rows)]

    def numbers(self, name: str) -> Array:
        """A whole column of numbers."""
        column = self._columns[name]
        out = np.empty((column.rows, *column.column.shape), column.column.dtype)
        column.read(0, column.rows, out)
        column.rest()
        return out

    def texts(self, rows: Array) -> list[str]:
        """Prompt and completion, or text, joined."""
        prompts, texts = self.get("prompt", rows), self.get("text", rows)
        return [prompt + text for prompt, text in zip(prompts, texts, strict=True)]
