"""Result tables: results with the examples' ids and texts, written as JSONL, CSV or Parquet in parts of bounded size. Knows no
method and no model.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Protocol, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ...store.errors import SettingsError
from ...store.feature_store import FeatureStore
from ...store.layout import Array
from ..runtime.output_files import error_of_writing, whole_file
from .example_table import PART_SIZES, Cell, Columns, Examples, PartSize, joined_texts
from .printable import printable_json, spreadsheet_cell
from .results import RESULT_QUERIES, Results

Fields: TypeAlias = dict[str, pa.DataType]
"""Column name → type."""
RESULT_FIELDS = {
    "query_id": pa.string(), "rank": pa.int32(), "example_id": pa.string(), "score": pa.float32(), "text": pa.string(),
    "row": pa.int64(), "source": pa.string(), "line": pa.int64(), "method": pa.string(), "exact": pa.bool_(),
}  # fmt: skip
RECOVERED_FIELDS = {**RESULT_FIELDS, "tie": pa.bool_(), "explained": pa.float32(), "reliability": pa.float32(),
                   "gap": pa.float32()}  # fmt: skip
SPREAD_FIELDS = {"standard_error": pa.float32(), "rank_low": pa.int32(), "rank_high": pa.int32()}
"""Columns of combined scores of several members."""
VALUE_FIELDS = {
    "example_id": pa.string(), "score": pa.float32(), "row": pa.int64(), "source": pa.string(), "line": pa.int64(),
}  # fmt: skip
FORMATS = ("jsonl", "csv", "parquet")
ROW_GROUP_BYTES = 1 << 19
"""Bytes of a row group of a Parquet file, about."""
_PAGE_BYTES = 1 << 16
_REPEATED = {"query_id", "source", "method", "subset", "task"}


def result_rows(results: Results, store: FeatureStore, most: PartSize = PART_SIZES[0]) -> Iterator[Columns]:
    """Results as tables with the columns of :func:`fields_of`, each of a bounded part of some queries' results."""
    examples, k = Examples(store), results.rows.shape[1]
    further = _spread(results) | dict(results.further_columns)
    names = ("id", "prompt", "text", "source", "line")
    for start in range(0, len(results.queries), RESULT_QUERIES):
        rows = results.rows[start : start + RESULT_QUERIES].reshape(-1)
        values = {name: value[start : start + RESULT_QUERIES] for name, value in further.items()}
        scores = results.scores[start : start + RESULT_QUERIES]
        for part, columns in examples.parts(names, rows, most):
            query, rank = np.divmod(np.arange(part.start, part.stop), k)
            yield {
                "query_id": [results.queries[start + number] for number in query.tolist()],
                "rank": (rank + 1).tolist(),
                "example_id": columns["id"],
                "score": scores[query, rank].tolist(),
                "text": joined_texts(columns),
                "row": rows[part].tolist(),
                "source": columns["source"],
                "line": columns["line"],
                "method": [results.method] * len(rank),
                "exact": [results.exact] * len(rank),
                **{name: value[query, rank].tolist() for name, value in values.items()},
            }


def fields_of(results: Results) -> Fields:
    """The columns of the table of results."""
    fields = RECOVERED_FIELDS if results.further_columns else RESULT_FIELDS
    return {**fields, **{name: SPREAD_FIELDS[name] for name in _spread(results)}}


def _spread(results: Results) -> dict[str, Array]:
    """The columns of `SPREAD_FIELDS`; none for a single member."""
    columns = {name: getattr(results, name) for name in SPREAD_FIELDS}
    return {name: value for name, value in columns.items() if value is not None}


def value_rows(
    scores: Iterable[tuple[int, Array]], store: FeatureStore, most: PartSize = PART_SIZES[0]
) -> Iterator[Columns]:
    """Values with their examples, as tables of `VALUE_FIELDS`, each of bounded size; without examples whose value is NaN, which
    a filter has left out.
    """
    examples = Examples(store)
    for first, values in _joined(scores, most.rows // 2):
        ranked = np.flatnonzero(~np.isnan(values))
        rows, values = first + ranked, values[ranked]
        for part, columns in examples.parts(("id", "source", "line"), rows, most):
            yield {
                "example_id": columns["id"],
                "score": values[part].tolist(),
                "row": rows[part].tolist(),
                "source": columns["source"],
                "line": columns["line"],
            }


def _joined(scores: Iterable[tuple[int, Array]], size: int) -> Iterator[tuple[int, Array]]:
    """Consecutive (first row, (rows,)) arrays, joined to some of at least `size` rows."""
    parts: list[Array] = []
    start = 0
    for first, part in scores:
        start = start if parts else first
        parts.append(part.copy())
        if sum(map(len, parts)) >= size:
            yield start, np.concatenate(parts)
            parts = []
    if parts:
        yield start, np.concatenate(parts)


def format_of(path: str) -> str:
    """The format of a file's suffix.

    Raises:
        SettingsError: results cannot be written in it, or the path is a folder.
    """
    suffix = Path(path).suffix.lstrip(".").lower()
    if suffix not in FORMATS:
        raise SettingsError(f"{path}: results can only be written as .{', .'.join(FORMATS)}")
    if Path(path).is_dir():
        raise SettingsError(f"{path} is a folder", hint="give the path of a file for the results")
    return suffix


class ResultFile:
    """A file of results that appears complete, after all parts are written, or not at all."""

    def __init__(self, path: str, fields: Fields) -> None:
        """The suffix of `path` is the format."""
        self.path, self.fields, self._format = Path(path), fields, format_of(path)

    def __enter__(self) -> ResultFile:
        with ExitStack() as stack:
            hidden = stack.enter_context(whole_file(self.path))
            self._sink = _SINKS[self._format](hidden, self.fields)
            stack.callback(self._sink.close)  # before the file takes its name
            self._stack = stack.pop_all()
        return self

    def write(self, columns: Columns) -> None:
        """Append a table."""
        try:
            self._sink.write(columns)
        except OSError as error:
            raise error_of_writing(self.path, error) from None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)


class _Sink(Protocol):
    """A file that is open for writing, of one format."""

    def write(self, columns: Columns) -> None:
        """Append a table."""

    def close(self) -> None:
        """Flush and close the file."""


class _Jsonl:
    def __init__(self, path: Path, fields: Fields) -> None:
        self._file: IO[str] = path.open("w", encoding="utf-8")

    def write(self, columns: Columns) -> None:
        write_jsonl(self._file, columns)

    def close(self) -> None:
        self._file.close()


class _Csv:
    def __init__(self, path: Path, fields: Fields) -> None:
        self._file = path.open("w", encoding="utf-8", newline="")
        self._writer = csv.writer(self._file)
        self._writer.writerow(fields)

    def write(self, columns: Columns) -> None:
        cells = (
            [spreadsheet_cell(cell) if isinstance(cell, str) else cell for cell in values]
            for values in columns.values()
        )
        self._writer.writerows(zip(*cells, strict=True))

    def close(self) -> None:
        self._file.close()


class _Parquet:
    """Writes row groups of about `ROW_GROUP_BYTES`: the file's index, which is in memory until the end, stays small."""

    def __init__(self, path: Path, fields: Fields) -> None:
        self._schema = pa.schema(list(fields.items()))
        repeated = [name for name in fields if name in _REPEATED]  # dictionaries of other values only take memory
        self._writer = pq.ParquetWriter(path, self._schema, use_dictionary=repeated, data_page_size=_PAGE_BYTES)
        self._tables: list[pa.Table] = []

    def write(self, columns: Columns) -> None:
        self._tables.append(pa.table(columns, schema=self._schema))
        if sum(table.nbytes for table in self._tables) >= ROW_GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._tables:
            self._writer.write_table(pa.concat_tables(self._tables))
        self._tables = []

    def close(self) -> None:
        try:
            self._flush()
        finally:
            self._writer.close()


_SINKS: dict[str, Callable[[Path, Fields], _Sink]] = {"jsonl": _Jsonl, "csv": _Csv, "parquet": _Parquet}


def _without_nan(values: Sequence[Cell]) -> list[Cell]:
    """The values, None for NaN and Inf, which JSON lacks."""
    return [None if isinstance(value, float) and not math.isfinite(value) else value for value in values]


def write_jsonl(file: IO[str], columns: Columns) -> None:
    """Write a table as one JSON object per line; characters that are not printable are escaped."""
    columns = {name: _without_nan(values) for name, values in columns.items()}
    for values in zip(*columns.values(), strict=True):
        file.write(printable_json(dict(zip(columns, values, strict=True))) + "\n")
