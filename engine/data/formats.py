"""Streaming readers of JSONL, JSON, text, CSV and Parquet files, plain, gzipped or zstd.

A record is a dict and its place in the file, or why it cannot be used. Nothing is held beyond one record (Parquet: one
small batch; `.json`: the whole file, up to JSON_LIMIT), and reading can start at any record. Knows nothing of documents,
templates or what is done about faults; a file that cannot be read on is a CorpusError, since what follows is lost.
"""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from ...store.errors import CorpusError
from ...store.files import JsonObject

RECORD_LIMIT = 64 << 20  # bytes of the longest line or record; a longer one is a fault and is never held whole
JSON_LIMIT = 1 << 30  # bytes of the largest `.json` file, which has to be parsed whole
PARAGRAPH_LIMIT = 1 << 20  # bytes after which a paragraph is cut at a line end
BATCH_BYTES, BATCH_ROWS = 4 << 20, 256  # a Parquet batch: about so many bytes, at most so many rows
BUFFER = 1 << 18  # bytes read at once; larger buffers gain nothing
COMPRESSIONS = (".gz", ".zst")
SUFFIXES = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".txt": "text", ".text": "text", ".md": "text",
    ".csv": "csv", ".tsv": "csv", ".parquet": "parquet",
}  # fmt: skip

Fields: TypeAlias = JsonObject
Lines: TypeAlias = Iterator[tuple[int, bytes | None]]  # (1-based number, bytes; None if beyond RECORD_LIMIT)
Opened: TypeAlias = tuple[Iterable[tuple[int, Any]], Callable[[Any], Fields]]
"""A file being read: pairs (line, raw record), cheap to skip, and what parses a raw record."""


class BadRecord(Exception):
    """One record cannot be used; `below` is how many lines under the record's first the reason lies."""

    def __init__(self, reason: str, below: int = 0) -> None:
        super().__init__(reason)
        self.below = below


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a file, good or bad."""

    line: int
    """1-based line it starts on, or row where there are no lines; of a bad record the line at fault."""
    ordinal: int
    """0-based place among the file's records, bad ones counted."""
    fields: Fields
    """Names to values; not to be used if bad."""
    fault: str = ""
    """Why it cannot be used; "" if it can."""


def split_suffix(name: str) -> tuple[str, str]:
    """The name's format suffix and compression suffix, lower case, each "" if there is none."""
    path = Path(name.lower())
    compression = path.suffix if path.suffix in COMPRESSIONS else ""
    return Path(path.stem).suffix if compression else path.suffix, compression


def read_records(path: str, format: str, start: int, wanted: Container[str] | None) -> Iterator[Record]:
    """The file's records from ordinal `start`; a columnar format fills in the `wanted` fields (None: all), others are `...`."""
    if format == "parquet":
        yield from _parquet(path, start, wanted)
        return
    items, parse = _READERS[format](path)
    for ordinal, (line, item) in islice(enumerate(items), start, None):
        try:
            record = Record(line, ordinal, parse(item))
        except BadRecord as bad:
            record = Record(line + bad.below, ordinal, {}, str(bad))
        yield record


@contextmanager
def _opened(path: str, reached: Callable[[], int]) -> Iterator[BinaryIO]:
    """The file's bytes, decompressed as its name says; what fails is a CorpusError that says how far we came."""
    compression = split_suffix(path)[1]
    try:
        with Path(path).open("rb", BUFFER) as raw:
            if compression == ".gz":
                yield io.BufferedReader(gzip.GzipFile(fileobj=raw), BUFFER)
            elif compression == ".zst":
                import pyarrow as pa  # zstandard's stream_reader takes a truncated file for a complete one

                yield io.BufferedReader(pa.CompressedInputStream(raw, "zstd"), BUFFER)
            else:
                yield raw
    except (OSError, EOFError, ValueError, NotImplementedError, zlib.error) as error:  # pyarrow raises the fourth
        reason = (error.strerror if isinstance(error, OSError) else "") or " ".join(str(error).split()) or repr(error)
        where = f"{path}:{reached()}: cannot read beyond this" if reached() else f"{path}: cannot read"
        raise CorpusError(f"{where}: {reason}") from error


def _lines(path: str) -> Lines:
    """Every line of the file, blank ones too, without the byte order mark."""
    number = 0
    with _opened(path, lambda: number) as stream:
        while line := stream.readline(RECORD_LIMIT + 1):
            number += 1
            long = len(line) > RECORD_LIMIT and not line.endswith(b"\n")
            while long and (rest := stream.readline(BUFFER)) and not rest.endswith(b"\n"):
                pass
            yield number, None if long else line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line


def _blank(line: bytes | None) -> bool:
    """Whether it holds white space only, Unicode's included."""
    head = b"!" if line is None else line.lstrip()[:1]
    return not head or (line is not None and not b"!" <= head <= b"~" and not line.decode(errors="replace").strip())


def _filled_lines(path: str) -> Lines:
    return ((number, line) for number, line in _lines(path) if not _blank(line))


def _decoded(line: bytes | None, below: int = 0) -> str:
    if line is None:
        raise BadRecord(f"longer than {RECORD_LIMIT >> 20} MiB", below)
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise BadRecord(f"invalid UTF-8 at byte offset {error.start} of the line", below) from None


def _parsed(text: str) -> Any:
    """The JSON value."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise BadRecord(f"bad JSON: {error.msg} (column {error.colno})", error.lineno - 1) from None
    except (RecursionError, ValueError) as error:  # nested too deeply; an integer of more than 4300 digits
        raise BadRecord(f"bad JSON: {str(error).partition(';')[0]}") from None


def _object(value: Any) -> Fields:
    if not isinstance(value, dict):
        raise BadRecord(f"not a JSON object but {type(value).__name__}")
    return value


def _object_line(line: bytes | None) -> Fields:
    return _object(_parsed(_decoded(line).rstrip()))


def _json(path: str) -> Opened:
    """An array of objects or one object, parsed whole; or, if the first line is an object, JSONL by another name."""
    _, first = next(_filled_lines(path), (0, None))
    if first and first.lstrip().startswith(b"{"):
        with suppress(BadRecord):  # an object over several lines
            _object_line(first)
            return _filled_lines(path), _object_line
    return enumerate(value if isinstance(value := _whole(path), list) else [value], 1), _object


def _whole(path: str) -> Any:
    """The whole file's value; CorpusError where it is too large or does not parse, for then no record is left."""
    held = bytearray()
    with _opened(path, lambda: held.count(b"\n")) as stream:
        while len(held) <= JSON_LIMIT and (chunk := stream.read(BUFFER)):
            held += chunk
    if len(held) > JSON_LIMIT:
        raise CorpusError(f"{path}: larger than {JSON_LIMIT >> 20} MiB; convert it to JSONL, which is streamed")
    try:
        return _parsed(held.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        seen = error.object  # without the byte order mark
        line, start = seen.count(b"\n", 0, error.start) + 1, seen.rfind(b"\n", 0, error.start) + 1
        raise CorpusError(f"{path}:{line}: invalid UTF-8 at byte offset {error.start - start} of the line") from None
    except BadRecord as bad:
        raise CorpusError(f"{path}:{1 + bad.below}: {bad}") from None


def _paragraphs(path: str) -> Iterator[tuple[int, list[bytes | None]]]:
    """Blocks of lines between blank ones, cut at PARAGRAPH_LIMIT; a line too long to hold is a block of its own."""
    first, size = 1, 0
    block: list[bytes | None] = []
    for number, line in _lines(path):
        blank = _blank(line)
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


def _joined(block: list[bytes | None]) -> Fields:
    text = "".join(_decoded(line, below) for below, line in enumerate(block))
    return {"text": text.replace("\r\n", "\n").rstrip("\r\n")}


def _row_lines(first: tuple[int, bytes | None], more: Lines, bad: list[BadRecord]) -> Iterator[str]:
    """One row's lines for csv.reader, which takes as many as it needs; what is wrong with them goes to `bad`."""
    size = 0
    for number, line in chain([first], more):
        size += RECORD_LIMIT + 1 if line is None else len(line)
        if line is None or size > RECORD_LIMIT:
            bad.append(BadRecord(f"row longer than {RECORD_LIMIT >> 20} MiB; is a quote never closed?"))
            return
        try:
            text = _decoded(line, number - first[0])
        except BadRecord as error:  # go on to the row's end, or a quoted cell's tail would be taken for rows
            bad.append(error)
            text = line.decode(errors="replace")
        yield text


def _rows(path: str) -> Iterator[tuple[int, list[str] | BadRecord]]:
    """Every row that is not blank, with the line it starts on."""
    lines = _lines(path)
    delimiter = "\t" if split_suffix(path)[0] == ".tsv" else ","
    for first in lines:
        bad: list[BadRecord] = []
        row: list[str] = []
        before = csv.field_size_limit(RECORD_LIMIT)  # the process's own: 128 KiB, and not ours to change for others
        try:
            row = next(csv.reader(_row_lines(first, lines, bad), delimiter=delimiter, strict=True), row)
        except csv.Error as error:
            bad.append(BadRecord(f"bad CSV: {str(error).partition(' - ')[0]}"))
        finally:
            csv.field_size_limit(before)
        if bad or row:
            yield first[0], bad[0] if bad else row


def _csv(path: str) -> Opened:
    """Comma (.tsv: tab) separated rows under a header row; nameless columns are dropped."""
    rows = _rows(path)
    line, header = next(rows, (1, BadRecord("no header row")))
    if isinstance(header, BadRecord):
        raise CorpusError(f"{path}:{line + header.below}: {header}")
    if twice := [name for i, name in enumerate(header) if name and name in header[:i]]:
        raise CorpusError(f"{path}:{line}: column {twice[0]!r} appears twice in the header")

    def parse(row: list[str] | BadRecord) -> Fields:
        if isinstance(row, BadRecord):
            raise row
        if len(row) != len(header):
            raise BadRecord(f"{len(row)} cells where the header has {len(header)}")
        return {name: cell for name, cell in zip(header, row, strict=True) if name}

    return rows, parse


def _parquet(path: str, start: int, wanted: Container[str] | None) -> Iterator[Record]:
    """Rows of a Parquet file: whole row groups are skipped by their metadata, the rest comes in small batches."""
    import pyarrow.parquet as pq

    row = 0
    with _opened(path, lambda: row) as raw:
        file = pq.ParquetFile(raw, buffer_size=BUFFER, pre_buffer=False)
        names = file.schema_arrow.names
        for row, batch in _batches(file, start, [name for name in names if wanted is None or name in wanted]):
            for i in range(max(0, start - row), batch.num_rows):
                yield _row_record(batch.slice(i, 1), row + i, names)


def _batches(file: Any, start: int, columns: list[str]) -> Iterator[tuple[int, Any]]:
    """(ordinal of its first row, batch) for each batch that holds a row from `start` on."""
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


def _row_record(slice: Any, ordinal: int, names: list[str]) -> Record:
    try:
        fields = dict.fromkeys(names, ...) | slice.to_pylist()[0]
    except ValueError as error:  # a string that is not UTF-8, a value Python has no type for
        return Record(ordinal + 1, ordinal, {}, f"unreadable value: {' '.join(str(error).split())}")
    long = any(isinstance(value, str) and len(value) > RECORD_LIMIT for value in fields.values())
    return Record(ordinal + 1, ordinal, fields, f"longer than {RECORD_LIMIT >> 20} MiB" * long)


_READERS: dict[str, Callable[[str], Opened]] = {
    "jsonl": lambda path: (_filled_lines(path), _object_line),
    "lines": lambda path: (_filled_lines(path), lambda line: {"text": _decoded(line).rstrip("\r\n")}),
    "text": lambda path: (_paragraphs(path), _joined),
    "csv": _csv,
    "json": _json,
}
