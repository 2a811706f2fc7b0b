"""From Python objects to data: paths and URLs, texts, records, token ids, tables and data sets of other libraries, generators.

- `pathlib.Path`, or a string. With `texts` (queries) a string is a text, unless it is a URL, one word with the suffix of a
  format, or the path of something that is there, with a separator or such a suffix. One word that looks like another path is
  refused. Without (a corpus) a string is always a path, glob or URL.
- a dict: one record. A list or tuple of dicts: records; of strings: texts, or paths and URLs if all look so.
- token ids: lists of integers (a list of integers alone is one example), or an integer array or tensor of 1 or 2 dimensions.
  All tokens but the first are targets.
- a generator or other iterable of texts, dicts or token ids: it is read once and written to a temporary file (`TMPDIR`),
  about as large as its records as JSONL.
- `datasets.Dataset` and `IterableDataset`; data frames of pandas (without its index) and polars; polars' lazy frames, which
  are run once; Arrow tables, readers, data sets, and any object with `__arrow_c_stream__`; a map-style PyTorch data set.
- a list or tuple of such tables and data sets: each is a source of its own.

Records are identified by all their contents, in whatever object they come: equal records are the same corpus. Of an
`IterableDataset` only the first 256 records and its description are read for this; a store records how many it had, too, and
counts them again. Objects must not be changed while they are read.

Knows no model and no store. Another library is imported only for an object of its own.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from ...store.errors import CorpusError
from .decompression import split_suffix
from .formats import SUFFIXES, Fields
from .record_source import Data, RecordSource
from .record_values import RecordDigest, plain_record, plain_records, plain_value
from .spooled_records import spool
from .table_records import TableRecords, column_values, table_records

STREAM_SAMPLE = 256
"""Records of a streamed data set that enter its digest."""
_DIGITS = 6  # of the digest in a name
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://\S+|hf:\S+")
_PATH = re.compile(r"[\w.~@+%,=:*?/\\\[\]-]+")  # no markup, such as <b>word</b>
_LONGEST_PATH = 4096
_FILE_SUFFIXES = {*SUFFIXES, ".npz", ".zarr"}
_EXPECTED = (
    "give a path or URL, texts, dicts, token ids, a generator of these, or a table or data set of datasets, pandas, polars, "
    "Arrow or PyTorch"
)


def data_of(value: object, *, texts: bool, name: str = "") -> list[Data]:
    """What can be read as a corpus or as queries, from any of the objects that the module lists. `texts`: whether a string is a
    text (queries) unless it is a path, or always a path (a corpus).

    `name`: of the records, in messages and in ids (NAME:1, …). By default `texts-`, `records-` or `tokens-` and the start of the
    digest.

    Raises:
        CorpusError: the object is of another type, holds nothing, or mixes kinds; a record is no dict; or a string may be a path.
    """
    if isinstance(value, RecordSource):
        return [value]
    if isinstance(value, str):
        is_path = not texts or _is_path(value, texts=True)
        if is_path is None:
            raise _neither(value)
        return [value] if is_path else [_of_sequence([value], name)]
    if isinstance(value, os.PathLike):
        return [str(os.fspath(value))]
    if row := _row_of(value):
        return [_of_sequence([row], name)]
    if table := table_records(value):
        return [_of_table(table, name)]
    if isinstance(value, Mapping):
        return [_of_sequence([value], name)]
    if isinstance(value, (list, tuple)):
        return _of_list(value, texts, name)
    return [_of_other(value, name)]


def _is_path(text: str, *, texts: bool) -> bool | None:
    """Whether a string is a path or URL rather than a text; None if it looks like a path, but nothing is there.

    A URL, and a word that ends as a data file's name does, are paths; so is an existing name, among `texts` one with a separator.
    """
    if _URL.fullmatch(text):
        return True
    if not text or "\n" in text or "\0" in text or len(text) > _LONGEST_PATH:
        return False
    one_word, suffix = not re.search(r"\s", text), split_suffix(Path(text).name)[0]
    if one_word and suffix in _FILE_SUFFIXES:
        return True
    has_separator = "/" in text or os.sep in text
    try:
        if (has_separator or not texts or suffix in _FILE_SUFFIXES) and Path(text).exists():
            return True
    except OSError:  # such as a name that is too long
        return False
    named_alike = _PATH.fullmatch(text) and (has_separator or re.fullmatch(r"\.[a-z][a-z0-9_]{1,9}", suffix))
    return None if named_alike else False


def _row_of(value: Any) -> dict[str, Any]:
    """The record of a row of a pandas data frame, which is a Series whose labels are names; {} for other objects."""
    is_series = type(value).__name__ == "Series" and type(value).__module__.startswith("pandas")
    return dict(value.items()) if is_series and all(isinstance(label, str) for label in value.index) else {}


def _neither(text: str) -> CorpusError:
    hint = f'give pathlib.Path({text!r}), or the record {{"text": {text!r}}}'
    return CorpusError(f"{_shown(text)} looks like a path, but nothing is there: is it a path or a text?", hint=hint)


def _of_strings(values: Sequence[Any], texts: bool) -> list[Data] | None:
    """Paths, if all strings of a list are; None if they are texts.

    Raises:
        CorpusError: some are paths, others texts; or all look like paths, and some of them are not there.
    """
    paths = [isinstance(v, os.PathLike) or (isinstance(v, str) and _is_path(v, texts=texts)) for v in values]
    if all(paths):
        return [str(os.fspath(value)) for value in values]
    if any(paths):
        path, text = values[paths.index(True)], next(v for v, is_path in zip(values, paths, strict=True) if not is_path)
        message = f"a list holds either paths or texts: {str(path)!r} names a file, {_shown(text)} does not"
        raise CorpusError(message, hint="give two lists")
    if None in paths and False not in paths:
        raise _neither(str(values[0]))
    return None


def _of_list(values: list[Any] | tuple[Any, ...], texts: bool, name: str) -> list[Data]:
    """Data of a list: paths, records, or each element's own data."""
    if not values:
        raise CorpusError(f"an empty {type(values).__name__} has no records", hint=_EXPECTED)
    if isinstance(values[0], (str, os.PathLike)) and (paths := _of_strings(values, texts)):
        return paths
    if isinstance(values, tuple) and isinstance(values[0], str):
        pair = '{"prompt": …, "completion": …}'
        raise CorpusError(
            "a tuple of texts: a prompt with its completion, or several texts?", hint=f"give {pair}, or a list"
        )
    if all(_is_integer(value) for value in values):  # one example's tokens
        return [_of_sequence([values], name)]
    if _kind(values[0]) is None:
        parts = (data_of(value, texts=texts, name=name and f"{name}-{i}") for i, value in enumerate(values, 1))
        return list(chain.from_iterable(parts))
    return [_of_sequence(values, name)]


def _of_other(value: Any, name: str) -> RecordSource:
    """Records of an array, a generator, or an object that is indexed by numbers.

    Raises:
        CorpusError: the object is none of these.
    """
    if isinstance(value, (set, frozenset)):
        raise CorpusError("a set has no order, so its records would have no numbers", hint="give a list")
    if not isinstance(value, (bytes, bytearray, memoryview, range)):
        if to_list := column_values(value):
            return _of_array(value, to_list, name)
        if isinstance(value, Iterator):
            return _of_iterator(value, name)
        if hasattr(value, "__len__") and hasattr(value, "__getitem__"):
            return _of_sequence(value, name)
        if isinstance(value, Iterable):
            return _of_iterator(iter(value), name)
    if callable(value):
        called = getattr(value, "__name__", type(value).__name__)
        raise CorpusError(f"{called} is a function", hint=f"give what it returns: {called}()")
    raise _unreadable(value)


def _of_array(value: Any, to_list: Callable[[], list[Any]], name: str) -> RecordSource:
    """Records of an array or column of texts, dicts or token ids: of NumPy, torch, pandas, polars or Arrow."""
    shape = getattr(value, "shape", (len(value),))
    if len(shape) == 2 and _is_integer_array(value):
        return _of_sequence(value, name)
    if len(shape) != 1:
        raise _unreadable(value)
    values = to_list()
    return _of_sequence([values] if values and all(map(_is_integer, values)) else values, name)


def _unreadable(value: object) -> CorpusError:
    return CorpusError(f"a value of type {type(value).__name__} cannot be read as records", hint=_EXPECTED)


def _of_sequence(values: Any, name: str) -> RecordSource:
    """Records of an object with a length, indexed by numbers."""
    count = len(values)
    if not count:
        raise CorpusError(f"an empty {type(values).__name__} has no records", hint=_EXPECTED)
    kind = _require_kind(values[0])

    def read(start: int) -> Iterator[Fields]:
        return (_as_record(values[at], kind, at + 1) for at in range(start, count))

    return _source(read, _digest(read(0)), kind, name)


def _of_table(table: TableRecords, name: str) -> RecordSource:
    """Records of a table; of a stream, whose end may be far, only the first records enter the digest."""

    def read(start: int) -> Iterator[Fields]:
        return plain_records(table.read(start), start)

    if not table.description:
        return _source(read, _digest(read(0)), "record", name)
    digest = RecordDigest(table.description)
    for _, fields in zip(range(STREAM_SAMPLE), read(0), strict=False):
        digest.add(fields)
    source = _source(read, digest, "record", name)
    return RecordSource(source.name, source.digest, 0, source.records)


def _of_iterator(values: Iterator[Any], name: str) -> RecordSource:
    """Records that can be read only once."""
    first = next(values, None)
    if first is None:
        raise CorpusError("a generator gave no records", hint="give a new one, if it was read before")
    kind, digest = _require_kind(first), RecordDigest()
    records = (_as_record(value, kind, number) for number, value in enumerate(chain([first], values), 1))
    return _source(spool(records, digest), digest, kind, name)


def _digest(records: Iterable[Fields]) -> RecordDigest:
    digest = RecordDigest()
    for fields in records:
        digest.add(fields)
    return digest


def _source(read: Callable[[int], Iterator[Fields]], digest: RecordDigest, kind: str, name: str) -> RecordSource:
    if not digest.count:
        raise CorpusError("a table without rows has no records", hint=_EXPECTED)
    value = digest.hexdigest()
    own_name = name or f"{'tokens' if kind == 'tokens' else kind + 's'}-{value[:_DIGITS]}"
    return RecordSource(own_name, value, digest.count, read, plain=kind == "text")


def _kind(value: object) -> str | None:
    """text, record or tokens: what an element is; None for anything else."""
    if isinstance(value, str):
        return "text"
    if isinstance(value, Mapping):
        return "record"
    if isinstance(value, (list, tuple)):
        return "tokens" if value and all(_is_integer(item) for item in value) else None
    return "tokens" if _is_integer_array(value) and len(getattr(value, "shape", ())) == 1 else None


def _require_kind(first: object) -> str:
    if (kind := _kind(first)) is None:
        raise CorpusError(f"record 1 is of type {type(first).__name__}: expected a text, a dict or a list of token ids")
    return kind


def _as_record(value: object, kind: str, number: int) -> Fields:
    """An element as a record.

    Raises:
        CorpusError: it is of another kind than the first.
    """
    if kind == "record":
        return plain_record(value, number)
    if _kind(value) != kind:
        expected = "a text" if kind == "text" else "a list of token ids"
        raise CorpusError(f"record {number} is {_shown(value)}: expected {expected}, as record 1 is")
    if kind == "text":
        return {"text": str(value)}
    ids = plain_value(value)
    return {"input_ids": ids, "labels": ids}


def _shown(value: object) -> str:
    """A value in a message: its type, and of a text the start."""
    return (
        repr(value if len(value) <= 40 else value[:40] + "…") if isinstance(value, str) else f"a {type(value).__name__}"
    )


def _is_integer(value: object) -> bool:
    """Whether a value is a whole number, of Python or NumPy, and no truth value."""
    return (isinstance(value, int) and not isinstance(value, bool)) or (
        getattr(value, "shape", None) == () and _is_integer_array(value)
    )


def _is_integer_array(value: object) -> bool:
    """Whether an array, tensor or scalar of NumPy, torch or the like holds whole numbers."""
    return re.search(r"\bu?int\d+$", str(getattr(value, "dtype", ""))) is not None
