"""Tokenised examples on disk, memory-mapped and shared by the training processes.

Knows no model and no corpus.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...store.files import whole_file
from ...store.layout import Array


@dataclass(frozen=True, slots=True)
class TokenSet:
    """Examples as tokens, one after the other."""

    ids: Array
    """(T,) int32, all tokens."""
    ends: Array
    """(N,) int64, where each example ends."""
    first: Array
    """(N,) int32, the first token of each that counts."""

    def __len__(self) -> int:
        return len(self.ends)

    def example(self, at: int) -> tuple[Array, int]:
        """The tokens of one, and the first of them that counts."""
        start = int(self.ends[at - 1]) if at else 0
        return self.ids[start : int(self.ends[at])], int(self.first[at])

    @property
    def digest(self) -> str:
        """Of all that is in it."""
        parts = (np.ascontiguousarray(values).tobytes() for values in (self.ids, self.ends, self.first))
        return hashlib.blake2b(b"".join(parts), digest_size=16).hexdigest()

    def save(self, path: Path) -> None:
        """Write a .npz of plain arrays."""
        with whole_file(path) as hidden, hidden.open("wb") as file:
            np.savez(file, ids=self.ids, ends=self.ends, first=self.first)

    @classmethod
    def load(cls, path: Path) -> TokenSet:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as file:
            return cls(file["ids"], file["ends"], file["first"])


def gathered(examples: Iterable[tuple[list[int], int]]) -> TokenSet:
    """Tokens from (ids, first that counts) of each example."""
    ids, ends, first = list[int](), list[int](), list[int]()
    for tokens, counted in examples:
        ids.extend(tokens)
        ends.append(len(ids))
        first.append(max(1, counted))
    return TokenSet(np.array(ids, np.int32), np.array(ends, np.int64), np.array(first, np.int32))
