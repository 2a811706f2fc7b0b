"""The type of an array in a file, whatever the file's format: rows are read when it is sliced. Knows no format."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeAlias

import numpy as np

from ...store.errors import HeadwaterError
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


@contextmanager
def reading(name: str, error_class: type[HeadwaterError], advice: str = "") -> Iterator[None]:
    """Turn whatever a library raises while it reads the file `name` into `error_class`: one line, which ends with `advice`.

    Only calls of a library belong into the block. NumPy, zarr and zipfile raise nearly every class of exception for damaged
    bytes: TokenError for a header, TypeError for metadata, MemoryError for a size.
    """
    try:
        yield
    except HeadwaterError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise error_class(f"{name} cannot be read as arrays ({reason}){advice}") from None
