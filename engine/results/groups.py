"""Sums of scores by source or by any column of the corpus, such as book, site or author.

Scores are streamed; one line per group and query is in memory. Knows no method and no model.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
import scipy.sparse

from ...store.errors import CorpusError, DataError
from ...store.feature_store import EXAMPLES, FeatureStore
from ...store.layout import TEXT_CHUNK_ROWS, Array
from ..data.array_files import is_array_path, open_arrays
from ..data.documents import record_name, scalar_text
from ..data.formats import read_records
from ..data.sources import find_sources
from ..data.stored_arrays import StoredArray
from ..runtime.memory import Part, Plan
from .example_table import Columns, Examples

GROUP_FIELDS = {
    "query_id": pa.string(), "rank": pa.int32(), "group": pa.string(), "examples": pa.int64(), "mean": pa.float64(),
    "total": pa.float64(), "best": pa.float32(), "best_example": pa.string(),
}  # fmt: skip


_TABLE_BYTES = 400  # of an id and its value as Python strings


class Groups:
    """The group of each example of a store, such as its source or author."""

    def __init__(self, store: FeatureStore, column: str, table: str = "", rows: int | None = None) -> None:
        """Group by the store's column `source`, or by `column` of a table (.jsonl, .csv, .parquet, .npz) such as the corpus.
        `rows`: how many of the first examples are grouped; None: all.

        Raises:
            DataError: the table lacks the column, or an example. CorpusError: the table cannot be read.
        """
        if not table and column != "source":
            raise DataError(
                f"a store has no column {column}: give a file that has it (--columns FILE), or use --by source"
            )
        self.store, self._from_table = store, bool(table)
        table_labels = labels_of_table(table, column) if table else None
        numbers: dict[str, int] = {}
        parts = []
        for labels in _labels(store, table_labels, table, rows):
            parts.append(np.array([numbers.setdefault(label, len(numbers)) for label in labels], np.int64))
        self.of, self.names = np.concatenate(parts), list(numbers)
        self.sizes = np.bincount(self.of, minlength=len(self.names))

    def plan(self, queries: int) -> Plan:
        """Memory of grouping, without the scores: group numbers of rows, the table of ids if there is one, sums, results."""
        rows, groups = len(self.of), len(self.names)
        return Plan.of(
            Part("groups of examples", 24 * rows + 200 * groups),
            Part("ids and values of a table", _TABLE_BYTES * rows * self._from_table),
            Part("sums of groups", (8 + 4 + 8) * groups * queries),
            Part("results by group", 600 * groups * queries),
        )

    def summed(self, scores: Iterable[tuple[int, Array]], queries: Sequence[str]) -> Iterator[Columns]:
        """Yield a table of `GROUP_FIELDS` for each query, groups in descending order of their mean score.

        scores: (first row, (rows, Q)), over all examples in order.
        """
        shape = (len(self.names), len(queries))
        total, best, where = np.zeros(shape), np.full(shape, -np.inf, np.float32), np.zeros(shape, np.int64)
        for first, part in scores:
            groups = self.of[first : first + len(part)]
            count = len(groups)
            membership = scipy.sparse.csr_matrix((np.ones(count), (groups, np.arange(count))), (shape[0], count))
            total += membership @ part.astype(np.float64)
            _update_best(best, where, groups, part, first)
        examples = Examples(self.store)
        for at, query in enumerate(queries):
            mean = total[:, at] / self.sizes
            order = np.argsort(-mean, kind="stable")
            yield {
                "query_id": [query] * len(order),
                "rank": list(range(1, len(order) + 1)),
                "group": [self.names[group] for group in order],
                "examples": self.sizes[order].tolist(),
                "mean": mean[order].tolist(),
                "total": total[order, at].tolist(),
                "best": best[order, at].tolist(),
                "best_example": examples.get("id", where[order, at]),
            }


def _update_best(best: Array, where: Array, row_groups: Array, part: Array, first: int) -> None:
    """Update each group's best score so far and its row; ties go to the lower row."""
    order = np.argsort(row_groups, kind="stable")
    starts = np.flatnonzero(np.diff(row_groups[order], prepend=-1))
    groups, sorted_ = row_groups[order][starts], np.ascontiguousarray(part[order])
    highest = np.maximum.reduceat(sorted_, starts, axis=0)  # (groups in this part, Q)
    better = highest > best[groups]
    spans = [*starts.tolist(), len(order)]
    for at, query in zip(*np.nonzero(better), strict=True):
        span = slice(spans[at], spans[at + 1])
        row = order[span][int(np.argmax(sorted_[span, query]))]
        best[groups[at], query], where[groups[at], query] = highest[at, query], first + row


def _labels(
    store: FeatureStore, table_labels: Mapping[str, str] | None, table: str, rows: int | None
) -> Iterator[list[str]]:
    """The labels of a store's first `rows` examples (None: of all) in order, some rows at a time."""
    examples = Examples(store)
    rows = store.rows(EXAMPLES) if rows is None else rows
    for first in range(0, rows, TEXT_CHUNK_ROWS):
        these = np.arange(first, min(rows, first + TEXT_CHUNK_ROWS))
        if table_labels is None:
            yield examples.strings("source", these)
            continue
        ids = examples.strings("id", these)
        names = [name if name in table_labels else document_of(name) for name in ids]
        absent = next((name for name in names if name not in table_labels), None)
        if absent is not None:
            raise DataError(f"{table} has no record for example {absent}")
        yield [table_labels[name] for name in names]


def document_of(example: str) -> str:
    """The id of the document that an example is a window of: windows of document L are named L#0, L#1, …"""
    name, mark, part = example.rpartition("#")
    return name if mark and part.isdecimal() else example


def labels_of_table(table: str, column: str) -> dict[str, str]:
    """Example id → value of a column, or of an array (N,) of a file of arrays. A record without an id is named by its line, as
    in a corpus.

    Raises:
        CorpusError: the table cannot be read. DataError: it lacks the column.
    """
    if is_array_path(table):
        return _labels_of_arrays(table, column)
    labels: dict[str, str] = {}
    for source in find_sources([table], lines=True):
        for record in read_records(source.path, source.format, 0, None):
            if record.error:
                raise CorpusError(f"{source.path}:{record.line}: {record.error}")
            if column not in record.fields:
                raise DataError(
                    f"{source.path}:{record.line} has no column {column}; it has {', '.join(record.fields)}"
                )
            name, value = record_name(source, record), str(record.fields[column])
            if labels.setdefault(name, value) != value:
                raise DataError(
                    f"{source.path}:{record.line}: id {name} has {column} {value}, but an earlier line has {labels[name]}"
                )
    return labels


def _labels_of_arrays(path: str, column: str) -> dict[str, str]:
    source, arrays = open_arrays(path)
    if column not in arrays:
        raise DataError(f"{path} has no array {column}; it has {', '.join(sorted(arrays))}")
    if len(arrays[column].shape) != 1:
        raise DataError(f"{path}: {column} is {tuple(arrays[column].shape)}, expected one value per example")
    values = _strings(arrays[column])
    names = _strings(arrays["id"]) if "id" in arrays else [f"{source.name}:{row}" for row in range(len(values))]
    if len(names) != len(values) or len(set(names)) != len(names):
        raise DataError(f"{path}: expected {len(values)} distinct ids, one per value")
    return dict(zip(names, values, strict=True))


def _strings(array: StoredArray) -> list[str]:
    return [scalar_text(value) for value in np.asarray(array[0 : array.shape[0]]).tolist()]
