"""The texts of an existing store as a provider: a corpus read again without its files.

Every stored row is one example, in the store's order. Where the store keeps token ids and the model has the store's tokenizer and
context, examples are exactly what was read at ingestion. Otherwise texts are tokenised again: a stored piece of a longer text may
then be a token longer than it was; what does not fit is cut. Knows a store's examples and a model; no method.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from ...store.errors import SettingsError
from ...store.feature_store import EXAMPLES, FeatureStore
from ...store.files import JsonObject
from ...store.layout import TEXT_CHUNK_ROWS, Array
from ...store.ragged import open_ragged
from ...store.reader import open_column
from ..data.documents import Document, RecordErrors
from ..data.sources import Source
from ..interface.model_view import OutputSpec
from ..models.batch_outputs import LinearHead, PackedOutputs
from ..models.language_model import LanguageModel
from ..runtime.memory import Plan
from .examples import TARGET_POSITIONS, TOKEN_IDS, Example, Place
from .text_provider import TextProvider
from .text_settings import TextSettings

_ROWS = TEXT_CHUNK_ROWS  # decoded together
_FIELDS = ("id", "source", "line", "prompt", "text")


class StoredTexts:
    """Reads a store's rows through a language model."""

    def __init__(self, store: FeatureStore, model: LanguageModel) -> None:
        """`model`: the store's, or another one to read the same texts with.

        Raises:
            SettingsError: the store keeps neither texts nor token ids that the model's tokenizer made.
        """
        there = store.provenance
        shape = model.head.model_shape
        same = model.fingerprint["tokenizer"] == there.get("tokenizer")
        tokens = bool(there.get("tokens")) and same and shape.max_length >= int(there["max_length"])
        if not there.get("text") and not tokens:
            raise SettingsError(f"{store.url} keeps neither texts nor this model's token ids to read again")
        length = min(int(there["max_length"]), shape.max_length)
        settings = TextSettings(max_length=length, attribute=there["attribute"], truncate=True).resolved(shape)
        self.sources = [Source(store.url, one["name"], "store", one["size"], one["digest"]) for one in there["sources"]]
        self.record_errors = RecordErrors("fail")
        self._texts = TextProvider(model, self.sources, settings, self.record_errors)
        self._store = store
        kept = {column.name for column in store.columns(EXAMPLES)}
        self._columns = {name: open_column(store, EXAMPLES, name) for name in _FIELDS if name in kept}
        self._tokens = {name: open_ragged(store, EXAMPLES, name) for name in (TOKEN_IDS, TARGET_POSITIONS) if tokens}

    @property
    def head(self) -> LinearHead:
        """The model's head."""
        return self._texts.head

    def provenance(self) -> JsonObject:
        """The model's, and how long examples are."""
        return self._texts.provenance()

    def origin(self) -> JsonObject:
        """Where the model came from."""
        return self._texts.origin()

    def memory(self, tokens: int) -> Plan:
        """Those of reading texts through the model."""
        return self._texts.memory(tokens)

    def longest(self) -> int:
        """Tokens of the longest example."""
        return self._texts.longest()

    def examples(self, start: Place) -> Iterator[Example]:
        """The stored rows after a place, whose record is the row's number."""
        total = self._store.rows(EXAMPLES)
        for first in range(start.record + 1, total, _ROWS):
            yield from self._read(np.arange(first, min(first + _ROWS, total)), _FIELDS)

    def at(self, rows: Array) -> Iterator[Example]:
        """Rows (n,) ascending, without source and line: every column costs as much as the text where rows lie apart."""
        for begin in range(0, len(rows), _ROWS):
            yield from self._read(rows[begin : begin + _ROWS], ("id", "prompt", "text"))

    def _read(self, some: Array, fields: Sequence[str]) -> Iterator[Example]:
        """A few rows."""
        values = {name: self._columns[name].gather(some) for name in fields if name in self._columns}
        if self._tokens:
            yield from self._from_tokens(some, values)
            return
        none = itertools.repeat("")
        told = zip(some, values["id"], values.get("source", none), values.get("line", itertools.repeat(0)),
                   values["prompt"], values["text"], strict=False)  # fmt: skip
        documents = (
            Document(name, source, int(line), int(row), prompt, text) for row, name, source, line, prompt, text in told
        )
        names = dict(zip(some.tolist(), values["id"], strict=True))
        for example in self._texts.encoded(documents, 0):
            if example.place.piece == 0:
                yield replace(example, id=str(names[example.place.record]))

    def _from_tokens(self, some: Array, values: dict[str, Array]) -> Iterator[Example]:
        """Rows as they were read at ingestion; `values` of the columns that are kept."""
        token_ids, positions = (self._tokens[name].gather(some) for name in (TOKEN_IDS, TARGET_POSITIONS))
        for at, row in enumerate(some.tolist()):
            ids = token_ids[at].tolist()
            first = int(positions[at][0]) + 1 if len(positions[at]) else max(1, len(ids))
            text = {
                name: str(values[name][at]) if name in values else "" for name in ("id", "source", "prompt", "text")
            }
            line = int(values["line"][at]) if "line" in values else 0
            yield Example(text["id"], text["source"], line, 0, text["prompt"], text["text"], len(ids), len(positions[at]),
                          (ids, first), Place(0, row))  # fmt: skip

    def read(self, batch: list[Example], needs: OutputSpec) -> PackedOutputs:
        """One forward pass over a batch."""
        return self._texts.read(batch, needs)
