"""Reads the records of other libraries' tables and data sets: datasets, pandas, polars, Arrow.

A library is imported only for an object of its own. Knows no digest and no document.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from ...store.errors import CorpusError
from .spooled_records import spool_batches

if TYPE_CHECKING:
    import pyarrow as pa

_ROWS, _BYTES = 256, 4 << 20  # rows that become Python objects together: at most so many, of about so many bytes


@dataclass(frozen=True, slots=True)
class TableRecords:
    """The records of a table."""

    read: Callable[[int], Iterator[object]]
    """The records from a 0-based number on, as the library has them."""
    description: str = ""
    """Of a stream, which is too long to be read for its digest: what it says of itself. Empty: all records are read."""


def table_records(value: object) -> TableRecords | None:
    """The records of an object of one of the libraries; None for any other object.

    Raises:
        CorpusError: the object holds several tables, or two columns of one name.
    """
    if is_of(value, "datasets", "DatasetDict", "IterableDatasetDict"):
        splits = ", ".join(str(name) for name in value) if isinstance(value, Mapping) else ""
        raise CorpusError(
            f"a {type(value).__name__} holds several data sets ({splits})", hint="give one, such as data['train']"
        )
    for library, name, records in _KINDS:
        if is_of(value, library, name):
            return records(value)
    if hasattr(value, "__arrow_c_stream__") and column_values(value) is None:
        import pyarrow as pa

        return _of_reader(pa.RecordBatchReader.from_stream(value))
    return None


def column_values(value: Any) -> Callable[[], list[Any]] | None:
    """The method that gives an array's or column's values as a list; None for an object that has none."""
    methods: Iterator[Any] = (getattr(value, name, None) for name in ("tolist", "to_list", "to_pylist"))
    return next((method for method in methods if callable(method)), None)


def is_of(value: object, library: str, *names: str) -> bool:
    """Whether a value's class, or one above it, is of a library and has one of these names."""
    return any(c.__name__ in names and c.__module__.partition(".")[0] == library for c in type(value).__mro__)


def _by_slices(count: int, size: int, rows: Callable[[int, int], Iterable[object]]) -> TableRecords:
    """Records that are made `rows(first, stop)` at a time; `size`: bytes of all of them, 0 if unknown."""
    at_once = max(1, min(_ROWS, _BYTES * count // max(1, size)))

    def read(start: int) -> Iterator[object]:
        for first in range(start, count, at_once):
            yield from rows(first, min(count, first + at_once))

    return TableRecords(read)


def _of_table(table: Any) -> TableRecords:
    """Of an Arrow table or record batch."""
    _require_distinct(table.schema.names)
    return _by_slices(table.num_rows, table.nbytes, lambda first, stop: table.slice(first, stop - first).to_pylist())


def _of_reader(reader: Any) -> TableRecords:
    """Of a stream of Arrow batches, which can be read only once."""
    return _of_table(spool_batches(reader.schema, reader))


def _of_arrow_dataset(dataset: Any) -> TableRecords:
    """Of an Arrow data set, such as a folder of files."""
    _require_distinct(dataset.schema.names)

    def read(start: int) -> Iterator[object]:
        row = 0
        for fragment in dataset.get_fragments():
            count = fragment.count_rows()
            if row + count > start:
                yield from islice(_rows_of_fragment(fragment, dataset.schema), max(0, start - row), None)
            row += count

    return TableRecords(read)


def _rows_of_fragment(fragment: Any, schema: pa.Schema) -> Iterator[object]:
    scan = {"batch_size": _ROWS, "batch_readahead": 1, "fragment_readahead": 1, "use_threads": False}
    for batch in fragment.to_batches(schema=schema, **scan):
        yield from batch.to_pylist()


def _of_pandas(frame: Any) -> TableRecords:
    """Of a pandas frame without its index; a missing value is None."""
    _require_distinct([str(name) for name in frame.columns])

    def rows(first: int, stop: int) -> Iterable[object]:
        part = frame.iloc[first:stop]
        result: list[object] = part.astype(object).where(part.notna(), None).to_dict("records")
        return result

    return _by_slices(len(frame), int(frame.memory_usage(deep=False).sum()), rows)


def _of_polars(frame: Any) -> TableRecords:
    return _by_slices(
        frame.height, frame.estimated_size(), lambda first, stop: frame.slice(first, stop - first).to_dicts()
    )


def _of_lazy_frame(frame: Any) -> TableRecords:
    """Of a polars query, which is run once and whose result is written to a temporary file."""
    batches = (batch for part in frame.collect_batches(maintain_order=True) for batch in part.to_arrow().to_batches())
    first = next(batches, None)
    if first is None:
        return TableRecords(lambda start: iter(()))
    return _of_table(spool_batches(first.schema, _chained(first, batches)))


def _chained(first: pa.RecordBatch, others: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    yield first
    yield from others


def _of_dataset(dataset: Any) -> TableRecords:
    """Of a data set in memory or mapped from disk; media stay encoded, and a transform of the user's is applied."""
    count = len(dataset)
    if dataset.format["type"] == "custom":
        return _by_slices(count, 0, lambda first, stop: (dataset[at] for at in range(first, stop)))
    arrow = dataset.with_format("arrow", columns=dataset.format["columns"])
    size = arrow.data.nbytes * count // max(1, arrow.data.num_rows)
    return _by_slices(count, size, lambda first, stop: arrow[first:stop].to_pylist())


def _of_iterable_dataset(dataset: Any) -> TableRecords:
    """Of a data set that is streamed, each time from its beginning or, where its files allow it, from a later record on."""
    info = dataset.info
    sizes = [(name, split.num_examples, split.num_bytes) for name, split in (info.splits or {}).items()]
    facts = (info.builder_name, info.config_name, str(info.version), str(dataset.split), repr(info.features), sizes)
    return TableRecords(lambda start: iter(dataset.skip(start) if start else dataset), repr(facts))


def _require_distinct(names: list[str]) -> None:
    if duplicates := sorted({name for name in names if names.count(name) > 1}):
        raise CorpusError(f"column {duplicates[0]!r} appears twice in the table", hint="rename one of them")


_KINDS: tuple[tuple[str, str, Callable[[Any], TableRecords]], ...] = (
    ("datasets", "Dataset", _of_dataset),
    ("datasets", "IterableDataset", _of_iterable_dataset),
    ("pandas", "DataFrame", _of_pandas),
    ("polars", "DataFrame", _of_polars),
    ("polars", "LazyFrame", _of_lazy_frame),
    ("pyarrow", "Table", _of_table),
    ("pyarrow", "RecordBatch", _of_table),
    ("pyarrow", "RecordBatchReader", _of_reader),
    ("pyarrow", "Dataset", _of_arrow_dataset),
)
