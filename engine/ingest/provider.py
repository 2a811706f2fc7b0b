"""The protocol of a provider: examples from a given place on, and the outputs of a batch. Implemented by text with a
model (`text_provider.py`) and by arrays in their place (`array_provider.py`). Knows neither.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from ...store.errors import CorpusError
from ...store.files import JsonObject
from ...store.layout import Array
from ..data.documents import RecordErrors
from ..data.sources import Source
from ..interface.model_view import OutputSpec
from ..models.batch_outputs import LinearHead, PackedOutputs
from ..runtime.memory import Plan
from .examples import Example, Place


class Provider(Protocol):
    """A corpus, and the model's view of it."""

    sources: list[Source]
    record_errors: RecordErrors

    @property
    def head(self) -> LinearHead:
        """The model's head."""

    def provenance(self) -> JsonObject:
        """All that decides the rows besides the corpus: compared key by key with a store's."""

    def origin(self) -> JsonObject:
        """What is worth keeping beside the provenance and is not compared."""

    def memory(self, tokens: int) -> Plan:
        """What reading out a batch of so many padded tokens takes."""

    def longest(self) -> int:
        """Tokens of the longest example possible."""

    def examples(self, start: Place) -> Iterator[Example]:
        """The examples after a place, in the corpus's order, streamed."""

    def read(self, batch: list[Example], needs: OutputSpec) -> PackedOutputs:
        """One forward pass over a batch."""


class RandomAccessProvider(Provider, Protocol):
    """A corpus whose examples can be read in any order."""

    def at(self, rows: Array) -> Iterator[Example]:
        """Examples of rows (n,) ascending, in their order."""


def remaining(sources: Sequence[Source], start: Place) -> Iterator[tuple[int, Source]]:
    """Ordinal and file of what holds examples after a place.

    Raises:
        CorpusError: one of them is known from the store alone and was not named.
    """
    for ordinal, source in enumerate(sources):
        if ordinal < start.source:
            continue
        if source.format == "absent":
            raise CorpusError(f"{source.name} is part of the store and has to be named, too: it is to be read again")
        yield ordinal, source
