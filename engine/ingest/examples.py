"""Examples before they are rows, and how they are grouped into batches. Knows no model, no file, no store.

Examples are taken in windows of consecutive rows; within a window they are sorted by length and cut into batches of a token
budget, so little is padded. Windows and batches are a function of the rows alone: a run that was stopped and goes on makes
the same batches, hence the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from ...store.layout import Column, column
from ..interface.model_view import BATCH_EXAMPLES

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


def example_columns(with_text: bool) -> tuple[Column, ...]:
    """The columns that every store has of its examples; without text, references only."""
    numbers = [("line", "int64"), ("offset", "int64"), ("tokens", "int32"), ("counted", "int32"), ("loss", "float32")]
    texts = ["id", "source", *(["prompt", "text"] if with_text else [])]
    return (*(column(name, (), "string") for name in texts), *(column(name, (), dtype) for name, dtype in numbers))


def example_rows(examples: list[Example], losses: Any) -> dict[str, Any]:
    """Examples as columns; `losses` (n,) float32."""
    names = ("id", "source", "prompt", "text", "line", "offset", "counted")
    rows: dict[str, Any] = {name: [getattr(example, name) for example in examples] for name in names}
    return {**rows, "tokens": [example.length for example in examples], "loss": losses}


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
