"""Tokenises documents: prompt and completion joined as one text or apart, and long texts in parts. Knows no store and no file.

tok(prompt + completion) and tok(prompt) + tok(completion) differ for many tokenizers, and trainers do both: a model fine-tuned on
the one reading predicts the other badly.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ...store.layout import Array
from ..data.documents import Document
from ..models.transformers_types import HfTokenizer


class Tokens(NamedTuple):
    """Tokens of a document."""

    ids: list[int]
    spans: list[tuple[int, int]]
    """Span of characters of each token in prompt and text together."""
    prompt_tokens: int | None = None
    """Number of tokens of the prompt if it was tokenised apart; None: the spans say where it ends."""


class DocumentTokenizer:
    """A model's tokenizer, applied to documents."""

    def __init__(self, tokenizer: HfTokenizer, prefix: tuple[int, ...], *, apart: bool) -> None:
        """`prefix`: tokens that start every example, which are left out here; `apart`: tokenise completions on their own."""
        self._tokenizer, self._prefix, self._apart = tokenizer, prefix, apart

    def documents(self, documents: list[Document]) -> Iterator[Tokens]:
        """Tokens of each document: of prompt and text as one string, or of each on its own, as the boundary says."""
        apart = [self._apart and bool(document.prompt) for document in documents]
        pairs = list(zip(documents, apart, strict=True))
        firsts = [document.prompt if divided else document.prompt + document.text for document, divided in pairs]
        encoded = map(self._without_prefix, self._tokens(firsts))
        completions = self._tokens([document.text for document, divided in pairs if divided] or [""])
        for (document, divided), tokens in zip(pairs, encoded, strict=True):
            yield _appended(tokens, next(completions), len(document.prompt)) if divided else tokens

    def _tokens(self, texts: list[str]) -> Iterator[Tokens]:
        encoded = self._tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)
        return map(Tokens, encoded["input_ids"], encoded["offset_mapping"])

    def _without_prefix(self, tokens: Tokens) -> Tokens:
        """Tokens without a leading begin-of-text token, which some chat templates put into the text."""
        size = len(self._prefix)
        has_prefix = size and tuple(tokens.ids[:size]) == self._prefix
        return Tokens(tokens.ids[size:], tokens.spans[size:]) if has_prefix else tokens

    def parts(self, text: str, characters: int) -> Iterator[Tokens]:
        """Tokens of a long text, in parts of at most so many `characters`. A part ends before a space, or anywhere if its second
        half has no space.
        """
        begin = 0
        while begin < len(text):
            end = min(len(text), begin + characters)
            space = text.rfind(" ", begin + characters // 2, end) if end < len(text) else -1
            end = space if space > 0 else end
            ids, spans, _ = next(self._tokens([text[begin:end]]))
            yield Tokens(ids, [(begin + first, begin + last) for first, last in spans])
            begin = end


def target_tokens(spans: list[tuple[int, int]], targets: tuple[tuple[int, int], ...]) -> Array:
    """(T,) bool: whether each token's span of characters overlaps one of `targets`, ascending and disjoint spans."""
    tokens, pieces = np.array(spans, np.int64).reshape(-1, 2), np.array(targets, np.int64)
    first = np.searchsorted(pieces[:, 1], tokens[:, 0], side="right")  # the first that ends after the token begins
    overlaps: Array = (first < len(pieces)) & (pieces[np.minimum(first, len(pieces) - 1), 0] < tokens[:, 1])
    return overlaps


def _appended(tokens: Tokens, text_tokens: Tokens, prompt_length: int) -> Tokens:
    """Tokens of a prompt of `prompt_length` characters, followed by those of its completion."""
    spans = [(begin + prompt_length, end + prompt_length) for begin, end in text_tokens.spans]
    return Tokens([*tokens.ids, *text_tokens.ids], [*tokens.spans, *spans], len(tokens.ids))
