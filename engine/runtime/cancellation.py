"""Stops work cleanly at the next whole step after Ctrl-C or a request to terminate. Knows nothing of the work."""

from __future__ import annotations

import signal
import sys


class StopRequest:
    """Ctrl-C, and a request to end, let the window in work be finished and committed; a second one ends at once."""

    def __init__(self) -> None:
        """Nothing is asked yet."""
        self._asked = False

    def asked(self) -> bool:
        """Whether a signal has come."""
        return self._asked

    def __enter__(self) -> StopRequest:
        self._before = [signal.signal(number, self._heard) for number in (signal.SIGINT, signal.SIGTERM)]
        return self

    def _heard(self, number: int, frame: object) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True
        print("stopping after the examples in work; once more stops at once", file=sys.stderr)

    def __exit__(self, *_: object) -> None:
        for number, handler in zip((signal.SIGINT, signal.SIGTERM), self._before, strict=True):
            signal.signal(number, handler)
