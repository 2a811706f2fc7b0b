"""How text becomes examples: as a user asks for it, as a run uses it, as a store records it. Knows no file, and no model but its
shape.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from ...store.errors import SettingsError
from ...store.files import JsonFacts, JsonObject
from ..data.documents import Template
from ..interface.model_view import ModelShape

MAX_LENGTH = 1024
"""Tokens of an example unless asked otherwise: long enough to be one thought, short enough to be pointed at."""
_FOLLOWED = ("max_length", "attribute", "truncate", "lines")


@dataclass(frozen=True, slots=True)
class TextSettings:
    """How files of text are read and cut. What is None is not decided: it follows the store, or else the default."""

    template: Template = field(default_factory=Template)
    """Which fields of a record are text."""
    on_error: Literal["fail", "skip"] = "fail"
    """What a bad record does; not recorded."""
    max_length: int | None = None
    """Tokens of the longest example, the begin-of-text token included; by default the model's context, at most 1024."""
    attribute: str | None = None
    """`completion` (the default): of a row with a prompt, only the completion's tokens count; `all`: all do."""
    truncate: bool | None = None
    """Whether a row with a prompt that is too long loses the start of its prompt, then its completion's end."""
    lines: bool | None = None
    """Whether a line of plain text is a document, instead of a paragraph."""

    @classmethod
    def from_provenance(cls, provenance: JsonFacts) -> TextSettings:
        """The settings that a store of texts was made with."""
        decided = {name: provenance[name] for name in _FOLLOWED}
        return cls(Template(**provenance["template"]), **decided)

    def following(self, provenance: JsonFacts) -> TextSettings:
        """What is not decided here, as a store of texts was made."""
        there = TextSettings.from_provenance(provenance)
        undecided = {name: getattr(there, name) for name in _FOLLOWED if getattr(self, name) is None}
        template = self.template if self.template != Template() else there.template
        return replace(self, template=template, **undecided)

    def resolved(self, model_shape: ModelShape) -> TextSettings:
        """All decided, for a model.

        Raises:
            SettingsError: `max_length` exceeds what the model reads, or nothing would be left to count.
        """
        length, context = self.max_length, model_shape.max_length
        if length is not None and length > context:
            raise SettingsError(f"--max-length {length} exceeds the model's context of {context} tokens")
        if length is not None and length < 2:
            raise SettingsError(f"--max-length {length}: an example needs 2 tokens for one to be predicted")
        return replace(
            self,
            max_length=length or min(MAX_LENGTH, context),
            attribute=self.attribute or "completion",
            truncate=bool(self.truncate),
            lines=bool(self.lines),
        )

    @property
    def length(self) -> int:
        """Tokens of the longest example, once that is decided."""
        assert self.max_length is not None, "settings that were not resolved for a model"
        return self.max_length

    def provenance(self) -> JsonObject:
        """What a store records of them, JSON values, read back by :meth:`from_provenance`."""
        template = self.template
        return {
            **{name: getattr(self, name) for name in _FOLLOWED},
            "template": {"text": template.text, "prompt": template.prompt, "completion": template.completion},
        }


def text_settings_of(provenance: JsonFacts) -> TextSettings:
    """How a store's texts were read; of a store of arrays, the defaults."""
    return TextSettings.from_provenance(provenance) if provenance["kind"] == "text" else TextSettings()
