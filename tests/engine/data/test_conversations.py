"""Conversations in every shape that data sets use become the same messages."""

from __future__ import annotations

import json
from typing import Any

import pytest
from headwater.engine.data.conversations import Conversation, conversation_in
from headwater.engine.data.formats import BadRecord

TALK = [{"role": "user", "content": "how deep"}, {"role": "assistant", "content": "five"}]
CALL = {"id": "c1", "type": "function", "function": {"name": "depth", "arguments": {"river": "Rhine"}}}
TOOLS = [{"type": "function", "function": {"name": "depth", "parameters": {}}}]


@pytest.mark.parametrize(
    "record",
    [
        {"messages": TALK},
        {"messages": json.dumps(TALK)},
        {"messages": [*TALK, {"role": "user", "content": "and wide"}]},
        {"conversations": [{"from": "human", "value": "how deep"}, {"from": "gpt", "value": "five"}]},
        {"prompt": TALK[:1], "completion": TALK[1:]},
        {"prompt": TALK[:1], "completion": "five"},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": part} for part in ("how ", "deep")]}, TALK[1]]},
        {"messages": [{**message, "tool_calls": None, "name": None} for message in TALK]},
    ],
)  # fmt: skip
def test_all_shapes_give_the_same_messages(record: dict[str, Any]) -> None:
    assert conversation_in(record, None) == Conversation(TALK)


def test_the_named_answer_of_a_pair_is_read() -> None:
    rejected = {"role": "assistant", "content": "nine"}
    pairs: list[dict[str, Any]] = [
        {"chosen": TALK, "rejected": [TALK[0], rejected]},
        {"prompt": "how deep", "chosen": "five", "rejected": "nine"},
        {"prompt": TALK[:1], "chosen": TALK[1:], "rejected": [rejected]},
    ]
    for record in pairs:
        assert conversation_in(record, "chosen") == Conversation(TALK)
        assert conversation_in(record, "rejected") == Conversation([TALK[0], rejected])
        with pytest.raises(BadRecord, match="--response"):
            conversation_in(record, None)


@pytest.mark.parametrize("content", [{}, {"content": None}, {"content": ""}])
def test_a_tool_call_needs_no_content_and_keeps_its_arguments(content: dict[str, Any]) -> None:
    as_text = {**CALL, "function": {"name": "depth", "arguments": '{"river": "Rhine"}'}}
    record = {
        "messages": [TALK[0], {"role": "assistant", **content, "tool_calls": [as_text]}],
        "tools": json.dumps(TOOLS),
    }
    expected = [TALK[0], {"role": "assistant", "content": "", "tool_calls": [CALL]}]
    assert conversation_in(record, None) == Conversation(expected, TOOLS)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"messages": "hi"}, "is str, not a list"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}, TALK[1]]}, "content of type image"),
        ({"messages": [{"role": 1, "content": "a"}]}, r"messages\[0\] has no role"),
        ({"messages": [{"role": "user"}]}, r"messages\[0\] has no content"),
        ({"messages": TALK[:1]}, "no message of role 'assistant'"),
    ],
)
def test_messages_in_no_known_shape_are_refused(record: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRecord, match=message):
        conversation_in(record, None)


def test_a_record_without_messages_is_no_conversation() -> None:
    assert conversation_in({"prompt": "a", "completion": "b"}, None) is None
    assert conversation_in({"text": "a"}, None) is None
