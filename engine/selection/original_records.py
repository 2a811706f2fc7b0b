"""The records of a corpus from which chosen examples were made, as they stood there, in the order of the choice.

Each file is read once, from beginning to end; records that were chosen wait in a temporary file for their turn. Of a file that is
not there any more, or was changed, the store's own texts and kept columns take its records' place. Knows no method.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

import numpy as np

from ...store.errors import CorpusError, DataError, SettingsError, StoreMismatch
from ...store.feature_store import FeatureStore
from ...store.layout import Array
from ..data.documents import record_name
from ..data.formats import Fields, Record
from ..data.kept_columns import kept_columns_of
from ..data.record_source import Data
from ..data.record_values import as_json
from ..data.sources import Source, find_sources, read_source
from ..results.example_table import PART_SIZES, Examples
from ..results.group_labels import document_of
from ..runtime.output_files import whole_file

ADDED = "headwater"
"""Field of a written record that holds order, gain, row and id of its example; underscores precede it if the record has one."""
_PART = PART_SIZES[2]  # of the examples that are written together
_AS_IT_WAS = "give the corpus as it was ingested with --corpus"
_SKIPPED_ROWS = 4096
"""Rows of a columnar file between two chosen ones from which on it is opened again, rather than read."""


@dataclass(frozen=True, slots=True)
class WrittenRecords:
    """What was written of a choice."""

    records: int
    """Number of records: fewer than examples, if several pieces of a document were chosen."""
    notes: list[str] = field(default_factory=list)
    """One line for each file that could not be read: why, and what was written instead."""


def write_records(
    path: str, store: FeatureStore, rows: Array, gains: Array, corpus: Sequence[Data] = ()
) -> WrittenRecords:
    """Write the record of each chosen example, once, as JSON lines: all its fields, and order, gain, row and id in `headwater`.

    `rows` (n,) int64: the examples in the order of their choice; `gains` (n,). `corpus`: where the files are, if not at the paths
    that the store records.

    Raises:
        SettingsError: the store is of arrays. DataError: a file is not there, and the store keeps no texts either. StoreMismatch:
            `corpus` is not the store's.
    """
    if store.provenance["kind"] != "text":
        raise SettingsError(f"{store.url} was made from arrays, which hold no records", hint="leave out --records")
    chosen = _Chosen(store, rows)
    sources, notes = _located(store, chosen.used(), corpus)
    with tempfile.TemporaryFile() as waiting, whole_file(Path(path)) as hidden, hidden.open("wb") as out:
        for number, source in sources.items():
            chosen.collect(number, source, waiting)
        count = 0
        for at, fields in _in_order(store, chosen, waiting):
            facts = {"order": at + 1, "gain": float(gains[at]), "row": int(rows[at]), "id": chosen.ids[at]}
            name = ADDED
            while name in fields:
                name = f"_{name}"
            out.write(_line({**fields, name: facts}))
            count += 1
    return WrittenRecords(count, notes)


class _Chosen:
    """Chosen examples with the places of their records."""

    def __init__(self, store: FeatureStore, rows: Array) -> None:
        """Read the places of `rows` (n,)."""
        numbers = {source["name"]: number for number, source in enumerate(store.provenance["sources"])}
        self.rows, self.ids = rows, list[str]()
        self._sources, self._lines = np.empty(len(rows), np.int64), np.empty(len(rows), np.int64)
        for part, columns in Examples(store).parts(("id", "source", "line"), rows, _PART):
            self.ids += map(str, columns["id"])
            self._sources[part] = [numbers[name] for name in columns["source"]]
            self._lines[part] = np.array(columns["line"], np.int64)
        _, first = np.unique(np.stack([self._sources, self._lines], 1), axis=0, return_index=True)
        self._first = np.sort(first)  # of several pieces of a document the one that was chosen first
        self.offsets = np.full(len(rows), -1, np.int64)
        """(n,) where the example's record begins in the temporary file; -1 if it is not there."""

    def used(self) -> list[int]:
        """The numbers of the sources that chosen examples are of."""
        return [int(number) for number in np.unique(self._sources)]

    def firsts(self) -> list[int]:
        """The places in the choice whose records are written: the first of each document."""
        return [int(at) for at in self._first]

    def collect(self, number: int, source: Source, waiting: IO[bytes]) -> None:
        """Write the records of one source to the temporary file.

        Raises:
            StoreMismatch: a record is not the one that was ingested.
        """
        own = self._first[self._sources[self._first] == number]
        own = own[np.argsort(self._lines[own])]
        for at, record in zip(own.tolist(), _records_at(source, self._lines[own].tolist()), strict=True):
            if record_name(source, record) not in (self.ids[at], document_of(self.ids[at])):
                other = f"{source.path}:{record.line} is another record than the {self.ids[at]} that was ingested"
                raise StoreMismatch(other, hint=_AS_IT_WAS)
            self.offsets[at] = waiting.tell()
            waiting.write(_line(record.fields))


def _records_at(source: Source, lines: list[int]) -> Iterator[Record]:
    """The records of these lines, ascending.

    Raises:
        StoreMismatch: there is none at a line.
    """
    columnar = source.format in ("parquet", "records")  # reading can begin at any record without reading those before
    records: Iterator[Record] = iter(())
    last = None
    for line in lines:
        if last is None or (columnar and line - last > _SKIPPED_ROWS):
            records = read_source(source, line - 1 if columnar else 0, None)
        last = line
        record = next((record for record in records if record.line >= line and not record.error), None)
        if record is None or record.line != line:
            raise StoreMismatch(f"{source.path} has no record at line {line}, which was ingested", hint=_AS_IT_WAS)
        yield record


def _located(store: FeatureStore, used: Sequence[int], corpus: Sequence[Data]) -> tuple[dict[int, Source], list[str]]:
    """The sources that are there as they were ingested, by number; and a note for each other one.

    Raises:
        StoreMismatch: a source is not among `corpus`. DataError: one is not there, and the store keeps no texts.
    """
    lines, located, notes = bool(store.provenance.get("lines")), dict[int, Source](), list[str]()
    named = find_sources(corpus, lines=lines) if corpus else []
    for number in used:
        stored = store.provenance["sources"][number]
        source, reason = None, ""
        try:
            candidates = named if corpus else find_sources([stored["path"]], lines=lines) if stored["path"] else []
            source = next((c for c in candidates if (c.size, c.digest) == (stored["size"], stored["digest"])), None)
            reason = f"{stored['path']} has changed" if stored["path"] else f"{stored['name']} lay in no file"
        except CorpusError as error:
            reason = str(error)
        if source is not None:
            located[number] = replace(source, name=stored["name"])
        elif corpus:
            raise StoreMismatch(
                f"--corpus lacks {stored['name']}, from which examples were chosen, or it has changed", hint=_AS_IT_WAS
            )
        elif not store.provenance.get("text"):
            raise DataError(f"{reason}, and {store.url} keeps no texts", hint="say with --corpus where it is now")
        else:
            columns = ", ".join(("text", *kept_columns_of(store.provenance)))
            notes.append(f"{reason}: its records are written as the store keeps them ({columns})")
    return located, notes


def _in_order(store: FeatureStore, chosen: _Chosen, waiting: IO[bytes]) -> Iterator[tuple[int, Fields]]:
    """(place in the choice, record) of each document, in the order of the choice."""
    keep, examples = kept_columns_of(store.provenance), Examples(store)
    firsts = np.array(chosen.firsts(), np.int64)
    missing = firsts[chosen.offsets[firsts] < 0]
    of_store = _of_store(examples, chosen.rows[missing], keep)
    for at in firsts.tolist():
        if chosen.offsets[at] < 0:
            yield at, next(of_store)
            continue
        waiting.seek(int(chosen.offsets[at]))
        yield at, json.loads(waiting.readline())


def _of_store(examples: Examples, rows: Array, keep: Sequence[str]) -> Iterator[Fields]:
    """Records of the texts and columns that a store keeps."""
    for _, columns in examples.parts(("id", "prompt", "text", *keep), rows, _PART):
        for values in zip(*columns.values(), strict=True):
            fields: Fields = dict(zip(columns, values, strict=True))
            prompt = fields.pop("prompt")
            yield {"prompt": prompt, "completion": fields.pop("text"), **fields} if prompt else fields


def _line(fields: Fields) -> bytes:
    """A record as one JSON line in UTF-8; with escapes if it holds half a surrogate pair."""
    try:
        return json.dumps(fields, ensure_ascii=False, default=as_json).encode() + b"\n"
    except UnicodeEncodeError:
        return json.dumps(fields, default=as_json).encode() + b"\n"
