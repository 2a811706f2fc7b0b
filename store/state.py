"""Arrays kept beside a store's rows, such as a method's statistics: a file of them appears whole or not at all.

Knows nothing of what they are.
"""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np

from .layout import Array


def read_arrays(file: Path) -> dict[str, Array] | None:
    """The arrays of a file; None where there is none, or no whole one. Nothing is unpickled."""
    with suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        held = np.load(io.BytesIO(file.read_bytes()), allow_pickle=False)
        return {name: held[name] for name in held.files}
    return None


def write_arrays(file: Path, arrays: Mapping[str, Array]) -> None:
    """Write a file in place of the one that is there, in one step.

    Raises:
        OSError: it cannot be written.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    hidden = file.with_name(f".{file.stem}.{os.getpid()}.part.npz")
    try:
        np.savez(hidden, allow_pickle=False, **arrays)
        hidden.replace(file)
    finally:
        hidden.unlink(missing_ok=True)
