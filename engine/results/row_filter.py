"""Which examples of a store have certain values: those of a source, or of a column of metadata. Knows no score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...store.errors import DataError, SettingsError
from ...store.feature_store import FeatureStore
from ...store.layout import Array
from .group_labels import GroupColumn

_SHOWN = 5  # values of a column in an error


@dataclass(frozen=True, slots=True)
class RowFilter:
    """Conditions that an example must meet, all of them; of several values of one column, one."""

    conditions: tuple[tuple[str, str], ...] = ()
    """(column, value): `source`, or a column of the table."""
    table: str = ""
    """A file with each example's id and the columns; empty: the store's own columns."""

    @classmethod
    def parsed(cls, texts: Sequence[str], table: str = "") -> RowFilter:
        """Conditions from texts such as `source=a.jsonl`.

        Raises:
            SettingsError: a text has no =, or names no column.
        """
        pairs = [text.partition("=") for text in texts]
        if bad := next((text for text, pair in zip(texts, pairs, strict=True) if not (pair[0] and pair[1])), None):
            raise SettingsError(f"--where {bad}: expected COLUMN=VALUE, such as --where source=a.jsonl")
        return cls(tuple((column, value) for column, _, value in pairs), table)

    def mask(self, store: FeatureStore, rows: int) -> Array | None:
        """(N,) bool: which of the first `rows` examples meet the conditions; None if there is no condition.

        Raises:
            DataError: no example meets them, or there is no such column. CorpusError: the table cannot be read.
        """
        if not self.conditions:
            return None
        mask = np.ones(rows, bool)
        for column in dict.fromkeys(column for column, _ in self.conditions):
            allowed = {value for name, value in self.conditions if name == column}
            of_source = column == "source"
            labels = GroupColumn(store, column, "" if of_source else self.table, rows).labels()
            values = [label for part in labels for label in part]
            if absent := allowed.difference(values):
                there = ", ".join(dict.fromkeys(values[: 1 << 16]))
                raise DataError(f"no example has {column}={min(absent)}: there are {_shortened(there)}")
            mask &= np.fromiter((value in allowed for value in values), bool, rows)
        if not mask.any():
            raise DataError(f"no example meets {self}")
        return mask

    def __str__(self) -> str:
        return " and ".join(f"{column}={value}" for column, value in self.conditions)


def _shortened(text: str) -> str:
    names = text.split(", ")
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
