"""What long work tells a person: a bar on a terminal, plain lines elsewhere, always on stderr. Knows nothing of the work."""

from __future__ import annotations

import signal
import sys
import time
from types import TracebackType
from typing import Any


def clock(seconds: float) -> str:
    """Seconds as 0:07, 12:34 or 1:02:03."""
    hours, rest = divmod(round(seconds), 3600)
    minutes, left = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"


class Ticker:
    """Progress of one long task, of a known total or none.

    On a terminal a bar of rich; elsewhere a line now and then, so that a log stays readable.
    """

    def __init__(self, task: str, total: int | None = None, every: float = 5.0, quiet: bool = False) -> None:
        """`every`: seconds between lines."""
        self._task, self._total, self._every, self._quiet = task, total, every, quiet
        self._bar: Any = None
        self._begun = self._told = time.monotonic()

    def __enter__(self) -> Ticker:
        if not self._quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn

            self._bar = Progress(TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[note]}"),
                                 console=Console(stderr=True), transient=True)  # fmt: skip
            self._bar.start()
            self._id = self._bar.add_task(self._task, total=1.0, note="")
        return self

    def tell(self, done: int, note: str = "", fraction: float | None = None) -> None:
        """`done` items are done; `fraction` of the work, where the total is not known in items."""
        seconds = time.monotonic() - self._begun
        share = done / self._total if self._total else fraction
        left = f" · {clock(seconds * (1 - share) / share)} left" if share and share < 1 and seconds > 1 else ""
        percent = f" · {share:.0%}" if share is not None else ""
        line = f"{done:,}{f' {note}' if note else ''}{percent}{left}"
        if self._bar is not None:
            self._bar.update(self._id, completed=share or 0.0, note=line)
        elif not self._quiet and time.monotonic() - self._told >= self._every:
            self._told = time.monotonic()
            print(f"{self._task}: {line}", file=sys.stderr, flush=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()


class Stages:
    """Progress of tasks that follow each other: a ticker for each, the last one's closed."""

    def __init__(self) -> None:
        """Nothing has begun."""
        self._ticker: Ticker | None = None
        self._task = ""
        self.begun: float | None = None

    def __enter__(self) -> Stages:
        return self

    def tell(self, task: str, done: int, total: int, note: str) -> None:
        """`done` of `total` items of a task are done."""
        self.begun = self.begun or time.monotonic()
        if task != self._task:
            self.__exit__(None, None, None)
            self._ticker, self._task = Ticker(task, total).__enter__(), task
        assert self._ticker is not None
        self._ticker.tell(done, note)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._ticker is not None:
            self._ticker.__exit__(kind, error, trace)


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
