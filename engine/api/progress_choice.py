"""Where the progress of the Python API goes: stderr or a notebook, or nowhere. Knows nothing of the work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..runtime.progress import ProgressDisplay
from ..runtime.run import Run


@contextmanager
def shown_run(budget: int | None, device: str, *, progress: bool) -> Iterator[Run]:
    """A run whose progress is shown while the block runs, if `progress`."""
    if not progress:
        yield Run(budget, device)
        return
    with ProgressDisplay() as display:
        yield Run(budget, device, display.show)
