"""Files of results: JSONL, JSON, CSV, Parquet, and formats that a caller adds; each appears whole or not at all. Knows no column
by name but those of a query.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import IO, Protocol, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from ...store.errors import SettingsError
from ...store.json_values import JsonFields, JsonObject
from ..runtime.output_files import error_of_writing, whole_file
from .answers_origin import KEY
from .example_table import Cell, Columns
from .printable import printable_json, spreadsheet_cell

Fields: TypeAlias = dict[str, pa.DataType]
"""Column name → type."""
FORMATS = ("jsonl", "json", "csv", "parquet", "html")
"""Of answers."""
TABLE_FORMATS = FORMATS[:4]
"""Of tables that no page shows."""
ROW_GROUP_BYTES = 1 << 19
"""Bytes of a row group of a Parquet file, about."""
_PAGE_BYTES = 1 << 16
_REPEATED = {"query_id", "source", "method", "store", "query_prompt", "query_completion", "subset", "task"}
_OF_QUERY = {"query_id": "id", "query_prompt": "prompt", "query_completion": "completion"}
_OF_FILE = ("method", "store")
SEVERAL = "methods"
"""Where the origins of a file with the answers of several methods are."""


def format_of(path: str, formats: Sequence[str] = FORMATS) -> str:
    """The format of a file's suffix, one of `formats`.

    Raises:
        SettingsError: results cannot be written in it, or the path is a folder.
    """
    suffix = Path(path).suffix.lstrip(".").lower()
    if suffix not in formats:
        raise SettingsError(f"{path}: results can only be written as .{', .'.join(formats)}")
    if Path(path).is_dir():
        raise SettingsError(f"{path} is a folder", hint="give the path of a file for the results")
    return suffix


class Sink(Protocol):
    """A file that is open for writing, of one format."""

    def write(self, columns: Columns) -> None:
        """Append a table."""

    def close(self) -> None:
        """Flush and close the file."""


OpenSink: TypeAlias = Callable[[Path, Fields, JsonObject], Sink]
"""Opens a file of one format for tables of some columns, with what the file says of their origin."""


class ResultFile:
    """A file of results that appears complete, after all parts are written, or not at all."""

    def __init__(
        self, path: str, fields: Fields, origin: JsonObject = MappingProxyType({}),
        further: Mapping[str, OpenSink] = MappingProxyType({}),
    ) -> None:  # fmt: skip
        """The suffix of `path` is the format; `further`: how to open those that are not of this module."""
        self.path, self.fields, self._format = Path(path), fields, format_of(path)
        self._origin, self._open = origin, {**_SINKS, **further}

    def __enter__(self) -> ResultFile:
        with ExitStack() as stack:
            hidden = stack.enter_context(whole_file(self.path))
            self._sink = self._open[self._format](hidden, self.fields, self._origin)
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


class _Jsonl:
    def __init__(self, path: Path, fields: Fields, origin: JsonObject) -> None:
        self._file: IO[str] = path.open("w", encoding="utf-8")

    def write(self, columns: Columns) -> None:
        write_jsonl(self._file, columns)

    def close(self) -> None:
        self._file.close()


class _Csv:
    def __init__(self, path: Path, fields: Fields, origin: JsonObject) -> None:
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

    def __init__(self, path: Path, fields: Fields, origin: JsonObject) -> None:
        self._schema = pa.schema(list(fields.items()), {KEY: json.dumps(origin)} if origin else None)
        repeated = [name for name in fields if name in _REPEATED]  # dictionaries of other values only take memory
        self._writer = pq.ParquetWriter(path, self._schema, use_dictionary=repeated, data_page_size=_PAGE_BYTES)
        self._tables: list[pa.Table] = []

    def write(self, columns: Columns) -> None:
        arrays = [_array(columns[field.name], field.type) for field in self._schema]
        self._tables.append(pa.Table.from_arrays(arrays, schema=self._schema))
        if sum(table.nbytes for table in self._tables) >= ROW_GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._tables:
            self._writer.write_table(pa.concat_tables(self._tables).unify_dictionaries())
        self._tables = []

    def close(self) -> None:
        try:
            self._flush()
        finally:
            self._writer.close()


def _array(values: Sequence[Cell], kind: pa.DataType) -> pa.Array:
    """Values as an Arrow array; of a dictionary's type, each different value is copied once."""
    if not pa.types.is_dictionary(kind):
        return pa.array(values, kind)
    numbers: dict[Cell, int] = {}
    indices = [numbers.setdefault(value, len(numbers)) for value in values]
    return pa.DictionaryArray.from_arrays(pa.array(indices, kind.index_type), pa.array(list(numbers), kind.value_type))


class _Json:
    """One object: the origin, and the queries with their answers; or the rows, of tables that have no query."""

    def __init__(self, path: Path, fields: Fields, origin: JsonObject) -> None:
        self._file: IO[str] = path.open("w", encoding="utf-8")
        self._by_query, several = "query_id" in fields, SEVERAL in origin
        self._of_query = {**_OF_QUERY, "method": "method"} if several else _OF_QUERY
        self._first_query = self._first_row = True
        self._file.write(f'{{"{KEY}": {printable_json(dict(origin))},\n"{"queries" if self._by_query else "rows"}": [')

    def write(self, columns: Columns) -> None:
        """Append a table."""
        for row in rows_of(columns):
            if self._by_query and starts_query(row):
                self._begin_query({name: row[column] for column, name in self._of_query.items() if column in row})
            own = {name: value for name, value in row.items() if name not in (*_OF_QUERY, *_OF_FILE)}
            self._file.write(f"{'' if self._first_row else ','}\n  {printable_json(own)}")
            self._first_row = False

    def _begin_query(self, query: JsonFields) -> None:
        self._file.write("" if self._first_query else "]},")
        self._first_query, self._first_row = False, True
        self._file.write(f'\n {printable_json(query)[:-1]}, "answers": [')

    def close(self) -> None:
        """Close the object and the file."""
        self._file.write("]}" * (self._by_query and not self._first_query) + "]}\n")
        self._file.close()


_SINKS: dict[str, OpenSink] = {"jsonl": _Jsonl, "json": _Json, "csv": _Csv, "parquet": _Parquet}


def starts_query(row: JsonObject) -> bool:
    """Whether a row is the first of a query's: ids of queries may repeat, ranks begin at 1."""
    return row.get("rank") == 1


def rows_of(columns: Columns) -> Iterator[dict[str, Cell]]:
    """The rows of a table, None in place of NaN and Inf."""
    finite = {name: _without_nan(values) for name, values in columns.items()}
    for values in zip(*finite.values(), strict=True):
        yield dict(zip(finite, values, strict=True))


def _without_nan(values: Sequence[Cell]) -> list[Cell]:
    """The values, None for NaN and Inf, which JSON lacks."""
    return [None if isinstance(value, float) and not math.isfinite(value) else value for value in values]


def write_jsonl(file: IO[str], columns: Columns) -> None:
    """Write a table as one JSON object per line; characters that are not printable are escaped."""
    for row in rows_of(columns):
        file.write(printable_json(row) + "\n")
