"""Renders conversations by a tokenizer's chat template, with a fixed date.

The whole conversation is rendered once, as a trainer renders it. Its targets are what the template itself marks as the
assistant's (`{% generation %}`). Without marks they begin where the assistant's last message does. Templates may ignore the
generation prompt, open a thought in it, or trim content, so that the rendering of the earlier messages need not be a prefix of
the whole. A message therefore begins where the whole rendering first differs from one with another message in its place, and ends
where the rendering up to it does. Knows no file and no store.
"""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import date

from jinja2 import TemplateError
from transformers.utils import chat_template_utils

from ..data.conversations import Conversation, Message, Rendering, Turns
from .transformers_types import HfClass, HfTokenizer

_UTILITIES: HfClass = chat_template_utils  # annotates its functions as less than they take and return
_OTHER = "\ue000"  # content of the message in another's place: a character for private use
_MARK = re.compile(r"\{%-?\s*generation\s*-?%\}")
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
        self._has_marks = bool(_MARK.search(self._template))

    def __call__(self, conversation: Conversation, turns: Turns = "last") -> Rendering:
        """The whole rendering of a conversation, with the answers of these turns as targets.

        Raises:
            Exception: any that the template raises.
        """
        whole, marked = self._rendered(conversation, conversation.messages)
        last = len(conversation.messages) - 1
        if turns == "last":
            begin = self._begin(conversation, whole, last)
            targets = [span for span in marked if span[1] > begin]
        else:
            answers = [i for i, message in enumerate(conversation.messages) if message["role"] == "assistant"]
            targets = marked or [
                (self._begin(conversation, whole, i), self._end(conversation, whole, i)) for i in answers
            ]
            begin = 0
        begin = targets[0][0] if targets else begin
        return Rendering(whole[:begin], whole[begin:], tuple(targets) or None)

    def _begin(self, conversation: Conversation, whole: str, index: int) -> int:
        """Number of characters before a message of the assistant."""
        messages, texts = conversation.messages, [""]
        if index:
            texts.append(self._rendered(conversation, messages[:index], generation_prompt=True)[0])
        with suppress(
            TemplateError
        ):  # a template may refuse another message there, as between a tool's call and its answer
            texts.append(self._rendered(conversation, _with_other(messages, index))[0])
        return max(_common_length(text, whole) for text in texts)

    def _end(self, conversation: Conversation, whole: str, index: int) -> int:
        """Number of characters up to the end of a message of the assistant, with its end-of-turn tokens."""
        if index == len(conversation.messages) - 1:
            return len(whole)
        end = _common_length(self._rendered(conversation, conversation.messages[: index + 1])[0], whole)
        with suppress(TemplateError):
            other, _ = self._rendered(conversation, _with_other(conversation.messages, index))
            end = max(end, len(whole) - _common_length(other[::-1], whole[::-1]))
        return end

    def _rendered(
        self, conversation: Conversation, messages: list[Message], *, generation_prompt: bool = False
    ) -> tuple[str, list[tuple[int, int]]]:
        """The text of messages, and the spans that the template marks as the assistant's."""
        settings: dict[str, object] = {"chat_template": self._template, "tools": conversation.tools}
        if self.reads_clock:
            settings |= {"chat_template": _CLOCK + self._template, "fixed_date": fixed_date(self.day)}
        if not self._has_marks or generation_prompt:
            settings |= {"tokenize": False, "add_generation_prompt": generation_prompt}
            return str(self._tokenizer.apply_chat_template(messages, **settings)), []
        settings |= self._tokenizer.special_tokens_map
        texts, spans = _UTILITIES.render_jinja_template([messages], return_assistant_tokens_mask=True, **settings)
        return texts[0], sorted((begin, end) for begin, end in spans[0] if end > begin)


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


def _with_other(messages: list[Message], index: int) -> list[Message]:
    """The messages with another one in place of a message of the assistant."""
    return [*messages[:index], {"role": messages[index]["role"], "content": _OTHER}, *messages[index + 1 :]]


def _common_length(one: str, other: str) -> int:
    """Number of characters with which both texts begin."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
