"""Examples of a store as the model reads them: their tokens as text, divided into targets and the rest. Knows no method."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from ...store.errors import SettingsError
from ...store.feature_store import EXAMPLES, FeatureStore
from ...store.layout import Array
from ...store.ragged import open_ragged
from ..ingest.examples import TARGET_POSITIONS, TOKEN_IDS
from ..models.transformers_types import HfTokenizer
from .example_table import Examples

_ROWS_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class ShownExample:
    """One example as the model reads it."""

    row: int
    """Row number in the store."""
    id: str
    source: str
    line: int
    """Line or row in the source."""
    tokens: int
    """Number of tokens."""
    target_count: int
    """Number of target tokens."""
    loss: float
    """Mean loss per target token, in nats."""
    parts: list[tuple[str, bool]]
    """Consecutive parts of the text, each with whether its tokens are targets."""

    @property
    def text(self) -> str:
        """The whole text, as the model reads it."""
        return "".join(text for text, _ in self.parts)

    @property
    def prompt(self) -> str:
        """What comes before the first target; of an example without a prompt what its first token is, which nothing predicts."""
        return self.parts[0][0] if self.parts and not self.parts[0][1] else ""

    @property
    def completion(self) -> str:
        """The text from the first target on."""
        return self.text[len(self.prompt) :]


def row_ranges(selection: str, total: int) -> list[range]:
    """Ranges of row numbers of a selection such as `0,5,10-12`; the first three rows that exist if it is empty.

    Raises:
        SettingsError: it is no such selection, or a row is not in the store.
    """
    if not selection:
        return [range(min(3, total))]
    ranges: list[range] = []
    for part in selection.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise SettingsError(f"--rows {selection}: expected row numbers and ranges, such as 0,5,10-12")
        end = int(last) if dash else int(first)
        if end >= total or int(first) > end:
            raise SettingsError(f"--rows {selection}: the store has {total:,} rows, numbered from 0")
        ranges.append(range(int(first), end + 1))
    return ranges


def shown_examples(
    store: FeatureStore, ranges: Sequence[range], tokenizer: HfTokenizer | None = None
) -> Iterator[ShownExample]:
    """The examples in ranges of rows, read a few at a time. Without a tokenizer, or stored tokens, prompt and text are shown as
    they are stored.

    Raises:
        StoreDamaged: a chunk differs from its checksum.
    """
    for rows in ranges:
        for start in range(rows.start, rows.stop, _ROWS_AT_ONCE):
            yield from _examples_of(store, range(start, min(rows.stop, start + _ROWS_AT_ONCE)), tokenizer)


def _examples_of(store: FeatureStore, rows: range, tokenizer: HfTokenizer | None) -> Iterator[ShownExample]:
    numbers = np.arange(rows.start, rows.stop)
    examples, names = Examples(store), {column.name for column in store.columns(EXAMPLES)}
    columns = {name: examples.get(name, numbers) for name in ("id", "source", "line", "tokens", "counted", "loss")}
    if tokenizer and TOKEN_IDS in names:
        ids, positions = (open_ragged(store, EXAMPLES, name).gather(numbers) for name in (TOKEN_IDS, TARGET_POSITIONS))
        parts = [_decoded(tokenizer, *pair) for pair in zip(ids, positions, strict=True)]
    else:
        pairs = zip(examples.strings("prompt", numbers), examples.strings("text", numbers), strict=True)
        parts = [[(prompt, False)] * bool(prompt) + [(text, True)] for prompt, text in pairs]
    for at, row in enumerate(rows):
        own = {name: values[at] for name, values in columns.items()}
        yield ShownExample(row, str(own["id"]), str(own["source"]), int(own["line"] or 0), int(own["tokens"] or 0),
                           int(own["counted"] or 0), float(own["loss"] or 0), parts[at])  # fmt: skip


def _decoded(tokenizer: HfTokenizer, ids: Array, positions: Array) -> list[tuple[str, bool]]:
    """Text of runs of tokens: each run is what it adds to the decoded text of the tokens before it."""
    is_target = np.zeros(len(ids), bool)
    is_target[positions.astype(np.int64) + 1] = True  # a position predicts the next token
    parts, end, before = [], 0, ""
    for value, run in groupby(is_target.tolist()):
        end += len(list(run))
        whole = str(tokenizer.decode(ids[:end].tolist(), clean_up_tokenization_spaces=False))
        parts.append((whole[len(before) :], value))
        before = whole
    return parts
