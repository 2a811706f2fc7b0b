"""What is read of a conversation is what the tokenizer's own template renders."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
from headwater.engine.data.conversations import Conversation
from headwater.engine.models.chat_template import ChatTemplate

MESSAGE = "<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
CHATML = (
    "{% for m in messages %}" + MESSAGE + "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NO_GENERATION_PROMPT = "{% for m in messages %}" + MESSAGE + "{% endfor %}"
TRIMMED = CHATML.replace("m['content']", "m['content'] | trim")
THOUGHT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'].split('</think>')[-1] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)
DATED = "Today: {{ strftime_now('%d %b %Y %H:%M:%S') }}\n" + CHATML


def tokenizer(template: str) -> Any:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    fast = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()))
    fast.chat_template = template
    return fast


def talk(answer: str, **more: Any) -> Conversation:
    return Conversation([{"role": "user", "content": "one two"}, {"role": "assistant", "content": answer, **more}])


@pytest.mark.parametrize(
    "template", [CHATML, NO_GENERATION_PROMPT, TRIMMED, THOUGHT], ids=["chatml", "none", "trim", "thought"]
)
@pytest.mark.parametrize("answer", ["three four", " three\n", "<think>\nlong\n</think>\n\nthree"])
def test_prompt_and_text_are_the_whole_rendering(template: str, answer: str) -> None:
    own = tokenizer(template)
    conversation = talk(answer)
    prompt, text, targets = ChatTemplate(own, date(2026, 1, 2))(conversation)
    assert targets is None and prompt + text == own.apply_chat_template(conversation.messages, tokenize=False)
    assert prompt == "<|im_start|>user\none two<|im_end|>\n<|im_start|>assistant\n" and text.endswith("<|im_end|>\n")


def test_a_template_without_a_prompt_before_the_first_answer() -> None:
    conversation = Conversation([{"role": "assistant", "content": "three"}])
    assert ChatTemplate(tokenizer(CHATML), date(2026, 1, 2))(conversation) == (
        "<|im_start|>assistant\n",
        "three<|im_end|>\n",
        None,
    )


def test_the_clock_stands_still() -> None:
    template = ChatTemplate(tokenizer(DATED), date(2026, 1, 2))
    assert template.reads_clock and template(talk("three"))[0].startswith(
        "Today: 02 Jan 2026 00:00:00\n<|im_start|>user"
    )
    assert not ChatTemplate(tokenizer(CHATML), date(2026, 1, 2)).reads_clock


def test_the_white_space_before_a_dated_template_stays() -> None:
    own = tokenizer("\n  " + DATED)
    plain = tokenizer("\n  " + DATED.replace("strftime_now('%d %b %Y %H:%M:%S')", "'02 Jan 2026 00:00:00'"))
    prompt, text, _ = ChatTemplate(own, date(2026, 1, 2))(talk("three"))
    assert prompt + text == plain.apply_chat_template(talk("three").messages, tokenize=False)


CALL = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "depth"}}]}
LONG = Conversation([
    {"role": "user", "content": "one"}, {"role": "assistant", "content": "<think>\nlong\n</think>\n\ntwo"},
    {"role": "user", "content": "three"}, CALL, {"role": "tool", "content": "5"}, {"role": "assistant", "content": "four"},
])  # fmt: skip
CALLS = CHATML.replace("{{ m['content'] }}", "{{ m['content'] }}{{ m['tool_calls'] | tojson if m['tool_calls'] }}")
STRICT = (
    "{% for m in messages %}{% if m['role'] == 'tool' and not messages[loop.index0 - 1]['tool_calls'] %}"
    "{{ raise_exception('no call') }}{% endif %}" + CALLS.partition("%}")[2]
)
MARKED = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['role'] == 'assistant' %}"
    "{% generation %}{{ m['content'] }}<|im_end|>{% endgeneration %}\n{% else %}{{ m['content'] }}<|im_end|>\n{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def parts(template: str, turns: Any, conversation: Conversation) -> list[str]:
    """The texts that are targets."""
    own = tokenizer(template)
    prompt, text, targets = ChatTemplate(own, date(2026, 1, 2))(conversation, turns)
    whole = prompt + text
    assert whole == own.apply_chat_template(conversation.messages, tokenize=False)
    assert targets is None or len(prompt) == targets[0][0]
    return [whole[begin:end] for begin, end in targets] if targets else [text]


@pytest.mark.parametrize("template", [CALLS, STRICT], ids=["calls", "strict"])
def test_all_answers_of_a_conversation_are_targets(template: str) -> None:
    first, call, last = parts(template, "all", LONG)
    assert first == "<think>\nlong\n</think>\n\ntwo<|im_end|>\n" and last == "four<|im_end|>\n"
    assert "depth" in call and call.endswith("<|im_end|>\n")
    assert parts(template, "last", LONG) == ["four<|im_end|>\n"]


def test_an_answer_of_which_a_template_drops_the_thought_is_a_target_without_it() -> None:
    assert parts(THOUGHT, "all", LONG)[0].strip() == "two<|im_end|>"


def test_targets_are_what_a_template_marks() -> None:
    conversation = Conversation([message for message in LONG.messages if message["role"] != "tool" and message != CALL])
    assert parts(MARKED, "all", conversation) == ["<think>\nlong\n</think>\n\ntwo<|im_end|>", "four<|im_end|>"]
    assert parts(MARKED, "last", conversation) == ["four<|im_end|>"]


QWEN3 = (  # an answer that is last opens and closes a thought, an earlier one does not
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PLAIN = [message for message in LONG.messages if message["role"] != "tool" and message != CALL]
NO_START = (  # refuses what does not begin with a user's message
    "{% if not messages | selectattr('role', 'equalto', 'user') | list %}{{ raise_exception('No user query') }}{% endif %}"
    + CHATML
)
HIDDEN = "{% for m in messages %}{% if m['role'] == 'user' %}{{ m['content'] }}{% endif %}{% endfor %}"


def test_an_earlier_answer_has_its_end_of_turn_where_the_template_renders_the_last_one_otherwise() -> None:
    first, last = parts(QWEN3, "all", Conversation(PLAIN))
    assert first.endswith("two<|im_end|>\n") and last.endswith("four<|im_end|>\n")


def test_messages_before_an_answer_may_be_refused() -> None:
    conversation = Conversation([{"role": "assistant", "content": "hello"}, *PLAIN])
    assert parts(NO_START, "all", conversation)[0] == "hello<|im_end|>\n"


def test_a_template_that_hides_answers_is_refused() -> None:
    with pytest.raises(ValueError, match="does not show where each of the assistant's messages is"):
        parts(HIDDEN, "all", Conversation(PLAIN))
