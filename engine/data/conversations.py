"""Conversations in the shapes that data sets use, brought to one: a list of messages with `role` and `content`, and the tools.

`messages` as the OpenAI API writes them; ShareGPT's `conversations` of `from` and `value`; a prompt and a completion that are
lists of messages; a preference pair `chosen` and `rejected`. Knows no template, no tokenizer and no file.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from .formats import BadRecord, Fields

Message: TypeAlias = dict[str, object]
"""`role` and `content`, both text, and what else the record has: `tool_calls`, `reasoning_content`, `name`."""
FIELD_NAMES = frozenset({"messages", "conversations", "prompt", "completion", "chosen", "rejected", "tools"})
"""Fields of a record that may hold parts of a conversation."""
_SHAREGPT_ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant", "chatgpt": "assistant", "function_call": "assistant",
                   "observation": "tool"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Conversation:
    """The messages up to the assistant's last one, and the tools that the assistant may call."""

    messages: list[Message]
    """At least one; the last is the assistant's."""
    tools: list[object] | None = None
    """JSON schemas of the tools, as the record has them."""
    is_cut: bool = False
    """Whether the record has messages after the assistant's last one."""


Turns: TypeAlias = Literal["last", "all"]
"""Whether the assistant's last message is learned, or each of its messages."""


class Rendering(NamedTuple):
    """A conversation as text."""

    prompt: str
    """What comes before the first target."""
    text: str
    """The rest of the conversation."""
    targets: tuple[tuple[int, int], ...] | None = None
    """Spans of characters of prompt and text together whose tokens are targets, ascending and disjoint; None: the whole text."""


Chat: TypeAlias = Callable[[Conversation, Turns], Rendering]
"""Renders a conversation."""


def conversation_in(fields: Fields, response: str | None) -> Conversation | None:
    """The conversation of a record; None if it holds none.

    `response`: which of `chosen` and `rejected` ends a preference pair.

    Raises:
        BadRecord: the messages are in no known shape, none is the assistant's, or `response` is needed and None.
    """
    name, messages = _messages(fields, response)
    if not name:
        return None
    turns = [_message(f"{name}[{i}]", message) for i, message in enumerate(messages)]
    while turns and turns[-1]["role"] != "assistant":
        turns.pop()
    if not turns:
        raise BadRecord(f"field {name!r} has no message of role 'assistant'")
    tools = fields.get("tools")
    if isinstance(tools, str):
        tools = _parsed(tools)
    return Conversation(turns, tools if isinstance(tools, list) and tools else None, len(turns) < len(messages))


def plain_rendering(conversation: Conversation, turns: Turns) -> Rendering:
    """The rendering for a tokenizer without a chat template: a line "role: content" per message."""
    whole, answers = "", []
    for message in conversation.messages:
        whole += f"{message['role']}: "
        if message["role"] == "assistant":
            answers.append((len(whole), len(whole) + len(str(message["content"]))))
        whole += f"{message['content']}\n"
    whole, begin = whole[:-1], answers[0 if turns == "all" else -1][0]
    return Rendering(whole[:begin], whole[begin:], tuple(answers) if turns == "all" else None)


def _messages(fields: Fields, response: str | None) -> tuple[str, list[object]]:
    """The field that holds the conversation, "" if none does, and its messages."""
    for name in ("messages", "conversations"):
        if fields.get(name) is not None:
            return name, _list(name, fields[name])
    prompt = fields.get("prompt")
    if fields.get("chosen") is not None and fields.get("rejected") is not None:
        if response is None:
            raise BadRecord("the record is a pair of 'chosen' and 'rejected': name one of them with --response")
        return response, _joined(prompt, response, fields[response])
    if isinstance(prompt, list):
        return "completion", _joined(prompt, "completion", fields.get("completion"))
    return "", []


def _joined(prompt: object, name: str, answer: object) -> list[object]:
    """Messages of a prompt, which may be absent or text, and of an answer, which may be text."""
    before = [] if prompt is None else [_said("user", prompt)] if isinstance(prompt, str) else _list("prompt", prompt)
    after = [_said("assistant", answer)] if isinstance(answer, str) else _list(name, answer)
    return [*before, *after]


def _said(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def _list(name: str, value: object) -> list[object]:
    if isinstance(value, str):
        value = _parsed(value)  # tables without nested columns hold JSON
    if not isinstance(value, list):
        raise BadRecord(f"field {name!r} is {type(value).__name__}, not a list")
    return value


def _parsed(text: str) -> object:
    try:
        parsed: object = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return parsed


def _message(where: str, message: object) -> Message:
    """A message with role and content as text.

    Keys that are null are left out: tables fill them in for the rows that lack them.
    """
    if not isinstance(message, dict):
        raise BadRecord(f"{where} is {type(message).__name__}, not a message")
    known = {key: value for key, value in message.items() if value is not None}
    if "from" in known and "value" in known and "role" not in known:
        speaker = str(known.pop("from"))
        known = {"role": _SHAREGPT_ROLES.get(speaker, speaker), "content": known.pop("value"), **known}
    if not isinstance(known.get("role"), str):
        raise BadRecord(f"{where} has no role that is text")
    if "content" not in known and not known.keys() & {"tool_calls", "function_call", "reasoning_content"}:
        raise BadRecord(f"{where} has no content that is text")
    known["content"] = _content(where, known.get("content", ""))
    if isinstance(known.get("tool_calls"), list):
        known["tool_calls"] = [_tool_call(call) for call in known["tool_calls"]]
    return known


def _content(where: str, content: object) -> str:
    """A message's content as text; of listed content the texts of its parts."""
    if isinstance(content, list):
        kinds = {part.get("type", "text") if isinstance(part, dict) else type(part).__name__ for part in content}
        if not kinds <= {"text", "str"}:
            raise BadRecord(f"{where} has content of type {sorted(kinds - {'text', 'str'})[0]}, which is not text")
        content = "".join(str(part.get("text", "")) if isinstance(part, dict) else part for part in content)
    if not isinstance(content, str):
        raise BadRecord(f"{where} has no content that is text")
    return content


def _tool_call(call: object) -> object:
    """A tool call whose arguments are an object: the API writes them as JSON in a string, which templates would quote again."""
    if not isinstance(call, dict) or not isinstance(call.get("function"), dict):
        return call
    arguments = call["function"].get("arguments")
    parsed = _parsed(arguments) if isinstance(arguments, str) else arguments
    return {**call, "function": {**call["function"], "arguments": parsed}} if isinstance(parsed, dict) else call


def left_out(conversation: Conversation, rendering: str) -> frozenset[str]:
    """Kinds of parts of a conversation that its rendering lacks."""
    kinds = {"what follows the last answer"} if conversation.is_cut else set[str]()
    for message in conversation.messages:
        if str(message["content"]).strip() not in rendering:
            kinds.add(f"content of role {message['role']}")
        if (reasoning := message.get("reasoning_content")) and str(reasoning).strip() not in rendering:
            kinds.add("reasoning_content")
        calls = message.get("tool_calls")
        if isinstance(calls, list) and any(name not in rendering for name in _names(calls)):
            kinds.add("tool_calls")
        if (name := message.get("name")) and message["role"] in ("user", "assistant") and str(name) not in rendering:
            kinds.add("name")
    if conversation.tools and any(name not in rendering for name in _names(conversation.tools)):
        kinds.add("tools")
    return frozenset(kinds)


def _names(parts: list[object]) -> list[str]:
    """Names of the functions of tools or tool calls."""
    functions = [part.get("function", part) for part in parts if isinstance(part, dict)]
    return [str(function["name"]) for function in functions if isinstance(function, dict) and "name" in function]
