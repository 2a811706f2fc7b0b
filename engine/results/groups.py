"""Scores added up by source or by any column of the corpus: by book, site or author.

Knows no method and no model; scores stream by, and what is held is one line a group and query.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import scipy.sparse

from ...store.errors import CorpusError, DataError
from ...store.feature_store import EXAMPLES, FeatureStore
from ...store.layout import TEXT_CHUNK_ROWS, Array
from ..data.array_files import is_array_path, open_arrays
from ..data.documents import record_name
from ..data.formats import read_records
from ..data.sources import find_sources
from ..runtime.memory import Part, Plan
from .example_table import Columns, Examples

GROUP_FIELDS = {
    "query_id": pa.string(), "rank": pa.int32(), "group": pa.string(), "examples": pa.int64(), "mean": pa.float64(),
    "total": pa.float64(), "best": pa.float32(), "best_example": pa.string(),
}  # fmt: skip


_TABLE_BYTES = 400  # of an id and its value, as Python strings in a table


class Groups:
    """Which group every example of a store is in."""

    def __init__(self, store: FeatureStore, column: str, table: str = "") -> None:
        """By the store's own `source`, or by `column` of a table (.jsonl, .csv, .parquet, .npz) such as the corpus itself.

        Raises:
            DataError: the table lacks the column, or an example. CorpusError: the table cannot be read.
        """
        if not table and column != "source":
            raise DataError(
                f"a store keeps no column {column}: name the file that has it (--columns), or group by source"
            )
        self.store, self._from_table = store, bool(table)
        known = labels_of_table(table, column) if table else None
        numbers: dict[str, int] = {}
        parts = []
        for labels in _labels(store, known, table):
            parts.append(np.array([numbers.setdefault(label, len(numbers)) for label in labels], np.int64))
        self.of, self.names = np.concatenate(parts), list(numbers)
        self.sizes = np.bincount(self.of, minlength=len(self.names))

    def plan(self, queries: int) -> Plan:
        """What grouping holds besides the scores: numbers of rows, a table of ids where there is one, sums, the answer."""
        rows, groups = len(self.of), len(self.names)
        return Plan.of(
            Part("groups of examples", 24 * rows + 200 * groups),
            Part("ids and values of a table", _TABLE_BYTES * rows * self._from_table),
            Part("sums of groups", (8 + 4 + 8) * groups * queries),
            Part("results by group", 600 * groups * queries),
        )

    def added(self, scores: Iterable[tuple[int, Array]], queries: Sequence[str]) -> Iterator[Columns]:
        """Columns of `GROUP_FIELDS`, a part a query, groups by falling mean.

        scores: (first row, (rows, Q)) of every example, in order.
        """
        shape = (len(self.names), len(queries))
        total, best, where = np.zeros(shape), np.full(shape, -np.inf, np.float32), np.zeros(shape, np.int64)
        for first, part in scores:
            own = self.of[first : first + len(part)]
            chooser = scipy.sparse.csr_matrix((np.ones(len(own)), (own, np.arange(len(own)))), (shape[0], len(own)))
            total += chooser @ part.astype(np.float64)
            _keep_best(best, where, own, part, first)
        examples = Examples(self.store)
        for at, query in enumerate(queries):
            mean = total[:, at] / self.sizes
            order = np.argsort(-mean, kind="stable")
            yield {
                "query_id": [query] * len(order),
                "rank": list(range(1, len(order) + 1)),
                "group": [self.names[one] for one in order],
                "examples": self.sizes[order].tolist(),
                "mean": mean[order].tolist(),
                "total": total[order, at].tolist(),
                "best": best[order, at].tolist(),
                "best_example": examples.get("id", where[order, at]),
            }


def _keep_best(best: Array, where: Array, own: Array, part: Array, first: int) -> None:
    """Each group's best score so far, and its row; of equal ones the lower."""
    order = np.argsort(own, kind="stable")
    starts = np.flatnonzero(np.diff(own[order], prepend=-1))
    groups, sorted_ = own[order][starts], np.ascontiguousarray(part[order])
    highest = np.maximum.reduceat(sorted_, starts, axis=0)  # (groups here, Q)
    better = highest > best[groups]
    spans = [*starts.tolist(), len(order)]
    for at, query in zip(*np.nonzero(better), strict=True):
        span = slice(spans[at], spans[at + 1])
        row = order[span][int(np.argmax(sorted_[span, query]))]
        best[groups[at], query], where[groups[at], query] = highest[at, query], first + row


def _labels(store: FeatureStore, known: Mapping[str, str] | None, table: str) -> Iterator[list[str]]:
    examples, rows = Examples(store), store.rows(EXAMPLES)
    for first in range(0, rows, TEXT_CHUNK_ROWS):
        these = np.arange(first, min(rows, first + TEXT_CHUNK_ROWS))
        if known is None:
            yield examples.get("source", these)
            continue
        ids = examples.get("id", these)
        names = [one if one in known else document_of(one) for one in ids]
        absent = next((one for one in names if one not in known), None)
        if absent is not None:
            raise DataError(f"{table} has no line for example {absent}")
        yield [known[one] for one in names]


def document_of(example: str) -> str:
    """The id of the record that an example is a part of: a long text's parts are named L#0, L#1, …"""
    name, mark, part = example.rpartition("#")
    return name if mark and part.isdecimal() else example


def labels_of_table(table: str, column: str) -> dict[str, str]:
    """Example id → value of a column, or of an array (N,) of a file of arrays. A record without an id is named by its place,
    as in a corpus.

    Raises:
        CorpusError: the table cannot be read. DataError: it lacks the column.
    """
    if is_array_path(table):
        return _labels_of_arrays(table, column)
    found: dict[str, str] = {}
    for source in find_sources([table], lines=True):
        for record in read_records(source.path, source.format, 0, None):
            if record.error:
                raise CorpusError(f"{source.path}:{record.line}: {record.error}")
            if column not in record.fields:
                raise DataError(
                    f"{source.path}:{record.line} has no column {column}; it has {', '.join(record.fields)}"
                )
            name, value = record_name(source, record), str(record.fields[column])
            if found.setdefault(name, value) != value:
                raise DataError(f"{source.path}:{record.line}: {name} had {column} {found[name]} before: equal ids")
    return found


def _labels_of_arrays(path: str, column: str) -> dict[str, str]:
    source, arrays = open_arrays(path)
    if column not in arrays:
        raise DataError(f"{path} has no array {column}; it has {', '.join(sorted(arrays))}")
    if len(arrays[column].shape) != 1:
        raise DataError(f"{path}: {column} is {tuple(arrays[column].shape)}, not one value an example")
    values = _words(arrays[column])
    names = _words(arrays["id"]) if "id" in arrays else [f"{source.name}:{row}" for row in range(len(values))]
    if len(names) != len(values) or len(set(names)) != len(names):
        raise DataError(f"{path}: its ids are not one for each of {len(values)} values, or some are equal")
    return dict(zip(names, values, strict=True))


def _words(array: Any) -> list[str]:
    return [
        one.decode() if isinstance(one, bytes) else str(one) for one in np.asarray(array[0 : array.shape[0]]).tolist()
    ]
