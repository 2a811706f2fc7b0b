"""Renders conversations by a tokenizer's chat template, with a fixed date.

The whole conversation is rendered once, as a trainer renders it, and divided where the assistant's last message begins. Templates
may ignore the generation prompt, open a thought in it, or trim content, so that the rendering of the earlier messages need not be
a prefix of the whole. The message therefore begins where the whole rendering first differs from one with another last message.
Knows no file and no store.
"""

from __future__ import annotations

from datetime import date

from ..data.conversations import Conversation, Message
from .transformers_types import HfTokenizer

_OTHER = "\ue000"  # content of the other last message: a character for private use
_FORMATS = ("%Y", "%y", "%m", "%-m", "%d", "%-d", "%B", "%b", "%A", "%a", "%j", "%x", "%F")
_CLOCK = (
    "{%- macro strftime_now(format) -%}{%- set text = namespace(value=format) -%}"
    "{%- for code, value in fixed_date.items() -%}{%- set text.value = text.value | replace(code, value) -%}{%- endfor -%}"
    "{{ text.value }}{%- endmacro -%}{{ '' }}"  # after an expression, unlike after a tag, a template's first line end stays
)
"""Takes the place of the clock of transformers: codes of the date give the fixed date, codes of the time midnight."""


class ChatTemplate:
    """A tokenizer's chat template."""

    def __init__(self, tokenizer: HfTokenizer, day: date) -> None:
        """`day`: the date that the template sees."""
        self._tokenizer, self.day = tokenizer, day
        self._template = str(tokenizer.chat_template)
        self.reads_clock = "strftime_now" in self._template

    def __call__(self, conversation: Conversation) -> tuple[str, str]:
        """(prompt, text) of a conversation; together they are its whole rendering.

        Raises:
            Exception: any that the template raises.
        """
        messages, tools = conversation.messages, conversation.tools
        whole = self._rendered(messages, tools)
        other: Message = {"role": messages[-1]["role"], "content": _OTHER}
        candidates = [self._rendered(messages[:-1], tools, generation_prompt=True)] if len(messages) > 1 else []
        candidates.append(self._rendered([*messages[:-1], other], tools))
        begin = max(_common_length(candidate, whole) for candidate in candidates)
        return whole[:begin], whole[begin:]

    def _rendered(self, messages: list[Message], tools: list[object] | None, *, generation_prompt: bool = False) -> str:
        template, more = self._template, {}
        if self.reads_clock:
            template, more = _CLOCK + template, {"fixed_date": fixed_date(self.day)}
        return str(self._tokenizer.apply_chat_template(
            messages, tools=tools, chat_template=template, tokenize=False, add_generation_prompt=generation_prompt, **more
        ))  # fmt: skip


def fixed_date(day: date) -> dict[str, str]:
    """Codes of strftime, each with its text on this day at midnight."""
    return {
        **{code: day.strftime(code) for code in _FORMATS},
        "%H": "00",
        "%I": "12",
        "%M": "00",
        "%S": "00",
        "%p": "AM",
    }


def _common_length(one: str, other: str) -> int:
    """Number of characters with which both texts begin."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
