"""How text becomes examples: maximal length, truncation, which positions are targets. Knows no model but its model_shape, and
no file.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...store.errors import SettingsError
from ..data.documents import Template
from ..interface.model_view import ModelShape

MAX_LENGTH = 1024
"""Tokens of an example unless asked otherwise: long enough to be one thought, short enough to be pointed at."""


@dataclass(frozen=True, slots=True)
class TextSettings:
    """How text becomes examples."""

    max_length: int
    """Tokens of the longest example, the begin-of-text token included."""
    attribute: str
    """`completion`: of a row with a prompt, only the completion's tokens count; `all`: all do."""
    template: Template
    """Which fields of a record are text."""
    lines: bool = False
    """Whether a line of plain text is a document, instead of a paragraph."""
    truncate: bool = False
    """Whether a row with a prompt that is too long loses the start of its prompt, then its completion's end."""


def text_settings(
    model_shape: ModelShape,
    max_length: int | None,
    attribute: str,
    template: Template,
    truncate: bool = False,
    lines: bool = False,
) -> TextSettings:
    """Settings for a model.

    Raises:
        SettingsError: `max_length` exceeds what the model reads, or nothing would be left to count.
    """
    if max_length is not None and max_length > model_shape.max_length:
        raise SettingsError(f"--max-length {max_length} exceeds the model's context of {model_shape.max_length} tokens")
    if max_length is not None and max_length < 2:
        raise SettingsError(f"--max-length {max_length}: an example needs 2 tokens for one to be predicted")
    return TextSettings(max_length or min(MAX_LENGTH, model_shape.max_length), attribute, template, lines, truncate)
