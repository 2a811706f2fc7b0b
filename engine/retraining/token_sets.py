"""Tokenised examples, on disk between the process that reads a corpus and those that train on it.

Knows no model and no corpus.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...store.errors import DataError, StoreDamaged
from ...store.layout import Array
from ...store.state import read_state, write_state
from ..ingest.examples import TextPayload


@dataclass(frozen=True, slots=True)
class TokenSet:
    """Tokenised examples, concatenated."""

    ids: Array
    """(T,) int32, all tokens."""
    ends: Array
    """(N,) int64, end of each example in `ids`."""
    first: Array
    """(N,) int32, index in each example of its first target token."""

    def __len__(self) -> int:
        return len(self.ends)

    def example(self, row: int) -> tuple[Array, int]:
        """The tokens of one example, and the index of its first target token."""
        start = int(self.ends[row - 1]) if row else 0
        return self.ids[start : int(self.ends[row])], int(self.first[row])

    @property
    def digest(self) -> str:
        """Hex BLAKE2b of all arrays."""
        digest = hashlib.blake2b(digest_size=16)
        for values in (self.ids, self.ends, self.first):
            digest.update(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
        return digest.hexdigest()

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return int(self.ids.nbytes + self.ends.nbytes + self.first.nbytes)

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


def concatenate_tokens(examples: Iterable[TextPayload]) -> TokenSet:
    """Concatenate examples.

    Raises:
        DataError: an example has tokens between its targets that are no targets themselves.
    """
    ids, ends, first = array("i"), array("q"), array("i")
    for tokens, first_target, ignored in examples:
        if ignored:
            raise DataError("a record masks tokens between its targets, which ground truth cannot train on")
        ids.extend(tokens)
        ends.append(len(ids))
        first.append(max(1, first_target))
    return TokenSet(np.asarray(ids, np.int32), np.asarray(ends, np.int64), np.asarray(first, np.int32))
