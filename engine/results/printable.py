"""Makes text safe to print on a terminal and in a spreadsheet. Knows nothing of its meaning."""

from __future__ import annotations

import json
import re

from ...store.json_values import JsonValue

_NUMBER = re.compile(r"-\s*(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def printable(text: str) -> str:
    """Text without the control characters that would move a terminal's cursor, change its colours or its direction of writing."""
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text)


def printable_json(value: JsonValue, indent: int | None = None) -> str:
    """A value as JSON in which every character that is not printable is an escape, as `\\u202e`: the value is the same."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    return "".join(
        c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] if ord(c) != 0x7F else "\\u007f" for c in text
    )


def spreadsheet_cell(text: str) -> str:
    """Text with an apostrophe before it if a spreadsheet would take it for a formula; a negative number stays."""
    formula = text.startswith(("=", "+", "@", "\t")) or (text.startswith("-") and not _NUMBER.fullmatch(text))
    return "'" + text if formula else text
