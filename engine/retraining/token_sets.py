"""Tokenised examples on disk and in memory: what retrainings read, so that workers share a file and not a pickle.

Knows no model and no corpus.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...store.errors import StoreDamaged
from ...store.layout import Array
from ...store.state import read_state, write_state


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

    def save(self, folder: Path) -> None:
        """Write them as a state of checksummed arrays."""
        write_state(folder, {}, {"ids": self.ids, "ends": self.ends, "first": self.first})

    @classmethod
    def load(cls, folder: Path) -> TokenSet:
        """Read what `save` wrote.

        Raises:
            StoreDamaged: it is not there, or not whole.
        """
        state = read_state(folder)
        if state is None or set(state.arrays) != {"ids", "ends", "first"}:
            raise StoreDamaged(
                f"{folder} holds no tokens: remove the folder above it and run headwater ground-truth again"
            )
        return cls(state.arrays["ids"], state.arrays["ends"], state.arrays["first"])


def gathered(examples: Iterable[tuple[list[int], int]]) -> TokenSet:
    """Tokens from (ids, first that counts) of each example."""
    ids, ends, first = list[int](), list[int](), list[int]()
    for tokens, counted in examples:
        ids.extend(tokens)
        ends.append(len(ids))
        first.append(max(1, counted))
    return TokenSet(np.array(ids, np.int32), np.array(ends, np.int64), np.array(first, np.int32))
