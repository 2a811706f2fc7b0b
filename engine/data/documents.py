"""From records to documents: field names, templates, prompt and completion, conversations.

A document is one training example of a source: a text, or a prompt with its completion. Documents are read in order, one
at a time, and reading can begin anew at any record. Knows nothing of tokens or models, nor of which files there are
(sources.py) and how their bytes become records (formats.py).
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from ...store.errors import CorpusError
from .formats import BadRecord, Fields, Record, read_records
from .sources import Source

SHOWN = 20  # messages kept by Faults, field names listed in a message: what a screen takes

Chat: TypeAlias = Callable[[list[dict[str, str]]], tuple[str, str]]
"""Messages (`role`, `content`), the last of them the assistant's, to (prompt, completion)."""
Shape: TypeAlias = Callable[[Fields], tuple[str | None, str]]
"""Fields to (prompt, text); None in place of the prompt where the record has no notion of one."""
_PLACE = re.compile(r"\{(\w+(?:[ -]\w+)*)\}")  # one plain field name; never an attribute or an index


@dataclass(frozen=True, slots=True)
class Document:
    """One training example as text."""

    id: str
    """The record's own `id` if it has one, else "name:line"."""
    source: str
    """The source's name."""
    line: int
    """1-based line it starts on, or row (Parquet) or element (JSON array)."""
    record: int
    """0-based place among the file's records, bad ones counted: reading can start again from here."""
    prompt: str
    """What the text answers; "" where there is none."""
    text: str
    """The completion where there is a prompt."""


@dataclass(frozen=True, slots=True)
class Template:
    r"""Which fields of a record become text: "{field}" stands for the field, \n and \t for line end and tab.

    All empty: `text`, or `prompt` and `completion`, or `instruction`, `input` and `output`, or `messages`, whichever
    the record has first.
    """

    text: str = ""
    """The whole text."""
    prompt: str = ""
    """The prompt; goes with `completion`."""
    completion: str = ""
    """The completion."""


class Faults:
    """What went wrong in reading: with policy "fail" the first fault is raised, with "skip" all are counted."""

    def __init__(self, policy: Literal["fail", "skip"]) -> None:
        self.policy = policy
        self.count = 0
        self.first: list[str] = []

    def report(self, message: str) -> None:
        """Take note of one record that cannot be used, on one line that any terminal can print."""
        line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in message)
        if self.policy == "fail":
            raise CorpusError(line)
        self.count += 1
        if len(self.first) < SHOWN:
            self.first.append(line)


def read_documents(
    source: Source, template: Template, faults: Faults, *, start: int = 0, chat: Chat | None = None
) -> Iterator[Document]:
    """The source's documents in order, the first `start` records skipped; what cannot be used goes to `faults`.

    `chat` turns the messages up to the assistant's last into (prompt, completion). A file that cannot be read to its
    end (truncated, corrupt, a `.json` file above 1 GiB or not JSON) is a CorpusError whatever the policy.
    """
    shape, wanted = _templated(template) if template != Template() else _detected(chat)
    return _documents(source, read_records(source.path, source.format, start, wanted | {"id"}), shape, faults)


def _documents(source: Source, records: Iterator[Record], shape: Shape, faults: Faults) -> Iterator[Document]:
    for record in records:
        try:
            if record.fault:
                raise BadRecord(record.fault)
            document = _document(source, record, *shape(record.fields))
        except BadRecord as bad:
            faults.report(f"{source.path}:{record.line}: {bad}")
        else:
            yield document


def record_name(source: Source, record: Record) -> str:
    """The id of a record's example: its own, else its place."""
    own = record.fields.get("id")
    return str(own) if type(own) in (str, int) and own != "" else f"{source.name}:{record.line}"


def _document(source: Source, record: Record, prompt: str | None, text: str) -> Document:
    if not text.strip():
        raise BadRecord("empty text" if prompt is None else "empty completion")
    name = record_name(source, record)
    try:
        (name + (prompt or "") + text).encode()
    except UnicodeEncodeError as error:
        raise BadRecord(f"half a surrogate pair (U+{ord(error.object[error.start]):04X}), no Unicode text") from None
    return Document(name, source.name, record.line, record.ordinal, prompt or "", text)


def _templated(template: Template) -> tuple[Shape, set[str]]:
    """The shape that a template asks for, and the fields it needs."""
    whole, prompt, completion = (
        part.replace("\\n", "\n").replace("\\t", "\t") for part in (template.text, template.prompt, template.completion)
    )
    if whole and (prompt or completion):
        raise CorpusError("a text template excludes prompt and completion templates")
    if not (main := whole or completion):
        raise CorpusError("a prompt template needs a completion template beside it")
    if not _PLACE.search(main):
        raise CorpusError(f"the template {main!r} has no {{field}} in it: every document would be the same")

    def shape(fields: Fields) -> tuple[str | None, str]:
        return _filled(prompt, fields) if prompt else None, _filled(main, fields)

    return shape, set(_PLACE.findall(prompt + main))


def _filled(template: str, fields: Fields) -> str:
    """The template with each {field} replaced, once: braces in the values are left as they are."""
    return _PLACE.sub(lambda place: _text(fields, place[1]), template)


def _text(fields: Fields, name: str) -> str:
    if (value := fields.get(name)) is None:
        raise BadRecord(f"no field {name!r} for the template; fields found: {_listed(fields)}")
    if not isinstance(value, str):
        raise BadRecord(f"field {name!r} is {type(value).__name__}, not text")
    return value


def _listed(fields: Fields) -> str:
    names = [name if value is not None else f"{name} (null)" for name, value in fields.items()]
    return (", ".join(names[:SHOWN]) + ", ..." * (len(names) > SHOWN)) or "none"


def _detected(chat: Chat | None) -> tuple[Shape, set[str]]:
    """The shape that finds out by the names a record's fields have."""

    def shape(fields: Fields) -> tuple[str | None, str]:
        present = {name for name, value in fields.items() if value is not None}
        if "text" in present:
            return None, _text(fields, "text")
        if present >= {"prompt", "completion"}:
            return _text(fields, "prompt"), _text(fields, "completion")
        if present >= {"instruction", "output"}:
            more = _text(fields, "input") if "input" in present else ""
            return _text(fields, "instruction") + ("\n" + more if more else "") + "\n", _text(fields, "output")
        if "messages" in present:
            return _conversation(fields["messages"], chat)
        raise BadRecord(f"no text field; fields found: {_listed(fields)} (name them with --text '{{field}}')")

    return shape, {"text", "prompt", "completion", "instruction", "input", "output", "messages"}


def _conversation(messages: Any, chat: Chat | None) -> tuple[str, str]:
    """(what comes before the assistant's last message, that message); what comes after it is dropped."""
    if not isinstance(messages, list):
        raise BadRecord(f"field 'messages' is {type(messages).__name__}, not a list")
    for i, message in enumerate(messages):
        for key in ("role", "content"):
            if not isinstance(message, dict) or not isinstance(message.get(key), str):
                raise BadRecord(f"messages[{i}] has no {key} that is text")
    turns = [{"role": message["role"], "content": message["content"]} for message in messages]
    while turns and turns[-1]["role"] != "assistant":
        turns.pop()
    if not turns:
        raise BadRecord("messages hold none of role 'assistant'")
    if chat is None:
        before = "".join(f"{turn['role']}: {turn['content']}\n" for turn in turns[:-1])
        return before + "assistant: ", turns[-1]["content"]
    try:
        return chat(turns)
    except Exception as error:  # a model's own template code, which may refuse a record with any exception
        raise BadRecord(f"the chat template refuses it: {' '.join(str(error).split()) or repr(error)}") from error
