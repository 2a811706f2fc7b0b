"""Checkpoints of a fit that can be interrupted at any step. Knows no method."""

from __future__ import annotations

import time
from pathlib import Path

from ...store.errors import DataError
from ...store.state import whole_state, write_state
from ..interface.subset_method import FitSession


class Checkpoint:
    """Where a training stands, kept now and then."""

    def __init__(self, folder: Path, of: str, seconds: float) -> None:
        """`of`: digest of the states that it is trained on."""
        self._folder, self._of, self._seconds, self._kept = folder, of, seconds, time.monotonic()

    def resumed(self, fitting: FitSession) -> bool:
        """Go on from what is kept, if it is of the same states; False where it is not whole."""
        state = whole_state(self._folder)
        if state is None or state.values.get("of") != self._of:
            return True
        try:
            fitting.load_state_dict(state.arrays)
        except DataError:
            return False
        return True

    def write(self, fitting: FitSession, *, due: bool = False) -> None:
        """Keep it; with `due`, if it is time to."""
        if not due or time.monotonic() - self._kept >= self._seconds:
            write_state(self._folder, {"of": self._of}, fitting.state_dict())
            self._kept = time.monotonic()
