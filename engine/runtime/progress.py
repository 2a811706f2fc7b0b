"""Progress of long work on stderr: a bar on a terminal, plain lines elsewhere. Knows nothing of the work."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

from .run import Progress

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID


def clock(seconds: float) -> str:
    """Seconds as 0:07, 12:34 or 1:02:03."""
    hours, rest = divmod(round(seconds), 3600)
    minutes, left = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"


class ProgressDisplay:
    """Shows the progress of a run, one stage after the other. Call :meth:`show` with each report.

    On a terminal a progress bar, by the library rich; elsewhere a line every few seconds, so that a log stays readable.
    """

    def __init__(self, interval: float = 5.0) -> None:
        """`interval`: seconds between lines."""
        self._interval, self._stage = interval, ""
        self._bars: Bars | None = None
        self._task: TaskID | None = None
        self._stage_start = self._last_print = time.monotonic()
        self.started: float | None = None
        """Time of the first report, by the monotonic clock."""

    def __enter__(self) -> ProgressDisplay:
        self._stage_start = self._last_print = time.monotonic()
        return self

    def show(self, progress: Progress) -> None:
        """Show one report."""
        if progress.stage != self._stage:
            self._open(progress)
        seconds = time.monotonic() - self._stage_start
        share = progress.done / progress.total if progress.total else progress.fraction
        left = f" · {clock(seconds * (1 - share) / share)} left" if share and share < 1 and seconds > 1 else ""
        percent = f" · {share:.0%}" if share is not None else ""
        line = f"{progress.done:,}{f' {progress.note}' if progress.note else ''}{percent}{left}"
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, completed=share or 0.0, note=line)
        elif time.monotonic() - self._last_print >= self._interval:
            self._last_print = time.monotonic()
            print(f"{progress.stage}: {line}", file=sys.stderr, flush=True)

    def _open(self, progress: Progress) -> None:
        """Begin another stage, and close the one before."""
        self._close()
        now = time.monotonic()
        if self._stage:
            self._stage_start = self._last_print = now  # the first stage began with the display
        self._stage, self.started = progress.stage, self.started or now
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn
            from rich.progress import Progress as Bars

            self._bars = Bars(TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[note]}"),
                              console=Console(stderr=True), transient=True)  # fmt: skip
            self._bars.start()
            self._task = self._bars.add_task(progress.stage, total=1.0, note="")

    def _close(self) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()
