"""Subsets as an array of masks in memory, in place of a file of them. Knows no vectors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...store.errors import DataError
from ...store.layout import Array
from ..runtime.memory import Part, Plan
from .subset_counts import PackedMasks
from .subsets import Subsets


@dataclass(frozen=True, slots=True)
class MaskArray:
    """Masks of subsets of a store's examples."""

    masks: Array
    """(S, N) bool, or 0 and 1."""
    rows: int
    """N: number of the store's examples."""

    def plan(self) -> tuple[Plan, int]:
        """The memory of the packed masks, and the number of subsets.

        Raises:
            DataError: the array is not (S, N) of 0 and 1, or a subset holds no example.
        """
        masks = self.masks
        if masks.ndim != 2 or masks.shape[1] != self.rows or not len(masks):
            raise DataError(f"masks {masks.shape} are (subsets, examples), and the store has {self.rows} examples")
        if masks.dtype.kind not in "biuf" or not ((masks == 0) | (masks == 1)).all():
            raise DataError(f"masks are 0 and 1, not {masks.dtype}")
        empty = np.flatnonzero(~masks.astype(bool).any(1))
        if len(empty):
            raise DataError(f"subset {empty[0]} holds no example")
        return Plan.of(Part("subsets", 2 * len(masks) * -(-self.rows // 8))), len(masks)

    def read(self) -> Subsets:
        """The subsets, named by their numbers."""
        return Subsets(tuple(map(str, range(len(self.masks)))), PackedMasks.of(self.masks.astype(bool)))
