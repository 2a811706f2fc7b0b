"""Result tables: results with the examples' ids and texts, written in parts as JSONL, CSV or Parquet. Knows no method and no
model.
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
from .example_table import Cell, Columns, Examples
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
SEEDED_FIELDS = {**RESULT_FIELDS, "error": pa.float32(), "rank_low": pa.int32(), "rank_high": pa.int32()}
VALUE_FIELDS = {
    "example_id": pa.string(), "score": pa.float32(), "row": pa.int64(), "source": pa.string(), "line": pa.int64(),
}  # fmt: skip
FORMATS = ("jsonl", "csv", "parquet")


def result_rows(results: Results, store: FeatureStore) -> Iterator[Columns]:
    """Results as tables with the columns of :func:`fields_of`, some queries at a time."""
    examples, k = Examples(store), results.rows.shape[1]
    of_seeds = {"error": results.error, "rank_low": results.rank_low, "rank_high": results.rank_high}
    further = {name: value for name, value in of_seeds.items() if value is not None} | dict(results.further_columns)
    for start in range(0, len(results.queries), RESULT_QUERIES):
        rows = results.rows[start : start + RESULT_QUERIES].reshape(-1)
        ids = results.queries[start : start + RESULT_QUERIES]
        yield {
            "query_id": [query for query in ids for _ in range(k)],
            "rank": [rank + 1 for _ in ids for rank in range(k)],
            "example_id": examples.get("id", rows),
            "score": results.scores[start : start + RESULT_QUERIES].reshape(-1).tolist(),
            "text": examples.texts(rows),
            "row": rows.tolist(),
            "source": examples.get("source", rows),
            "line": examples.get("line", rows),
            "method": [results.method] * len(rows),
            "exact": [results.exact] * len(rows),
            **{name: value[start : start + RESULT_QUERIES].reshape(-1).tolist() for name, value in further.items()},
        }


def fields_of(results: Results) -> Fields:
    """The columns of the table of results."""
    if results.further_columns:
        return RECOVERED_FIELDS
    return RESULT_FIELDS if results.error is None else SEEDED_FIELDS


def value_rows(scores: Iterable[tuple[int, Array]], store: FeatureStore, size: int = 8192) -> Iterator[Columns]:
    """Values with their examples, as tables of `VALUE_FIELDS` of about `size` rows."""
    examples = Examples(store)
    parts: list[Array] = []
    start = 0
    for first, part in scores:
        start = start if parts else first
        parts.append(part.copy())
        if sum(map(len, parts)) >= size:
            yield _value_table(start, np.concatenate(parts), examples)
            parts = []
    if parts:
        yield _value_table(start, np.concatenate(parts), examples)


def _value_table(first: int, scores: Array, examples: Examples) -> Columns:
    rows = np.arange(first, first + len(scores))
    return {
        "example_id": examples.get("id", rows),
        "score": scores.tolist(),
        "row": rows.tolist(),
        "source": examples.get("source", rows),
        "line": examples.get("line", rows),
    }


def format_of(path: str) -> str:
    """The format of a file's suffix.

    Raises:
        SettingsError: results cannot be written in it, or the path is a folder.
    """
    suffix = Path(path).suffix.lstrip(".").lower()
    if suffix not in FORMATS:
        raise SettingsError(f"{path}: results can only be written as .{', .'.join(FORMATS)}")
    if Path(path).is_dir():
        raise SettingsError(f"{path} is a folder: give the path of a file for the results")
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
    def __init__(self, path: Path, fields: Fields) -> None:
        self._schema = pa.schema(list(fields.items()))
        self._writer = pq.ParquetWriter(path, self._schema)

    def write(self, columns: Columns) -> None:
        self._writer.write_table(pa.table(columns, schema=self._schema))

    def close(self) -> None:
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
