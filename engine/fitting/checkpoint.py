"""Checkpoints of a fit, which can be interrupted at any step. Knows no method."""

from __future__ import annotations

import time
from pathlib import Path

from ...store.errors import DataError
from ...store.state import whole_state, write_state
from ..interface.subset_method import FitSession


class Checkpoint:
    """The state of a fit session in a folder, written every few seconds."""

    def __init__(self, folder: Path, corpus_digest: str, seconds: float) -> None:
        """`corpus_digest`: a digest of the hidden states that the session is fitted to; `seconds`: time between two writes."""
        self._folder, self._corpus_digest, self._seconds = folder, corpus_digest, seconds
        self._last_write = time.monotonic()

    def resume(self, session: FitSession) -> bool:
        """Load the checkpoint into a session, if it belongs to the same hidden states; False if it is damaged."""
        state = whole_state(self._folder)
        if state is None or state.values.get("of") != self._corpus_digest:
            return True
        try:
            session.load_state_dict(state.arrays)
        except DataError:
            return False
        return True

    def write(self, session: FitSession, *, due: bool = False) -> None:
        """Write a checkpoint; with `due`, only if the last one is older than `seconds`."""
        if not due or time.monotonic() - self._last_write >= self._seconds:
            write_state(self._folder, {"of": self._corpus_digest}, session.state_dict())
            self._last_write = time.monotonic()
