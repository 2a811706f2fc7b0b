"""Conversations in every shape that data sets use become the same messages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from headwater.engine.data.conversations import Conversation, conversation_in, left_out
from headwater.engine.data.documents import RecordErrors, Template, read_documents
from headwater.engine.data.formats import BadRecord
from headwater.engine.data.sources import find_sources

TALK = [{"role": "user", "content": "how deep"}, {"role": "assistant", "content": "five"}]
CALL = {"id": "c1", "type": "function", "function": {"name": "depth", "arguments": {"river": "Rhine"}}}
TOOLS = [{"type": "function", "function": {"name": "depth", "parameters": {}}}]


@pytest.mark.parametrize(
    "record",
    [
        {"messages": TALK},
        {"messages": json.dumps(TALK)},
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


def test_what_a_rendering_lacks_is_named() -> None:
    answer = {**TALK[1], "reasoning_content": "long", "tool_calls": [CALL], "name": "Ann"}
    full = Conversation([TALK[0], answer], TOOLS)
    assert left_out(full, "how deep five") == {"reasoning_content", "tool_calls", "name", "tools"}
    assert left_out(full, "Ann: how deep, long, depth, five") == set()
    assert left_out(Conversation(TALK), "five") == {"content of role user"}
    cut = conversation_in({"messages": [*TALK, {"role": "user", "content": "and wide"}]}, None)
    assert cut and cut.messages == TALK and left_out(cut, "how deep five") == {"what follows the last answer"}


def test_conversations_that_lose_a_part_are_counted_once(tmp_path: Path) -> None:
    """However often a file is read, and from wherever."""
    talk = [TALK[0], {**TALK[1], "tool_calls": [CALL]}]
    path = tmp_path / "c.jsonl"
    path.write_text("".join(json.dumps({"messages": messages}) + "\n" for messages in (talk, TALK, talk, talk)))
    (source,), record_errors = find_sources([str(path)]), RecordErrors("fail")
    for start in (0, 0, 2):
        assert len(list(read_documents(source, Template(), record_errors, start=start))) == 4 - start
    assert record_errors.left_out == {"tool_calls": 3}
