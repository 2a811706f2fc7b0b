"""How texts become examples: the settings as a user gives them, as a run resolves them, and as a store records them. Knows no
file; of a model only its shape.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from datetime import date
from typing import Literal, TypeAlias

from ...store.errors import SettingsError
from ...store.json_values import ParsedJson, ParsedMapping
from ..data.documents import Template
from ..interface.model_view import ModelShape

Boundary: TypeAlias = Literal["joined", "apart", "auto"]
"""Whether prompts and completions are tokenised joined as one text, or apart; auto: as the model's losses say."""
MAX_LENGTH = 1024
"""Default of `max_length` where the context allows it: a longer example's score tells less about which of its parts matters."""
_RECORDED = ("max_length", "attribute", "truncate", "lines")
_OPTIONAL = ("boundary", "clock")  # recorded, but older stores lack them
_TEMPLATES = ("text", "prompt", "completion")  # recorded even if empty


@dataclass(frozen=True, slots=True)
class TextSettings:
    """How text files are read and cut. None stands for the store's setting, or else the default."""

    template: Template = field(default_factory=Template)
    """The fields of a record that hold texts."""
    on_error: Literal["fail", "skip"] = "fail"
    """Whether a bad record stops the run or is skipped; not recorded in the store."""
    max_length: int | None = None
    """Tokens of the longest example, with the begin-of-text token; by default the model's context, at most 1024."""
    attribute: str | None = None
    """Target tokens of an example with a prompt: those of its `completion` (the default), or `all`."""
    truncate: bool | None = None
    """Whether a too long example with a prompt is truncated: first its prompt from the start, then its completion from the
    end.
    """
    lines: bool | None = None
    """Whether each line of a plain text file is a document, instead of each paragraph."""
    boundary: Boundary | None = None
    """How a prompt and its completion are tokenised: joined as one text, or apart. None and auto: as the model's losses say,
    which only an ingestion into a new store measures; elsewhere joined.
    """
    clock: str | None = None
    """The date, as YYYY-MM-DD, that a chat template sees; by default the date on which the store is made."""
    keep: tuple[str, ...] = ()
    """Columns whose values are read beside the texts, in an ingestion alone; the store records them beside these settings."""

    @classmethod
    def from_provenance(cls, provenance: ParsedMapping) -> TextSettings:
        """The settings of a store of texts."""
        recorded = {name: provenance[name] for name in _RECORDED} | {name: provenance.get(name) for name in _OPTIONAL}
        recorded["boundary"] = recorded["boundary"] or "joined"
        return cls(Template(**provenance["template"]), **recorded)

    def completed_from(self, provenance: ParsedMapping) -> TextSettings:
        """These settings, with those that a store of texts records in place of None."""
        stored = TextSettings.from_provenance(provenance)
        names = [name for name in (*_RECORDED, *_OPTIONAL) if getattr(self, name) in (None, "auto")]
        response, turns = (
            self.template.response or stored.template.response,
            self.template.turns or stored.template.turns,
        )
        template = (
            self.template if self.template.names_fields else replace(stored.template, response=response, turns=turns)
        )
        return replace(self, template=template, **{name: getattr(stored, name) for name in names})

    def resolved(self, model_shape: ModelShape) -> TextSettings:
        """These settings, with defaults for a model in place of None.

        Raises:
            SettingsError: `max_length` exceeds the model's context, or leaves no target position.
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
            boundary="apart" if self.boundary == "apart" else "joined",
            clock=self.clock or date.today().isoformat(),
        )

    @property
    def length(self) -> int:
        """Tokens of the longest example; only for resolved settings."""
        assert self.max_length is not None, "settings must be resolved for a model first"
        return self.max_length

    def provenance(self) -> ParsedJson:
        """The settings as JSON values for a store's record, read back by :meth:`from_provenance`.

        Turns `last`, the default, are left out: a store that was made without naming them has the same.
        """
        template = replace(self.template, turns=None) if self.template.turns == "last" else self.template
        return {
            **{name: getattr(self, name) for name in (*_RECORDED, *_OPTIONAL)},
            "template": {name: value for name, value in asdict(template).items() if name in _TEMPLATES or value},
        }


def text_settings_of(provenance: ParsedMapping) -> TextSettings:
    """The text settings of a store; the defaults for a store of arrays."""
    return TextSettings.from_provenance(provenance) if provenance["kind"] == "text" else TextSettings()
