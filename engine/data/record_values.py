"""Records as Python libraries give them, made plain: values that JSON has, dates and bytes; one digest for equal contents.

Knows no library by name, no file and no model.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from hashlib import blake2b
from pathlib import PurePath
from uuid import UUID

from ...store.errors import CorpusError
from .formats import Fields

_PLAIN = frozenset({str, int, float, bool, type(None), bytes, datetime, date, time})
_AS_TEXT = (date, time, Decimal, UUID, PurePath)  # written as `str` has them, as ids and labels are


def plain_value(value: object) -> object:
    """The value as a reader of files has it: arrays, tensors and tuples as lists, their scalars as Python's, mappings as dicts.
    A value of another type is returned as it is.
    """
    if type(value) in _PLAIN:
        return value
    if isinstance(value, Mapping):
        return {str(name): plain_value(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_value(item) for item in value]
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    to_list = getattr(value, "tolist", None)  # of arrays, tensors, and their scalars
    return plain_value(to_list()) if callable(to_list) else value


def plain_record(value: object, number: int) -> Fields:
    """A record's fields with plain values. `number`: of the record, from 1, for the error.

    Raises:
        CorpusError: the record is no mapping.
    """
    if not isinstance(value, Mapping):
        raise CorpusError(
            f"record {number} is of type {type(value).__name__}: expected a dict of field names and values"
        )
    return {str(name): plain_value(item) for name, item in value.items()}


def plain_records(values: Iterable[object], start: int) -> Iterator[Fields]:
    """The records from 0-based number `start` on, plain; `values` begins there."""
    for number, value in enumerate(values, start + 1):
        yield plain_record(value, number)


def json_line(fields: Fields, *, sort: bool = False) -> bytes:
    """A plain record as one line of ASCII JSON. Dates and the like are written as `str` has them, bytes as text; of a value of
    another type only the type's name is written.
    """
    try:
        return json.dumps(fields, sort_keys=sort, separators=(",", ":"), default=as_json).encode() + b"\n"
    except (ValueError, RecursionError) as error:  # a list that holds itself; nested too deeply
        raise CorpusError(f"a record cannot be written as JSON: {error}") from None


def as_json(value: object) -> object:
    """A value that JSON lacks, for `json.dumps`: bytes as text, dates and the like as `str` has them, others by their type."""
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    return str(value) if isinstance(value, _AS_TEXT) else f"<{type(value).__qualname__}>"


class RecordDigest:
    """The digest of records, one after the other: equal fields and values give equal digests, in whatever container they came. A
    field that is None is as one that is absent.
    """

    def __init__(self, description: str = "") -> None:
        """`description`: further text that enters the digest."""
        self._state = blake2b(description.encode(errors="surrogatepass"), digest_size=16)
        self.count = 0
        """Number of records so far."""

    def add(self, fields: Fields) -> None:
        """Add the next record, which is plain."""
        self._state.update(json_line({n: v for n, v in fields.items() if v is not None}, sort=True))
        self.count += 1

    def hexdigest(self) -> str:
        """The digest of the records so far."""
        return self._state.hexdigest()


def scalar_text(value: object) -> str:
    """A scalar as the text that ids are compared by: true and false as JSON writes them; "" for null, NaN, lists and objects."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    no_scalar = value is None or value is ... or isinstance(value, (list, dict)) or value != value
    return "" if no_scalar else str(value)
