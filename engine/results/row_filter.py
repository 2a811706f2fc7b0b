"""Which examples of a store have certain values: those of a source, or of a column of metadata. Knows no score."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...store.errors import DataError, SettingsError
from ...store.feature_store import FeatureStore
from ...store.layout import Array
from ..data.record_values import scalar_text
from ..runtime.memory import Part, Plan
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

    @classmethod
    def of(cls, columns: Mapping[str, object], table: str = "") -> RowFilter:
        """Conditions from column → value, or a list of values of which an example must have one.

        Raises:
            SettingsError: a column has an empty list of values.
        """
        conditions: list[tuple[str, str]] = []
        for column, values in columns.items():
            listed = list(values) if isinstance(values, Iterable) and not isinstance(values, (str, bytes)) else [values]
            if not listed:
                raise SettingsError(
                    f"where: column {column} has an empty list of values, which no example meets",
                    hint="name at least one value, or leave the column out",
                )
            conditions += ((column, scalar_text(value)) for value in listed)
        return cls(tuple(conditions), table)

    def plan(self, store: FeatureStore, rows: int) -> Plan:
        """The memory of :meth:`mask`; of a table, a pass adds up the sizes of its ids and values.

        Raises:
            DataError: there is no such column. CorpusError: the table cannot be read.
        """
        plans = [labels.filtering() for labels in self._columns(store, rows).values()]
        mask = Plan.of(Part("filter of examples", rows * bool(plans)))
        return mask + max(plans, key=lambda plan: plan.total, default=Plan(()))  # one column is read after the other

    def mask(self, store: FeatureStore, rows: int) -> Array | None:
        """(N,) bool: which of the first `rows` examples meet the conditions; None if there is no condition. Labels are compared
        as they are read; :meth:`plan` is its memory.

        Raises:
            DataError: no example meets them, or there is no such column. CorpusError: the table cannot be read.
        """
        if not self.conditions:
            return None
        mask = np.ones(rows, bool)
        for column, labels in self._columns(store, rows).items():
            allowed = {value for name, value in self.conditions if name == column}
            absent, first, shown = set(allowed), 0, dict[str, None]()
            for part in labels.labels():
                absent.difference_update(part)
                mask[first : first + len(part)] &= np.fromiter((label in allowed for label in part), bool, len(part))
                first += len(part)
                if len(shown) <= _SHOWN:
                    shown = dict.fromkeys([*shown, *dict.fromkeys(part)][: _SHOWN + 1])
            if absent:
                raise DataError(f"no example has {column}={min(absent)}: there are {_listed(list(shown))}")
        if not mask.any():
            raise DataError(f"no example meets {self}")
        return mask

    def _columns(self, store: FeatureStore, rows: int) -> dict[str, GroupColumn]:
        """Where the labels of each column of the conditions are read."""
        names = dict.fromkeys(column for column, _ in self.conditions)
        return {name: GroupColumn(store, name, "" if name == "source" else self.table, rows) for name in names}

    def __str__(self) -> str:
        return " and ".join(f"{column}={value}" for column, value in self.conditions)


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
