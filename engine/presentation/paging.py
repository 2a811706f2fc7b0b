"""Prints lines: through a pager if they are longer than the terminal's screen. Knows nothing of the lines."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable
from itertools import chain, islice

import click


def is_terminal() -> bool:
    """Whether a person reads stdout."""
    return sys.stdout.isatty()


def show(lines: Iterable[str]) -> None:
    """Print lines as they come; on a terminal, more than a screen of them through the pager."""
    lines = iter(lines)
    if is_terminal():
        screen = list(islice(lines, shutil.get_terminal_size((120, 24)).lines))
        if len(screen) == shutil.get_terminal_size((120, 24)).lines:
            click.echo_via_pager(f"{line}\n" for line in chain(screen, lines))
            return
        lines = iter(screen)
    for line in lines:
        click.echo(line)
