"""What feeds ingestion and queries: examples from a place on, and a batch's readout. Two kinds stand behind it, text with a
model (`text.py`) and arrays in their place (`features.py`). Knows neither.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from ...store.errors import CorpusError
from ...store.layout import Array
from ..data.documents import RecordErrors
from ..data.sources import Source
from ..interface.model_view import OutputSpec
from ..models.batch_outputs import LinearHead, PackedOutputs
from .examples import Example, Place


class Provider(Protocol):
    """A corpus, and the model's view of it."""

    sources: list[Source]
    record_errors: RecordErrors

    @property
    def head(self) -> LinearHead:
        """The model's head."""

    def provenance(self) -> dict[str, Any]:
        """All that decides the rows besides the corpus: compared key by key with a store's."""

    def origin(self) -> dict[str, Any]:
        """What is worth keeping beside the provenance and is not compared."""

    def memory(self, tokens: int) -> list[tuple[str, int]]:
        """Named bytes that reading out a batch of so many padded tokens takes."""

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
