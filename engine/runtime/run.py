"""Run: budget, device, progress and cancellation of a long operation, in one value. Knows nothing of the work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of one stage of a long operation."""

    stage: str
    """Name of the stage, such as `attribute` or `hidden states`."""
    done: int
    """Number of items done."""
    total: int | None = None
    """Number of all items; None if it is not known."""
    note: str = ""
    """The items' name and further numbers, such as `examples · 900 tokens/s`."""
    fraction: float | None = None
    """Fraction of the work that is done, if the total is only estimated."""


OnProgress = Callable[[Progress], None]
"""Called with each report of progress."""
ShouldStop = Callable[[], bool]
"""Whether the work should stop after the current step."""


def silent(progress: Progress) -> None:
    """Ignore a report of progress."""


def never() -> bool:
    """Never ask for a stop."""
    return False


@dataclass(frozen=True, slots=True)
class Run:
    """How a long operation runs: memory, device, progress, stop. None of it changes what is computed."""

    budget: int | None = None
    """Upper bound of the memory plan in bytes; None for no bound."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda` or `cuda:i`."""
    on_progress: OnProgress = silent
    """Called with the progress of each stage."""
    should_stop: ShouldStop = never
    """Called before each step."""

    def report(self, stage: str, done: int, total: int | None = None, note: str = "") -> None:
        """Report that `done` of a stage's `total` items are done."""
        self.on_progress(Progress(stage, done, total, note))

    def counter(self, stage: str, total: int | None, note: str = "examples") -> Callable[[int], None]:
        """A function that reports a count as the progress of this stage; for loops over rows."""
        return lambda done: self.report(stage, done, total, note)

    def stage(self, name: str, total: int | None, note: str = "examples") -> Stage:
        """A stage of this run, to which a loop over rows reports."""
        return Stage(name, total, note, self)

    def silenced(self) -> Run:
        """The same run without progress."""
        return replace(self, on_progress=silent)


SILENT = Run()
"""No budget, no progress, no cancellation."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of a run: a loop reports its progress to it, and asks it whether to stop."""

    name: str
    """What is being done, such as `attribute` or `hidden states`."""
    total: int | None = None
    """Number of items; None if it is not known."""
    note: str = "examples"
    """The items' name."""
    run: Run = SILENT
    """The run that the stage is a part of."""

    def report(self, done: int, note: str = "") -> None:
        """Report that `done` items are done; `note` is shown in place of the items' name."""
        self.run.report(self.name, done, self.total, note or self.note)

    def should_stop(self) -> bool:
        """Whether the loop should end after the current step."""
        return self.run.should_stop()


SILENT_STAGE = Stage("")
"""No progress, no cancellation."""
