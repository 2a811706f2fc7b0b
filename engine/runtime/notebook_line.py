"""A line of progress in a Jupyter notebook, updated in place. Imports IPython only where it already runs; knows no stage.

One output with a display id is made when work has taken a moment, changed with each report, and emptied at the end. No widgets
are needed, and a saved notebook keeps no trace of it.
"""

from __future__ import annotations

import html
import sys
import time
from importlib import import_module
from typing import Any

DELAY_SECONDS = 0.4
"""How long work takes before its progress appears: a short question leaves no output behind."""
UPDATE_SECONDS = 0.1
"""Least time between two updates, each a message to the browser."""


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None and hasattr(ipython, "get_ipython") else None
    return getattr(shell, "kernel", None) is not None


class NotebookLine:
    """A bar with a line of text below the cell that runs."""

    def __init__(self) -> None:
        self._handle: Any = None
        self._due = time.monotonic() + DELAY_SECONDS

    def show(self, stage: str, share: float | None, line: str) -> None:
        """Show a stage, the fraction of it that is done (None: not known), and a line of text."""
        if time.monotonic() < self._due:
            return
        value = "" if share is None else f' value="{share:.3f}"'
        self._write({
            "text/plain": f"{stage}: {line}",
            "text/html": f'<progress max="1"{value}></progress> {html.escape(stage)}: {html.escape(line)}',
        })  # fmt: skip
        self._due = time.monotonic() + UPDATE_SECONDS

    def close(self) -> None:
        """Empty the output, if there is one."""
        if self._handle is not None:
            self._write({"text/plain": "", "text/html": ""})
            self._handle = None

    def _write(self, data: dict[str, str]) -> None:
        if self._handle is None:
            self._handle = import_module("IPython.display").display(data, raw=True, display_id=True)
        else:
            self._handle.update(data, raw=True)
