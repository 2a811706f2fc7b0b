"""The protocol of a provider: examples from a place on, and the outputs of a batch. Implemented by texts with a model
(`text_provider.py`, `stored_texts.py`) and by arrays (`array_provider.py`). Knows none of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from ...store.errors import CorpusError
from ...store.json_values import ParsedJson
from ...store.layout import Array
from ..data.documents import RecordErrors
from ..data.sources import Source
from ..interface.model_view import OutputSpec
from ..models.batch_outputs import LinearHead, PackedOutputs
from ..runtime.memory import Plan
from .examples import Example, Place


class Provider(Protocol):
    """Reads a corpus and computes the model's outputs for it."""

    sources: list[Source]
    by_row: bool
    """Whether places are row numbers of a store, whose examples are read, instead of places in files."""
    record_errors: RecordErrors
    notes: list[str]
    """Remarks on how the corpus is read, for the user."""

    @property
    def head(self) -> LinearHead:
        """The model's head."""

    def provenance(self) -> ParsedJson:
        """Everything besides the corpus that rows depend on; compared key by key with a store's."""

    def origin(self) -> ParsedJson:
        """Further facts for the store's provenance, which are not compared."""

    def memory(self, tokens: int) -> Plan:
        """The memory of the model and of a batch of `tokens` tokens, padding included."""

    def longest(self) -> int:
        """Number of tokens of the longest possible example."""

    def examples(self, start: Place) -> Iterator[Example]:
        """The examples after a place, streamed in the corpus's order."""

    def read(self, batch: list[Example], needs: OutputSpec) -> PackedOutputs:
        """The outputs of a batch, by one forward pass."""


class RandomAccessProvider(Provider, Protocol):
    """A corpus whose examples can be read in any order."""

    def at(self, rows: Array) -> Iterator[Example]:
        """The examples with these row numbers (n,), which are in ascending order."""


def remaining(sources: Sequence[Source], start: Place) -> Iterator[tuple[int, Source]]:
    """(index of the file, file) for each file from a place on.

    Raises:
        CorpusError: the user did not name a file of the store's corpus that must be read.
    """
    for source_index, source in enumerate(sources):
        if source_index < start.source:
            continue
        if source.format == "absent":
            raise CorpusError(
                f"{source.name} belongs to the store's corpus and must be read again", hint="add it to the command"
            )
        yield source_index, source
