"""Makes text safe to print on a terminal. Knows nothing of its meaning."""

from __future__ import annotations


def printable(text: str) -> str:
    """Text without the control characters that would move a terminal's cursor or change its colours."""
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text)
