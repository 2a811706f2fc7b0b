"""Examples before they are rows, and how they are grouped into batches. Knows no model, no file, no store.

Examples are read in windows of consecutive rows. Within a window they are sorted by length and cut into batches of a token
budget, so there is little padding. Windows and batches depend on the examples alone: a run that is stopped and resumed makes the
same batches, hence the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from ...store.layout import Array, Column, column, narrowest_unsigned, ragged_column
from ...store.writer import Rows
from ..interface.model_view import BATCH_EXAMPLES

TOKEN_IDS, TARGET_POSITIONS = "token_ids", "target_positions"
"""Ragged columns of a store's examples."""
RAGGED_CHUNK_BYTES = 1 << 20
"""Largest chunk of these columns; small, because reading one row checks its whole chunk."""
WINDOW = 512
"""Number of consecutive examples that are sorted by length together."""


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """The position of an example in the corpus, after which reading can continue."""

    source: int = 0
    """Index of the file."""
    record: int = -1
    """Index of the record in its file; -1 before the first."""
    piece: int = 0
    """Index of the example within its document."""


class TextPayload(NamedTuple):
    """What the model reads of an example of text."""

    ids: list[int]
    """Token ids."""
    first: int
    """Index of the first token that is a target."""
    ignored: tuple[int, ...] = ()
    """Indices of later tokens that are no targets, ascending."""

    @property
    def target_positions(self) -> Array:
        """(n,) int64: positions, each of which predicts the next token."""
        positions = np.arange(max(0, self.first - 1), max(0, self.first - 1, len(self.ids) - 1))
        return np.setdiff1d(positions, np.array(self.ignored, np.int64) - 1) if self.ignored else positions


@dataclass(frozen=True, slots=True)
class Example:
    """One example, before it is a row of a store."""

    id: str
    """The document's id, followed by `#k` for the k-th piece of a document that was cut."""
    source: str
    """Name of the file."""
    line: int
    """Line or row in the file."""
    offset: int
    """Number of characters of the document before this piece."""
    prompt: str
    """The text before the completion, or empty."""
    text: str
    """The completion, or the text."""
    length: int
    """Number of tokens, or of positions."""
    target_count: int
    """Number of target positions."""
    payload: Any
    """What the provider needs to read the example: a `TextPayload`, or arrays."""
    place: Place
    """Its position in the corpus."""
    column_texts: tuple[str, ...] = ()
    """The values of its document's kept columns, as text."""


@dataclass(frozen=True, slots=True)
class StoredFields:
    """What a store holds of its examples besides ids and places."""

    text: bool
    """Prompt and text."""
    tokens: bool
    """Token ids, as the model read them, and target positions."""
    keep: tuple[str, ...] = ()
    """Columns of the corpus whose values are stored as text."""


def example_columns(fields: StoredFields, vocabulary: int, longest: int) -> tuple[Column, ...]:
    """The columns of a store's examples.

    Token ids and positions have the narrowest unsigned type for `vocabulary` ids and `longest` tokens of an example.
    """
    numbers = [("line", "int64"), ("offset", "int64"), ("tokens", "int32"), ("counted", "int32"), ("loss", "float32")]
    texts = ["id", "source", *(["prompt", "text"] if fields.text else []), *fields.keep]
    ragged = [(TOKEN_IDS, vocabulary), (TARGET_POSITIONS, longest)] if fields.tokens else []
    return (
        *(column(name, (), "string") for name in texts),
        *(column(name, (), dtype) for name, dtype in numbers),
        *(ragged_column(name, narrowest_unsigned(count), chunk_bytes=RAGGED_CHUNK_BYTES) for name, count in ragged),
    )


_FIELD_OF_COLUMN = {
    **{name: name for name in ("id", "source", "prompt", "text", "line", "offset")},
    "counted": "target_count",  # tokens that count towards the loss
    "tokens": "length",  # all tokens
}


BUILT_IN = (*_FIELD_OF_COLUMN, "loss", TOKEN_IDS, TARGET_POSITIONS)
"""Columns that a store's examples have of their own."""


def example_rows(examples: list[Example], losses: Array, *, fields: StoredFields) -> Rows:
    """Examples as columns; `losses` (n,) float32. With tokens, payloads are `TextPayload`s."""
    columns = {name: [getattr(example, field) for example in examples] for name, field in _FIELD_OF_COLUMN.items()}
    columns |= {name: [example.column_texts[at] for example in examples] for at, name in enumerate(fields.keep)}
    if fields.tokens:
        columns[TOKEN_IDS] = [example.payload[0] for example in examples]
        columns[TARGET_POSITIONS] = [example.payload.target_positions for example in examples]
    return {**columns, "loss": losses}


def example_windows(examples: Iterable[Example], size: int = WINDOW) -> Iterator[list[Example]]:
    """Lists of `size` consecutive examples."""
    source = iter(examples)
    while window := list(islice(source, size)):
        yield window


def batches(window: list[Example], tokens: int, most: int = BATCH_EXAMPLES) -> Iterator[list[int]]:
    """Batches of indices into a window, longest example first; each of at most `tokens` tokens, padding included (or one longer
    example), and at most `most` examples.
    """
    order = sorted(range(len(window)), key=lambda i: (-window[i].length, i))
    batch: list[int] = []
    for i in order:
        if batch and ((len(batch) + 1) * window[batch[0]].length > tokens or len(batch) == most):
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch
