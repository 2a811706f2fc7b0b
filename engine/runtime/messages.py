"""How messages appear on stderr: as text or as JSON lines, all of them or only what must not be missed. Knows no message.

The style is that of the running command; a context variable carries it to whatever reports something.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass

KINDS = ("note", "skipped", "warning", "error", "hint")
"""Kinds of messages that a line of text begins with."""
_MUST_BE_SEEN = ("warning", "stopped", "error", "hint")


@dataclass(frozen=True, slots=True)
class MessageStyle:
    """How messages appear."""

    quiet: bool = False
    """Whether only warnings, errors and stops are printed."""
    as_json: bool = False
    """Whether each message is a JSON object on a line of its own."""


PLAIN = MessageStyle()
"""All messages, as text."""
_STYLE: ContextVar[MessageStyle | None] = ContextVar("message_style", default=None)


def style() -> MessageStyle:
    """The style of the running command."""
    return _STYLE.get() or PLAIN


@contextmanager
def using(chosen: MessageStyle) -> Iterator[None]:
    """Let messages appear in a style until the block ends."""
    token = _STYLE.set(chosen)
    try:
        yield
    finally:
        _STYLE.reset(token)


def say(line: str) -> None:
    """Print a line to stderr. What it begins with is its kind: `note: …`, `stopped …`; other lines are what was done."""
    kind, _, rest = line.partition(": ")
    if kind in KINDS:
        message(kind, rest)
    else:
        message("stopped" if line.startswith("stopp") else "done", line)


def message(kind: str, text: str, **facts: object) -> None:
    """Print a message of a kind, and in JSON its facts, too; unless the style leaves it out."""
    chosen = style()
    if chosen.quiet and kind not in _MUST_BE_SEEN:
        return
    with suppress(OSError):  # stderr may be full or closed
        if chosen.as_json:
            print(json.dumps({"kind": kind, "message": text, **facts}), file=sys.stderr, flush=True)
        else:
            print(f"{kind}: {text}" if kind in KINDS else text, file=sys.stderr, flush=True)
