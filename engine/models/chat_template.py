"""Renders conversations by a tokenizer's chat template, with a fixed date.

The whole conversation is rendered once, as a trainer renders it. Its targets are what the template itself marks as the
assistant's (`{% generation %}`). Without marks they begin where the assistant's last message does. Templates may ignore the
generation prompt, open a thought in it, or trim content, so that the rendering of the earlier messages need not be a prefix of
the whole. A message therefore begins where the whole rendering first differs from one with another message in its place, and ends
where the rendering up to it does. Knows no file and no store.
"""

from __future__ import annotations

import re
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
        self.has_marks = bool(_MARK.search(self._template))

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
            begin = targets[0][0] if targets else begin
            return Rendering(whole[:begin], whole[begin:], tuple(targets) or None)
        answers = [i for i, message in enumerate(conversation.messages) if message["role"] == "assistant"]
        targets = marked or [(self._begin(conversation, whole, i), self._end(conversation, whole, i)) for i in answers]
        bounds = [bound for span in targets for bound in span]
        if bounds != sorted(bounds) or not all(begin < end for begin, end in targets):
            raise ValueError(
                "it does not show where each of the assistant's messages is: read the last with --turns last"
            )
        begin = targets[0][0]
        return Rendering(whole[:begin], whole[begin:], tuple(targets))

    def _begin(self, conversation: Conversation, whole: str, index: int) -> int:
        """Number of characters before a message of the assistant.

        Raises:
            ValueError: the template renders neither the messages before it nor another message in its place.
        """
        before = self._attempt(conversation, conversation.messages[:index], generation_prompt=True) if index else None
        texts = [before, self._attempt(conversation, _with_other(conversation.messages, index))]
        lengths = [_common_length(text, whole) for text in texts if text is not None]
        if not lengths:
            raise ValueError("it does not show where the assistant's message begins")
        return max(lengths)

    def _end(self, conversation: Conversation, whole: str, index: int) -> int:
        """Number of characters up to the end of a message of the assistant, with its end-of-turn tokens; 0 if the template does
        not show it. Where it renders an earlier answer otherwise than a last one, the end-of-turn tokens are those of the last.
        """
        messages, last = conversation.messages, len(conversation.messages) - 1
        if index == last:
            return len(whole)
        up_to_it = self._attempt(conversation, messages[: index + 1])
        if up_to_it is not None and whole.startswith(up_to_it):
            return len(up_to_it)
        other = self._attempt(conversation, _with_other(messages, index))
        end = len(whole) - _common_length(other, whole, at_end=True) if other is not None else 0
        other_last = self._attempt(conversation, _with_other(messages, last))
        closing = whole[len(whole) - _common_length(other_last, whole, at_end=True) :] if other_last is not None else ""
        return end + len(closing) * whole.startswith(closing, end)

    def _attempt(
        self, conversation: Conversation, messages: list[Message], *, generation_prompt: bool = False
    ) -> str | None:
        """The text of messages; None if the template refuses them, as another one between a tool's call and its answer."""
        try:
            return self._rendered(conversation, messages, generation_prompt=generation_prompt)[0]
        except TemplateError:
            return None

    def _rendered(
        self, conversation: Conversation, messages: list[Message], *, generation_prompt: bool = False
    ) -> tuple[str, list[tuple[int, int]]]:
        """The text of messages, and the spans that the template marks as the assistant's."""
        settings: dict[str, object] = {"chat_template": self._template, "tools": conversation.tools}
        if self.reads_clock:
            settings |= {"chat_template": _CLOCK + self._template, "fixed_date": fixed_date(self.day)}
        if not self.has_marks or generation_prompt:
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


def _common_length(one: str, other: str, *, at_end: bool = False) -> int:
    """Number of characters with which both texts begin, or end."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        parts = (one[len(one) - middle :], other[len(other) - middle :]) if at_end else (one[:middle], other[:middle])
        low, high = (middle, high) if parts[0] == parts[1] else (low, middle - 1)
    return low
