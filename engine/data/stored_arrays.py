"""The type of an array in a file, whatever the file's format: rows are read when it is sliced. Knows no format."""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias

import numpy as np

from ...store.layout import Array


class StoredArray(Protocol):
    """An array in a file."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Its element type."""

    def __getitem__(self, rows: slice) -> Array:
        """Read rows."""


Arrays: TypeAlias = dict[str, StoredArray]
"""Name → array."""
