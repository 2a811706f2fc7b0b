"""Progress of long work on stderr: a bar on a terminal, plain lines elsewhere. Knows nothing of the work."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any


def clock(seconds: float) -> str:
    """Seconds as 0:07, 12:34 or 1:02:03."""
    hours, rest = divmod(round(seconds), 3600)
    minutes, left = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"


class ProgressBar:
    """Progress of one long task, of a known total or none.

    On a terminal a bar of rich; elsewhere a line now and then, so that a log stays readable.
    """

    def __init__(self, task: str, total: int | None = None, every: float = 5.0, quiet: bool = False) -> None:
        """`every`: seconds between lines."""
        self._task, self._total, self._every, self._quiet = task, total, every, quiet
        self._bar: Any = None
        self._started = self._told = time.monotonic()

    def __enter__(self) -> ProgressBar:
        if not self._quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn

            self._bar = Progress(TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[note]}"),
                                 console=Console(stderr=True), transient=True)  # fmt: skip
            self._bar.start()
            self._id = self._bar.add_task(self._task, total=1.0, note="")
        return self

    def update(self, done: int, note: str = "", fraction: float | None = None) -> None:
        """`done` items are done; `fraction` of the work, where the total is not known in items."""
        seconds = time.monotonic() - self._started
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


class StageProgress:
    """Progress of tasks that follow each other: a bar for each, the last one's closed."""

    def __init__(self) -> None:
        """Nothing has begun."""
        self._bar: ProgressBar | None = None
        self._task = ""
        self.started: float | None = None

    def __enter__(self) -> StageProgress:
        return self

    def update(self, task: str, done: int, total: int, note: str) -> None:
        """`done` of `total` items of a task are done."""
        self.started = self.started or time.monotonic()
        if task != self._task:
            self.__exit__(None, None, None)
            self._bar, self._task = ProgressBar(task, total).__enter__(), task
        assert self._bar is not None
        self._bar.update(done, note)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.__exit__(kind, error, trace)
