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

from ...store.errors import StoreDamaged
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
    is_target: Array
    """(T,) bool, whether the loss of each token counts."""

    def __len__(self) -> int:
        return len(self.ends)

    def example(self, row: int) -> tuple[Array, Array]:
        """The tokens of one example (n,), and which of them are targets (n,)."""
        place = slice(int(self.ends[row - 1]) if row else 0, int(self.ends[row]))
        return self.ids[place], self.is_target[place]

    @property
    def target_counts(self) -> Array:
        """(N,) int64: number of targets of each example."""
        counts: Array = np.diff(np.concatenate([[0], np.cumsum(self.is_target)])[self.ends], prepend=0)
        return counts

    @property
    def digest(self) -> str:
        """Hex BLAKE2b of all arrays."""
        digest = hashlib.blake2b(digest_size=16)
        for values in self._arrays().values():
            digest.update(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
        return digest.hexdigest()

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return sum(int(values.nbytes) for values in self._arrays().values())

    def save(self, folder: Path) -> None:
        """Write them as a state of checksummed arrays."""
        write_state(folder, {}, self._arrays())

    def _arrays(self) -> dict[str, Array]:
        return {"ids": self.ids, "ends": self.ends, "is_target": self.is_target}

    def is_saved(self, folder: Path) -> bool:
        """Whether a folder holds these tokens, undamaged."""
        try:
            return TokenSet.load(folder).digest == self.digest
        except StoreDamaged:
            return False

    @classmethod
    def load(cls, folder: Path) -> TokenSet:
        """Read what `save` wrote.

        Raises:
            StoreDamaged: it is not there, or not whole.
        """
        state = read_state(folder)
        if state is None or set(state.arrays) != {"ids", "ends", "is_target"}:
            raise StoreDamaged(
                f"{folder} holds no tokens", hint="remove the folder above it and run headwater ground-truth again"
            )
        return cls(**state.arrays)


def concatenate_tokens(examples: Iterable[TextPayload]) -> TokenSet:
    """Concatenate examples."""
    ids, ends, targets = array("i"), array("q"), bytearray()
    for payload in examples:
        ids.extend(payload.ids)
        ends.append(len(ids))
        is_target = np.zeros(len(payload.ids), bool)
        is_target[payload.target_positions + 1] = True
        targets += is_target.tobytes()
    return TokenSet(np.asarray(ids, np.int32), np.asarray(ends, np.int64), np.frombuffer(targets, bool))
