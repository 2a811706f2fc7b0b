"""Values of a record's columns as text, such as those that a store keeps (`--keep`). Knows no store and no document."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from itertools import islice

from ...store.errors import CorpusError
from ...store.json_values import ParsedMapping
from .formats import Fields
from .record_values import as_json, scalar_text
from .sources import Source, read_source

_SAMPLE = 64  # records of each file in which a column is looked for
_FILES = 16  # files whose records are a sample of all files


def columns_of(keep: Sequence[str]) -> set[str]:
    """The fields of a record that hold kept columns: of `meta.topic` the field `meta`, unless there is one of the whole name."""
    return {*keep, *(name.partition(".")[0] for name in keep)}


def kept_columns_of(provenance: ParsedMapping) -> tuple[str, ...]:
    """The columns that a store keeps, by its provenance."""
    return tuple(provenance.get("keep", ()))


def kept_values(fields: Fields, keep: Sequence[str]) -> tuple[str, ...]:
    """The values of kept columns as text, as :func:`value_text` writes them; "" for an absent one."""
    return tuple(value_text(field_value(fields, name)) for name in keep)


def require_columns(sources: Sequence[Source], keep: Sequence[str]) -> None:
    """Check that kept columns are there, before anything is written.

    Raises:
        CorpusError: no file has the column among its first records; or a file cannot be read.
    """
    missing, names = set(keep), dict[str, None]()
    for source in sources:
        if not missing or source.format == "absent":
            break
        for record in islice(read_source(source, 0, columns_of(keep)), _SAMPLE):
            names |= dict.fromkeys(record.fields)
            missing -= {name for name in missing if field_value(record.fields, name) is not None}
    if absent := [name for name in keep if name in missing and name not in names]:
        raise CorpusError(
            f"--keep {absent[0]}: the first records have no such field; they have {', '.join(names) or 'none'}"
        )


def sampled_bytes(sources: Sequence[Source], keep: Sequence[str]) -> int:
    """Bytes, as strings, of the largest values that one record has in these columns: of the first records of some files, since
    only a pass over the corpus would know it of all.

    Raises:
        CorpusError: a file cannot be read.
    """
    files = [source for source in sources if source.format not in ("absent", "store")][:_FILES] if keep else []
    records = (record for source in files for record in islice(read_source(source, 0, columns_of(keep)), _SAMPLE))
    return max((sum(map(sys.getsizeof, kept_values(record.fields, keep))) for record in records), default=0)


def field_value(fields: Fields, name: str) -> object:
    """The value of a field, or of one inside an object: `meta.topic`; None if there is none."""
    if name in fields:
        return fields[name]
    outer, dot, inner = name.partition(".")
    value = fields.get(outer) if dot else None
    return field_value(value, inner) if isinstance(value, dict) else None


def value_text(value: object) -> str:
    """A value of a column as text: a scalar as ids are written, a list or an object as JSON; "" for null and NaN."""
    if isinstance(value, (list, dict)):
        return json.dumps(value, ensure_ascii=False, default=as_json)
    return scalar_text(value)
