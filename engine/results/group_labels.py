"""Labels of a store's examples by which results are grouped: a column of the store, or of a table such as the corpus.

Labels are streamed. Only a table's labels are in memory together, because its records may be in any order. Knows no score.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ...store.errors import CorpusError, DataError
from ...store.feature_store import EXAMPLES, FeatureStore
from ...store.layout import TEXT_CHUNK_ROWS, Array
from ..data.array_files import is_array_path, open_arrays
from ..data.documents import record_name
from ..data.kept_columns import columns_of, field_value, kept_columns_of, value_text
from ..data.record_source import Data, name_of_data
from ..data.sources import find_sources, read_source
from ..data.stored_arrays import StoredArray
from ..runtime.memory import Part, Plan
from .example_table import Examples

_ROWS = 8192  # values of an array that are read together
_STRING_BYTES, _ENTRY_BYTES = 60, 110  # of a string without its characters, of an entry of a dictionary
_STRING_COPIES = 3  # of the strings that are read together: a part before, a part, and the ids or distinct ones of it


@dataclass(frozen=True, slots=True)
class LabelCounts:
    """How many labels there are, before they are read."""

    labels: int
    """Number of labels, repeated ones included."""
    distinct: int
    """Number of different labels."""
    text_bytes: int
    """Bytes of the different labels as strings."""
    table_bytes: int = 0
    """Bytes of a table's ids and labels as strings and in a dictionary."""


@dataclass(frozen=True, slots=True)
class GroupColumn:
    """Where the label of each example is read."""

    store: FeatureStore
    name: str
    """`source`, a column that the store keeps, or a column of the table."""
    table: str = ""
    """A file (.jsonl, .csv, .parquet, .npz) with each example's id and label, such as the corpus."""
    rows: int | None = None
    """How many of the store's first examples are grouped; None: all."""

    def labels(self) -> Iterator[list[str]]:
        """The labels of the examples in order, some at a time.

        Raises:
            DataError: the table lacks the column, or an example. CorpusError: the table cannot be read.
        """
        self._check()
        of_table = labels_of_table(self.table, self.name) if self.table else None
        for rows in self._parts():
            if of_table is None:
                yield Examples(self.store).strings(self.name, rows)
                continue
            ids = Examples(self.store).strings("id", rows)
            names = [name if name in of_table else document_of(name) for name in ids]
            absent = next((name for name in names if name not in of_table), None)
            if absent is not None:
                raise DataError(f"{self.table} has no record for example {absent}")
            yield [of_table[name] for name in names]

    def counts(self) -> LabelCounts:
        """The number and size of the labels, in a pass that keeps none of them; of a table, those of all its records.

        Raises:
            DataError: the table lacks the column. CorpusError: the table cannot be read.
        """
        self._check()
        if not self.table:
            examples = Examples(self.store)
            return _counted(label for rows in self._parts() for label in examples.strings(self.name, rows))
        return counts_of_table(self.table, self.name)

    def reading(self, counts: LabelCounts) -> Plan:
        """Memory of reading the labels as numbers, with the counts of :meth:`counts`, and of counting them."""
        rows = self.store.rows(EXAMPLES) if self.rows is None else self.rows
        return Plan.of(
            Part("groups of examples", 12 * rows + 32 * counts.labels),
            Part("names of groups", _ENTRY_BYTES * counts.distinct + counts.text_bytes),
            Part("ids and values of a table", counts.table_bytes),
            *self._streaming(),
        )

    def filtering(self) -> Plan:
        """Memory of reading the labels once, without the numbers of :meth:`reading`; a pass over a table adds up its sizes.

        Raises:
            DataError: the table lacks the column. CorpusError: the table cannot be read.
        """
        self._check()
        size = sum(map(_bytes_of, _records(self.table, self.name))) if self.table else 0
        return Plan.of(Part("ids and values of a table", size), *self._streaming())

    def _streaming(self) -> tuple[Part, ...]:
        """Memory of the labels, or of the ids, that are read together."""
        rows = self.store.rows(EXAMPLES) if self.rows is None else self.rows
        name, examples = "id" if self.table else self.name, Examples(self.store)
        texts = _STRING_COPIES * (_STRING_BYTES * min(rows, TEXT_CHUNK_ROWS) + 4 * examples.longest((name,)))
        return (Part("labels being read", texts + examples.scratch_bytes((name,))),)

    def _check(self) -> None:
        own = ("source", *kept_columns_of(self.store.provenance))
        if not self.table and self.name not in own:
            raise DataError(
                f"{self.store.url} has no column {self.name}, but {', '.join(own)}",
                hint="give a file that has it (--columns FILE), or ingest into a new store with --keep",
            )

    def _parts(self) -> Iterator[Array]:
        rows = self.store.rows(EXAMPLES) if self.rows is None else self.rows
        for first in range(0, rows, TEXT_CHUNK_ROWS):
            yield np.arange(first, min(rows, first + TEXT_CHUNK_ROWS))


def counts_of_table(table: Data, column: str) -> LabelCounts:
    """The number and size of the values of a column of a table, in a pass that keeps none of them.

    Raises:
        CorpusError: the table cannot be read. DataError: it lacks the column.
    """
    table_bytes = 0

    def values() -> Iterator[str]:
        nonlocal table_bytes
        for record in _records(table, column):
            table_bytes += _bytes_of(record)
            yield record.label

    counts = _counted(values())
    return LabelCounts(counts.labels, counts.distinct, counts.text_bytes, table_bytes)


def _counted(labels: Iterable[str]) -> LabelCounts:
    """Counts of labels by their hashes: 64 bits, so that two labels of one hash do not matter."""
    hashes, sizes = array("q"), array("q")
    for label in labels:
        hashes.append(hash(label))
        sizes.append(_size(label))
    _, first = np.unique(np.frombuffer(hashes, np.int64), return_index=True)
    return LabelCounts(len(hashes), len(first), int(np.frombuffer(sizes, np.int64)[first].sum()))


def _size(text: str) -> int:
    return _STRING_BYTES + (1 if text.isascii() else 4) * len(text)


def document_of(example: str) -> str:
    """The id of the document that an example is a window of: windows of document L are named L#0, L#1, …"""
    name, mark, part = example.rpartition("#")
    return name if mark and part.isdecimal() else example


class _Record(NamedTuple):
    """One record of a table."""

    name: str
    label: str
    path: str
    line: int


def _bytes_of(record: _Record) -> int:
    """Bytes of a record's id and label in :func:`labels_of_table`."""
    return _ENTRY_BYTES + _size(record.name) + _size(record.label)


def labels_of_table(table: Data, column: str) -> dict[str, str]:
    """Example id → value of a column, or of an array (N,) of a file of arrays. A record without an id is named by its line, as
    in a corpus.

    Raises:
        CorpusError: the table cannot be read. DataError: it lacks the column, or an id has two values.
    """
    labels: dict[str, str] = {}
    count = 0
    for name, label, path, line in _records(table, column):
        count += 1
        if labels.setdefault(name, label) != label and not is_array_path(table):
            raise DataError(f"{path}:{line}: id {name} has {column} {label}, but an earlier line has {labels[name]}")
    if is_array_path(table) and len(labels) != count:
        raise DataError(f"{name_of_data(table)}: expected {count} distinct ids, one per value")
    return labels


def _records(table: Data, column: str) -> Iterator[_Record]:
    """The records of a table, one at a time: their labels are written as the columns that a store keeps are."""
    if isinstance(table, str) and is_array_path(table):
        yield from _records_of_arrays(table, column)
        return
    fields, has_value = columns_of((column,)), False
    for source in find_sources([table], lines=True):
        for record in read_source(source, 0, None):
            if record.error:
                raise CorpusError(f"{source.path}:{record.line}: {record.error}")
            if fields.isdisjoint(record.fields):
                raise DataError(
                    f"{source.path}:{record.line} has no column {column}; it has {', '.join(record.fields)}"
                )
            value = field_value(record.fields, column)
            has_value = has_value or value is not None or column in record.fields
            yield _Record(record_name(source, record), value_text(value), source.path, record.line)
    if not has_value:
        raise DataError(f"no record of {name_of_data(table)} has {column}")


def _records_of_arrays(path: str, column: str) -> Iterator[_Record]:
    source, arrays = open_arrays(path)
    if column not in arrays:
        raise DataError(f"{path} has no array {column}; it has {', '.join(sorted(arrays))}")
    values, ids = arrays[column], arrays.get("id")
    if len(values.shape) != 1:
        raise DataError(f"{path}: {column} is {tuple(values.shape)}, expected one value per example")
    count = values.shape[0]
    if ids is not None and ids.shape[0] != count:
        raise DataError(f"{path}: expected {count} distinct ids, one per value")
    for first in range(0, count, _ROWS):
        stop = min(count, first + _ROWS)
        names = (
            _strings(ids, first, stop) if ids is not None else [f"{source.name}:{row}" for row in range(first, stop)]
        )
        for row, (name, label) in enumerate(zip(names, _strings(values, first, stop), strict=True), first):
            yield _Record(name, label, path, row)


def _strings(values: StoredArray, first: int, stop: int) -> list[str]:
    return [value_text(value) for value in np.asarray(values[first:stop]).tolist()]
