"""Values of options that are lists separated by commas. Knows no command."""

from __future__ import annotations

from .options import WrongUsage


def parts_of(option: str, text: str) -> tuple[str, ...]:
    """The parts of an option's value that are separated by commas; none of an empty value."""
    parts = tuple(text.split(",")) if text else ()
    if not all(parts):
        raise WrongUsage(f"{option} {text}: nothing stands before or after a comma")
    return parts
