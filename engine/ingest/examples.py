"""Examples before they are rows, and how they are grouped into batches. Knows no model, no file, no store.

Examples are taken in windows of consecutive rows; within a window they are sorted by length and cut into batches of a token
budget, so little is padded. Windows and batches are a function of the rows alone: a run that was stopped and goes on makes
the same batches, hence the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from ...store.layout import Array, Column, column, narrowest_unsigned, ragged_column
from ..interface.model_view import BATCH_EXAMPLES

TOKEN_IDS, TARGET_POSITIONS = "token_ids", "target_positions"
"""Ragged columns of a store's examples."""
RAGGED_CHUNK_BYTES = 1 << 20
"""A chunk of these at most: single rows are read from them, and a chunk of this size is checked whole."""
WINDOW = 512
"""Rows sorted by length together."""


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where an example stands in the corpus; what follows can be read again from here."""

    source: int = 0
    """Ordinal of the file."""
    record: int = -1
    """Ordinal of the record in its file; -1 before the first."""
    piece: int = 0
    """Ordinal of the example within its document."""


@dataclass(frozen=True, slots=True)
class Example:
    """One row to be."""

    id: str
    """The document's id, with `#k` for the k-th piece of one that was cut."""
    source: str
    """Name of the file."""
    line: int
    """Line or row in the file."""
    offset: int
    """Characters of the document before this piece."""
    prompt: str
    """What came before the completion, or empty."""
    text: str
    """The completion, or the text."""
    length: int
    """Tokens, or positions."""
    counted: int
    """Positions that count."""
    payload: Any
    """What the provider needs to read it out: token ids, or arrays."""
    place: Place
    """Where it stands."""


@dataclass(frozen=True, slots=True)
class KeptFields:
    """What a store keeps of its examples besides references."""

    text: bool
    """Prompt and text."""
    tokens: bool
    """Token ids, as the model read them, and the positions whose next token counts."""


def example_columns(kept: KeptFields, vocabulary: int, longest: int) -> tuple[Column, ...]:
    """The columns of a store's examples: without text, references only.

    Token ids and positions have the narrowest unsigned type for `vocabulary` ids and `longest` tokens of an example.
    """
    with_text = kept.text
    numbers = [("line", "int64"), ("offset", "int64"), ("tokens", "int32"), ("counted", "int32"), ("loss", "float32")]
    texts = ["id", "source", *(["prompt", "text"] if with_text else [])]
    ragged = [(TOKEN_IDS, vocabulary), (TARGET_POSITIONS, longest)] if kept.tokens else []
    return (
        *(column(name, (), "string") for name in texts),
        *(column(name, (), dtype) for name, dtype in numbers),
        *(ragged_column(name, narrowest_unsigned(count), chunk_bytes=RAGGED_CHUNK_BYTES) for name, count in ragged),
    )


def example_rows(examples: list[Example], losses: Any, *, with_tokens: bool) -> dict[str, Any]:
    """Examples as columns; `losses` (n,) float32. With tokens, payloads are token ids and the first that counts."""
    names = ("id", "source", "prompt", "text", "line", "offset", "counted")
    rows: dict[str, Any] = {name: [getattr(example, name) for example in examples] for name in names}
    if with_tokens:
        rows[TOKEN_IDS] = [example.payload[0] for example in examples]
        rows[TARGET_POSITIONS] = [target_positions(*example.payload) for example in examples]
    return {**rows, "tokens": [example.length for example in examples], "loss": losses}


def target_positions(tokens: Sequence[int], first: int) -> Array:
    """Positions (n,) int64 that predict a token that counts, where `first` is the first such token: each predicts the next."""
    return np.arange(max(0, first - 1), max(0, first - 1, len(tokens) - 1))


def windows(examples: Iterable[Example], size: int = WINDOW) -> Iterator[list[Example]]:
    """Consecutive examples, `size` at a time."""
    source = iter(examples)
    while window := list(islice(source, size)):
        yield window


def batches(window: list[Example], tokens: int, most: int = BATCH_EXAMPLES) -> Iterator[list[int]]:
    """Indices into a window, longest first, cut where padded tokens would exceed `tokens` (or rows `most`)."""
    order = sorted(range(len(window)), key=lambda i: (-window[i].length, i))
    batch: list[int] = []
    for i in order:
        if batch and ((len(batch) + 1) * window[batch[0]].length > tokens or len(batch) == most):
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch
