"""Streaming readers of JSONL, JSON, text, CSV, TSV and Parquet files, plain or compressed.

A record is a dict with its position in the file, or the reason why it cannot be used. At most one record is in memory
(Parquet: one small batch; `.json`: the whole file, up to JSON_LIMIT), and reading can start at any record. Knows nothing of
documents, templates or the policy for record errors. A file that cannot be read to its end is a CorpusError.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, TypeAlias

from ...store.errors import CorpusError
from .decompression import BUFFER, open_decompressed, split_suffix
from .line_reader import RECORD_LIMIT, Lines, is_blank, lines_of, nonblank_lines, require_utf8

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

JSON_LIMIT = 1 << 30  # bytes of the largest `.json` file, which has to be parsed whole
PARAGRAPH_LIMIT = 1 << 20  # bytes after which a paragraph is cut at a line end
BATCH_BYTES, BATCH_ROWS = 4 << 20, 256  # a Parquet batch: about this many bytes, at most this many rows
SUFFIXES = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".txt": "text", ".text": "text", ".md": "text",
    ".csv": "csv", ".tsv": "csv", ".parquet": "parquet",
}  # fmt: skip

Fields: TypeAlias = dict[str, object]
"""Field name → value, of any type that the format has."""
RawRecord: TypeAlias = Any
"""A record that is not parsed yet; each format has its own type."""
Opened: TypeAlias = tuple[Iterable[tuple[int, RawRecord]], Callable[[RawRecord], Fields]]
"""What a reader returns: (line, raw record) pairs, which are cheap to skip, and the function that parses a raw record."""


class BadRecord(Exception):
    """One record cannot be used; `line_offset` is the line of the error, counted from the record's first line."""

    def __init__(self, reason: str, line_offset: int = 0) -> None:
        super().__init__(reason)
        self.line_offset = line_offset


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a file, usable or not."""

    line: int
    """1-based line on which it starts, or its row if the format has no lines; of an unusable record the line of the error."""
    ordinal: int
    """0-based number among the file's records, unusable ones included."""
    fields: Fields
    """Field names to values; empty or incomplete if `error` is set."""
    error: str = ""
    """Why the record cannot be used; "" if it can."""


def read_records(path: str, format: str, start: int, columns: Container[str] | None) -> Iterator[Record]:
    """Yield the file's records from number `start`. Of a columnar format only `columns` are read (None: all); the values of other
    columns are Ellipsis.
    """
    if format == "parquet":
        yield from _parquet(path, start, columns)
        return
    items, parse = _READERS[format](path)
    for ordinal, (line, item) in islice(enumerate(items), start, None):
        try:
            record = Record(line, ordinal, parse(item))
        except BadRecord as bad_record:
            record = Record(line + bad_record.line_offset, ordinal, {}, str(bad_record))
        yield record


def _decode(line: bytes | None, line_offset: int = 0) -> str:
    if line is None:
        raise BadRecord(f"longer than {RECORD_LIMIT >> 20} MiB", line_offset)
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise BadRecord(f"invalid UTF-8 at byte offset {error.start} of the line", line_offset) from None


def _parse_json(text: str) -> object:
    """Parse a JSON value."""
    try:
        return json.loads(text, object_pairs_hook=_distinct_fields)
    except json.JSONDecodeError as error:
        raise BadRecord(f"bad JSON: {error.msg} (column {error.colno})", error.lineno - 1) from None
    except (RecursionError, ValueError) as error:  # nested too deeply; an integer of more than 4300 digits
        raise BadRecord(f"bad JSON: {str(error).partition(';')[0]}") from None


def _distinct_fields(pairs: list[tuple[str, object]]) -> Fields:
    """A JSON object's fields; BadRecord if two have one name, of which json would keep the last."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise BadRecord(f"field {_first_duplicate([name for name, _ in pairs])!r} appears twice in one JSON object")
    return fields


def _first_duplicate(names: Sequence[str]) -> str | None:
    """The first name that stands in `names` before, too; None if all differ."""
    seen: set[str] = set()
    return next((name for name in names if name in seen or seen.add(name)), None)  # type: ignore[func-returns-value]


def _require_object(value: object) -> Fields:
    if not isinstance(value, dict):
        raise BadRecord(f"not a JSON object but {type(value).__name__}")
    return value


def _object_line(line: bytes | None) -> Fields:
    return _require_object(_parse_json(_decode(line).rstrip()))


def _json(path: str) -> Opened:
    """An array of objects or one object, parsed whole; or JSONL, if the first line alone is an object."""
    _, first = next(nonblank_lines(path), (0, None))
    if first and first.lstrip().startswith(b"{"):
        with suppress(BadRecord):  # BadRecord: the first line is only the start of an object over several lines
            _object_line(first)
            return nonblank_lines(path), _object_line
    return enumerate(value if isinstance(value := _read_json(path), list) else [value], 1), _require_object


def _read_json(path: str) -> object:
    """The value of the whole file; CorpusError if it is too large or does not parse, because then there are no records."""
    content = bytearray()
    with open_decompressed(path, lambda: content.count(b"\n")) as stream:
        while len(content) <= JSON_LIMIT and (chunk := stream.read(BUFFER)):
            content += chunk
    if len(content) > JSON_LIMIT:
        raise CorpusError(f"{path}: larger than {JSON_LIMIT >> 20} MiB; convert it to JSONL, which is streamed")
    require_utf8(path, content)
    try:
        return _parse_json(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        decoded = error.object  # without the byte order mark
        line, start = decoded.count(b"\n", 0, error.start) + 1, decoded.rfind(b"\n", 0, error.start) + 1
        raise CorpusError(f"{path}:{line}: invalid UTF-8 at byte offset {error.start - start} of the line") from None
    except BadRecord as bad_record:
        raise CorpusError(f"{path}:{1 + bad_record.line_offset}: {bad_record}") from None


def _paragraphs(path: str) -> Iterator[tuple[int, list[bytes | None]]]:
    """Blocks of lines between blank lines, cut at PARAGRAPH_LIMIT; a line above RECORD_LIMIT is a block of its own."""
    first, size = 1, 0
    block: list[bytes | None] = []
    for number, line in lines_of(path):
        blank = is_blank(line)
        length = PARAGRAPH_LIMIT + 1 if line is None else len(line)
        if block and (blank or size + length > PARAGRAPH_LIMIT):
            yield first, block
            block, size = [], 0
        if not blank:
            first = first if block else number
            block.append(line)
            size += length
    if block:
        yield first, block


def _join_lines(block: list[bytes | None]) -> Fields:
    text = "".join(_decode(line, line_offset) for line_offset, line in enumerate(block))
    return {"text": text.replace("\r\n", "\n").rstrip("\r\n")}


def _row_lines(first: tuple[int, bytes | None], following: Lines, bad_records: list[BadRecord]) -> Iterator[str]:
    """The lines of one row for csv.reader, which takes as many as it needs; unusable lines are added to `bad_records`."""
    size = 0
    for number, line in chain([first], following):
        size += RECORD_LIMIT + 1 if line is None else len(line)
        if line is None or size > RECORD_LIMIT:
            bad_records.append(BadRecord(f"row longer than {RECORD_LIMIT >> 20} MiB; is a quote never closed?"))
            return
        try:
            text = _decode(line, number - first[0])
        except BadRecord as error:  # read to the row's end, or the rest of a quoted cell would be parsed as rows
            bad_records.append(error)
            text = line.decode(errors="replace")
        yield text


class _Commas(csv.excel):
    strict = True


class _QuotedTabs(_Commas):
    delimiter = "\t"


class _Tabs(_QuotedTabs):
    """Every quotation mark is text, as the format's registration (text/tab-separated-values) has it."""

    quoting = csv.QUOTE_NONE


def _rows(path: str) -> Iterator[tuple[int, list[str] | BadRecord]]:
    """Yield every non-blank row with the line on which it starts. In a .tsv, quotation marks are text, unless the header row
    begins with one: then every cell may be quoted.
    """
    lines = lines_of(path)
    dialect = _Tabs if split_suffix(path)[0] == ".tsv" else _Commas
    for first in lines:
        if dialect is _Tabs and first[0] == 1 and (first[1] or b"").startswith(b'"'):
            dialect = _QuotedTabs
        bad_records: list[BadRecord] = []
        row: list[str] = []
        previous_limit = csv.field_size_limit(RECORD_LIMIT)  # process-wide, 128 KiB by default: restored after each row
        try:
            row = next(csv.reader(_row_lines(first, lines, bad_records), dialect), row)
        except csv.Error as error:
            bad_records.append(BadRecord(f"bad CSV: {str(error).partition(' - ')[0]}"))
        finally:
            csv.field_size_limit(previous_limit)
        if bad_records or row:
            yield first[0], bad_records[0] if bad_records else row


def _csv(path: str) -> Opened:
    """Rows separated by commas (.tsv: tabs) below a header row; columns without a name are dropped."""
    rows = _rows(path)
    line, header = next(rows, (1, BadRecord("no header row")))
    if isinstance(header, BadRecord):
        raise CorpusError(f"{path}:{line + header.line_offset}: {header}")
    if duplicate := _first_duplicate([name for name in header if name]):
        raise CorpusError(f"{path}:{line}: column {duplicate!r} appears twice in the header: rename one of them")

    def parse(row: list[str] | BadRecord) -> Fields:
        if isinstance(row, BadRecord):
            raise row
        if len(row) != len(header):
            raise BadRecord(f"{len(row)} cells where the header has {len(header)}")
        return {name: cell for name, cell in zip(header, row, strict=True) if name}

    return rows, parse


def _parquet(path: str, start: int, columns: Container[str] | None) -> Iterator[Record]:
    """Rows of a Parquet file; row groups before `start` are skipped by their metadata, others are read in small batches."""
    import pyarrow.parquet as pq

    row = 0
    with open_decompressed(path, lambda: row, places=True) as raw:
        file = pq.ParquetFile(raw, buffer_size=BUFFER, pre_buffer=False)
        names = file.schema_arrow.names
        if (duplicate := _first_duplicate(names)) is not None:
            raise CorpusError(f"{path}: column {duplicate!r} appears twice: rename one of them")
        for row, batch in _batches(file, start, [name for name in names if columns is None or name in columns]):
            for i in range(max(0, start - row), batch.num_rows):
                yield _row_record(batch.slice(i, 1), row + i, names)


def _batches(file: pq.ParquetFile, start: int, columns: list[str]) -> Iterator[tuple[int, pa.RecordBatch]]:
    """(number of its first row, batch) for each batch with a row from `start` on."""
    row = 0
    for group in range(file.num_row_groups):
        meta = file.metadata.row_group(group)
        if row + meta.num_rows <= start:
            row += meta.num_rows
            continue
        size = max(1, min(BATCH_ROWS, BATCH_BYTES * meta.num_rows // max(1, meta.total_byte_size)))
        for batch in file.iter_batches(size, [group], columns=columns, use_threads=False):
            if row + batch.num_rows > start:
                yield row, batch
            row += batch.num_rows


def _row_record(row: pa.RecordBatch, ordinal: int, names: list[str]) -> Record:
    try:
        fields = dict.fromkeys(names, ...) | row.to_pylist()[0]
    except ValueError as error:  # a string that is not UTF-8, or a value without a Python type
        return Record(ordinal + 1, ordinal, {}, f"unreadable value: {' '.join(str(error).split())}")
    long = any(isinstance(value, str) and len(value) > RECORD_LIMIT for value in fields.values())
    return Record(ordinal + 1, ordinal, fields, f"longer than {RECORD_LIMIT >> 20} MiB" * long)


_READERS: dict[str, Callable[[str], Opened]] = {
    "jsonl": lambda path: (nonblank_lines(path), _object_line),
    "lines": lambda path: (nonblank_lines(path), lambda line: {"text": _decode(line).rstrip("\r\n")}),
    "text": lambda path: (_paragraphs(path), _join_lines),
    "csv": _csv,
    "json": _json,
}
