"""Makes text safe to print on a terminal and in a spreadsheet. Knows nothing of its meaning."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from ...store.json_values import JsonValue

_TABLE_CHARACTERS = 4096
_NUMBER = re.compile(r"-\s*(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


class _Characters(dict[int, int | str]):
    """A table for `str.translate`, filled with the first characters that are met: those that are printable stay."""

    def __init__(self, replace: Callable[[str], str]) -> None:
        self._replace = replace

    def __missing__(self, code: int) -> int | str:
        character = chr(code)
        replaced = code if character.isprintable() or character == "\n" else self._replace(character)
        if len(self) < _TABLE_CHARACTERS:
            self[code] = replaced
        return replaced


_SPACES = _Characters(lambda character: " ")
_ESCAPES = _Characters(lambda character: json.dumps(character)[1:-1] if character != "\x7f" else "\\u007f")


def printable(text: str) -> str:
    """Text without the control characters that would move a terminal's cursor, change its colours or its direction of writing."""
    return text.translate(_SPACES)


def printable_json(value: JsonValue, indent: int | None = None) -> str:
    """A value as JSON in which every character that is not printable is an escape, as `\\u202e`: the value is the same."""
    return json.dumps(value, ensure_ascii=False, indent=indent).translate(_ESCAPES)


def spreadsheet_cell(text: str) -> str:
    """Text with an apostrophe before it if a spreadsheet would take it for a formula; a negative number stays."""
    formula = text.startswith(("=", "+", "@", "\t")) or (text.startswith("-") and not _NUMBER.fullmatch(text))
    return "'" + text if formula else text
