"""Stops work at the end of the current step after Ctrl-C or SIGTERM. Knows nothing of the work."""

from __future__ import annotations

import signal

from .messages import say


class StopRequest:
    """Handles SIGINT and SIGTERM: after the first signal the current step is finished and committed; a second stops at once."""

    def __init__(self) -> None:
        """No signal has arrived yet."""
        self._requested = False

    def requested(self) -> bool:
        """Whether a signal has arrived."""
        return self._requested

    def __enter__(self) -> StopRequest:
        self._previous = [signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)]
        return self

    def _handle(self, number: int, frame: object) -> None:
        if self._requested:
            raise KeyboardInterrupt
        self._requested = True
        say("stopping after the current step; a second signal stops at once")

    def __exit__(self, *_: object) -> None:
        for number, handler in zip((signal.SIGINT, signal.SIGTERM), self._previous, strict=True):
            signal.signal(number, handler)
