"""Run: budget, device, progress, cancellation and executor of a long operation, in one value. Knows nothing of the work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one stage of a long operation is."""

    stage: str
    """What is being done, such as `attribute` or `hidden states`."""
    done: int
    """Items that are done."""
    total: int | None = None
    """Items that there are; None where that is not known."""
    note: str = ""
    """The items' name, and what else is worth saying, such as `examples · 900 tokens/s`."""
    fraction: float | None = None
    """Share of the work that is done, where the total is only estimated."""


OnProgress = Callable[[Progress], None]
"""Receives every report of progress."""
ShouldStop = Callable[[], bool]
"""Whether the work should end at its next whole step."""


def silent(progress: Progress) -> None:
    """Receive progress and show nothing."""


def never() -> bool:
    """Never ask for a stop."""
    return False


@dataclass(frozen=True, slots=True)
class Run:
    """The circumstances of a long operation. Nothing in it decides what is computed."""

    budget: int | None = None
    """Bytes that the plan may come to; None: no budget."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda` or `cuda:i`."""
    on_progress: OnProgress = silent
    """Receives progress of every stage."""
    should_stop: ShouldStop = never
    """Asked at every whole step."""
    executor: None = None
    """Who maps tasks; None: this process."""

    def report(self, stage: str, done: int, total: int | None = None, note: str = "") -> None:
        """Report that `done` of `total` items of a stage are done."""
        self.on_progress(Progress(stage, done, total, note))

    def counter(self, stage: str, total: int | None, note: str = "examples") -> Callable[[int], None]:
        """A function of a count that reports it as this stage's: what a loop over rows calls."""
        return lambda done: self.report(stage, done, total, note)

    def stage(self, name: str, total: int | None, note: str = "examples") -> Stage:
        """A stage of this run: what a loop over rows is given."""
        return Stage(name, total, note, self)

    def silenced(self) -> Run:
        """The same without progress."""
        return replace(self, on_progress=silent)


SILENT = Run()
"""No budget, no progress, no cancellation."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of a run: a loop reports its progress to it, and asks it whether to stop."""

    name: str
    """What is being done, such as `attribute` or `hidden states`."""
    total: int | None = None
    """Number of items; None where it is not known."""
    note: str = "examples"
    """The items' name."""
    run: Run = SILENT
    """The run that the stage is a part of."""

    def report(self, done: int, note: str = "") -> None:
        """Report that `done` items are done; `note` is shown in place of the items' name."""
        self.run.report(self.name, done, self.total, note or self.note)

    def should_stop(self) -> bool:
        """Whether the loop should end at its next whole step."""
        return self.run.should_stop()


SILENT_STAGE = Stage("")
"""No progress, no cancellation."""
