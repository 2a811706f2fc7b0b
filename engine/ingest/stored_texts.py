"""The texts of an existing store as a provider: reads a corpus again without its files.

Each stored row is one example, in the store's order. If the store holds token ids, and the model has the store's tokenizer and a
long enough context, examples are exactly those of the ingestion. Otherwise texts are tokenised again: a piece of a longer text,
tokenised on its own, may have a token more than before, and is cut if it does not fit. Knows a store's examples and a model; no
method.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from ...store.errors import SettingsError
from ...store.feature_store import EXAMPLES, FeatureStore
from ...store.json_values import ParsedJson
from ...store.layout import TEXT_CHUNK_ROWS, Array
from ...store.ragged import open_ragged
from ...store.reader import open_column
from ..data.documents import Document, RecordErrors
from ..data.sources import Source
from ..interface.model_view import OutputSpec
from ..models.batch_outputs import LinearHead, PackedOutputs
from ..models.language_model import LanguageModel
from ..runtime.memory import Plan
from .examples import TARGET_POSITIONS, TOKEN_IDS, Example, Place, TextPayload
from .text_provider import TextProvider
from .text_settings import TextSettings

_ROWS = TEXT_CHUNK_ROWS  # rows that are decoded together
_FIELDS = ("id", "source", "line", "prompt", "text")


class StoredTexts:
    """Reads the examples of a store through a language model."""

    by_row = True

    def __init__(self, store: FeatureStore, model: LanguageModel) -> None:
        """`model`: the store's model, or another one for the same texts.

        Raises:
            SettingsError: the store keeps neither texts nor token ids of the model's tokenizer.
        """
        provenance = store.provenance
        shape = model.head.model_shape
        same_tokenizer = model.fingerprint["tokenizer"] == provenance.get("tokenizer")
        long_enough = shape.max_length >= int(provenance["max_length"])
        tokens = bool(provenance.get("tokens")) and same_tokenizer and long_enough
        if not provenance.get("text") and not tokens:
            raise SettingsError(
                f"{store.url} keeps neither texts nor token ids of this model",
                hint="ingest into a new store without --no-text",
            )
        spans = provenance["template"].get("turns") == "all" or provenance.get("marked_targets")
        if spans and not tokens:
            raise SettingsError(
                f"{store.url} has targets within its texts (--turns all, or marks of the chat template), and only "
                "token ids of its own tokenizer say where they are",
                hint="ingest into a new store without --no-tokens, or give the model that it was made with",
            )
        length = min(int(provenance["max_length"]), shape.max_length)
        boundary = provenance.get("boundary")
        asked = TextSettings(max_length=length, attribute=provenance["attribute"], truncate=True, boundary=boundary)
        settings = asked.resolved(shape)
        self.sources = [
            Source(store.url, source["name"], "store", source["size"], source["digest"])
            for source in provenance["sources"]
        ]
        self.record_errors, self.notes = RecordErrors("fail"), list(model.notes)
        if not tokens:
            why = ("it keeps no token ids" if not provenance.get("tokens") else "its token ids are of another tokenizer"
                   if not same_tokenizer else "this model's context is shorter")  # fmt: skip
            self.notes.append(
                f"the texts of {store.url} are tokenised again, because {why}: pieces of long documents may get other tokens "
                "than at ingestion"
            )
        self._texts = TextProvider(model, self.sources, settings, self.record_errors)
        self._store = store
        names = {column.name for column in store.columns(EXAMPLES)}
        self._columns = {name: open_column(store, EXAMPLES, name) for name in _FIELDS if name in names}
        self._tokens = {name: open_ragged(store, EXAMPLES, name) for name in (TOKEN_IDS, TARGET_POSITIONS) if tokens}

    @property
    def model(self) -> LanguageModel:
        """The model that reads the examples."""
        return self._texts.model

    @property
    def head(self) -> LinearHead:
        """The model's head."""
        return self._texts.head

    def provenance(self) -> ParsedJson:
        """Fingerprints of the model, and the store's text settings."""
        own = self._texts.provenance()
        return {**self._store.provenance, **{key: own[key] for key in ("model", "tokenizer", "dtype")}}

    def origin(self) -> ParsedJson:
        """The model's path."""
        return self._texts.origin()

    def memory(self, tokens: int) -> Plan:
        """The memory of the model and of a batch of `tokens` padded tokens."""
        return self._texts.memory(tokens)

    def longest(self) -> int:
        """Number of tokens of the longest possible example."""
        return self._texts.longest()

    def examples(self, start: Place) -> Iterator[Example]:
        """The stored rows after a place; `record` is the row number."""
        total = self._store.rows(EXAMPLES)
        for first in range(start.record + 1, total, _ROWS):
            yield from self._read(np.arange(first, min(first + _ROWS, total)), _FIELDS)

    def at(self, rows: Array) -> Iterator[Example]:
        """Examples of rows (n,) ascending, without source and line: for scattered rows each further column costs as much to read
        as the text.
        """
        for begin in range(0, len(rows), _ROWS):
            yield from self._read(rows[begin : begin + _ROWS], ("id", "prompt", "text"))

    def _read(self, rows: Array, fields: Sequence[str]) -> Iterator[Example]:
        """Examples of rows (n,) that are decoded together, with these fields."""
        values = {name: self._columns[name].gather(rows) for name in fields if name in self._columns}
        if self._tokens:
            yield from self._from_tokens(rows, values)
            return
        empty = itertools.repeat("")
        records = zip(rows, values["id"], values.get("source", empty), values.get("line", itertools.repeat(0)),
                      values["prompt"], values["text"], strict=False)  # fmt: skip
        documents = (
            Document(name, source, int(line), int(row), prompt, text)
            for row, name, source, line, prompt, text in records
        )
        names = dict(zip(rows.tolist(), values["id"], strict=True))
        for example in self._texts.encoded(documents, 0):
            if example.place.piece == 0:
                yield replace(example, id=str(names[example.place.record]))

    def _from_tokens(self, rows: Array, values: dict[str, Array]) -> Iterator[Example]:
        """Examples of rows as they were read at ingestion; `values`: column name → (n,), of the stored columns."""
        token_ids, positions = (self._tokens[name].gather(rows) for name in (TOKEN_IDS, TARGET_POSITIONS))
        for at, row in enumerate(rows.tolist()):
            payload = _payload(token_ids[at].tolist(), positions[at])
            text = {
                name: str(values[name][at]) if name in values else "" for name in ("id", "source", "prompt", "text")
            }
            line = int(values["line"][at]) if "line" in values else 0
            yield Example(text["id"], text["source"], line, 0, text["prompt"], text["text"], len(payload.ids), len(positions[at]),
                          payload, Place(0, row))  # fmt: skip

    def read(self, batch: list[Example], needs: OutputSpec) -> PackedOutputs:
        """The outputs of a batch, by one forward pass."""
        return self._texts.read(batch, needs)


def _payload(ids: list[int], positions: Array) -> TextPayload:
    """Token ids with their target positions (n,), ascending."""
    first = int(positions[0]) + 1 if len(positions) else max(1, len(ids))
    between = np.setdiff1d(np.arange(first, len(ids)), positions.astype(np.int64) + 1)
    return TextPayload(ids, first, tuple(between.tolist()))
