"""Progress of long work: a bar on a terminal, a line in a notebook, lines on stderr elsewhere. Knows nothing of the work."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

from .messages import PLAIN, message, style
from .notebook_line import NotebookLine, in_notebook
from .run import Progress

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

RATE_SECONDS, RATE_SHARE = 3.0, 0.02
"""How long a stage must have been seen, and which fraction of it must be done, before its end is foretold."""


def clock(seconds: float) -> str:
    """Seconds as 0:07, 12:34 or 1:02:03."""
    hours, rest = divmod(round(seconds), 3600)
    minutes, left = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"


class ProgressDisplay:
    """Shows the progress of a run, one stage after the other. Call :meth:`show` with each report.

    On a terminal a progress bar, by the library rich; in a notebook one line that is updated in place, and removed at the end;
    elsewhere a line every few seconds, so that a log stays readable: text, or JSON if the messages' style is so.
    """

    def __init__(self, interval: float = 5.0) -> None:
        """`interval`: seconds between lines."""
        self._interval, self._stage = interval, ""
        self._bars: Bars | None = None
        self._task: TaskID | None = None
        self._notebook = NotebookLine() if in_notebook() and style() == PLAIN else None
        self._first_share: float | None = None  # of the stage, at its first report
        self._first_time = self._last_print = time.monotonic()
        self.started: float | None = None
        """Time of the first report, by the monotonic clock."""

    def __enter__(self) -> ProgressDisplay:
        self._last_print = time.monotonic()
        return self

    def show(self, progress: Progress) -> None:
        """Show one report."""
        if progress.stage != self._stage:
            self._open(progress)
        share = progress.done / progress.total if progress.total else progress.fraction
        left = self._seconds_left(share)
        percent = f" · {share:.0%}" if share is not None else ""
        until = "" if left is None else f" · {clock(left)} left"
        line = f"{progress.done:,}{f' {progress.note}' if progress.note else ''}{percent}{until}"
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, completed=share or 0.0, note=line)
        elif self._notebook is not None:
            self._notebook.show(progress.stage, share, line)
        elif time.monotonic() - self._last_print >= self._interval:
            self._last_print = time.monotonic()
            message("progress", f"{progress.stage}: {line}", stage=progress.stage, done=progress.done,
                    total=progress.total, share=share, seconds_left=left)  # fmt: skip

    def _seconds_left(self, share: float | None) -> float | None:
        """Seconds until the stage ends, at the rate since its first report; None until that is known."""
        if share is None:
            return None
        now = time.monotonic()
        if self._first_share is None:
            self._first_share, self._first_time = share, now
        seconds, gained = now - self._first_time, share - self._first_share
        if seconds < RATE_SECONDS or share < RATE_SHARE or share >= 1 or gained <= 0:
            return None
        return seconds * (1 - share) / gained

    def _open(self, progress: Progress) -> None:
        """Begin another stage, and close the one before."""
        self._close()
        now = time.monotonic()
        if self._stage:
            self._last_print = now  # the first stage began with the display
        self._first_share = None
        self._stage, self.started = progress.stage, self.started or now
        if self._notebook is None and sys.stderr.isatty() and style() == PLAIN:
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
        if self._notebook is not None:
            self._notebook.close()
