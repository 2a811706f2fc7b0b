"""How often each of S subsets contains each of N examples, as compact as the subsets allow: bits, or a sparse matrix. Knows no
file and no vectors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import scipy.sparse

from ...store.layout import Array


class SubsetCounts(Protocol):
    """How often each of S subsets contains each of N examples."""

    @property
    def shape(self) -> tuple[int, int]:
        """(S, N)."""

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""

    def block(self, start: int, stop: int) -> Array:
        """(S, n) float32: the counts of a range of examples."""

    def sizes(self) -> Array:
        """(S,) float64: number of examples of each subset."""

    def united(self, number: int) -> SubsetCounts:
        """The union of each subset with one of them: the larger of the two counts."""


@dataclass(frozen=True, slots=True)
class PackedMasks:
    """Subsets that contain each example once or not at all."""

    bits: Array
    """(S, ⌈N/8⌉) uint8, as `numpy.packbits` packs masks."""
    examples: int
    """N."""

    @classmethod
    def of(cls, masks: Array) -> PackedMasks:
        """From masks (S, N) bool."""
        return cls(np.packbits(masks, axis=1), masks.shape[1])

    @property
    def shape(self) -> tuple[int, int]:
        """(S, N)."""
        return len(self.bits), self.examples

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return int(self.bits.nbytes)

    def masks(self, start: int, stop: int) -> Array:
        """(S, n) uint8: 0 and 1 for a range of examples."""
        first = start // 8
        unpacked: Array = np.unpackbits(self.bits[:, first : -(-stop // 8)], axis=1)
        return unpacked[:, start - 8 * first : stop - 8 * first]

    def block(self, start: int, stop: int) -> Array:
        """(S, n) float32: the counts of a range of examples."""
        return self.masks(start, stop).astype(np.float32)

    def sizes(self) -> Array:
        """(S,) float64: number of examples of each subset."""
        return np.array([np.bitwise_count(row).sum(dtype=np.int64) for row in self.bits], np.float64)

    def united(self, number: int) -> PackedMasks:
        """The union of each subset with one of them."""
        return PackedMasks(self.bits | self.bits[number], self.examples)


@dataclass(frozen=True, slots=True)
class SparseCounts:
    """Subsets as lists of examples; an example that is listed twice counts twice."""

    counts: scipy.sparse.csc_array
    """(S, N)."""

    @property
    def shape(self) -> tuple[int, int]:
        """(S, N)."""
        rows, columns = self.counts.shape
        return int(rows), int(columns)

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return int(self.counts.data.nbytes + self.counts.indices.nbytes + self.counts.indptr.nbytes)

    def block(self, start: int, stop: int) -> Array:
        """(S, n) float32: the counts of a range of examples."""
        return np.asarray(self.counts[:, start:stop].toarray(), np.float32)

    def sizes(self) -> Array:
        """(S,) float64: number of examples of each subset."""
        return np.asarray(self.counts.sum(1), np.float64)

    def united(self, number: int) -> SparseCounts:
        """The union of each subset with one of them: the larger of the two counts."""
        rows = scipy.sparse.csr_array(self.counts)
        return SparseCounts(scipy.sparse.csc_array(rows.maximum(rows[[number] * self.shape[0]])))
