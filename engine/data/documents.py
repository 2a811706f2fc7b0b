"""From records to documents: field names, templates, prompt and completion, conversations.

A document is one training example as text, or a prompt with its completion. Documents are read in order, one at a time, and
reading can start at any record. Knows nothing of tokens or models, nor of which files there are (sources.py) and how their
bytes become records (formats.py).
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from ...store.errors import CorpusError
from .conversations import FIELD_NAMES, Chat, Conversation, Turns, conversation_in, left_out, plain_rendering
from .formats import BadRecord, Fields, Record
from .kept_columns import columns_of, kept_values
from .pretokenised import FIELD_NAMES as TOKEN_FIELDS
from .pretokenised import TokenRecord, tokens_in
from .record_values import scalar_text
from .sources import Source, read_source
from .unread_files import escaped

MAX_LISTED = 20  # messages that RecordErrors lists, and field names listed in a message, so that they fit on a screen


class RecordText(NamedTuple):
    """What is read of a record."""

    prompt: str | None
    """The prompt; None if the record's format has none."""
    text: str
    """The text, or the completion of the prompt."""
    tokens: TokenRecord | None = None
    """The tokens, of a record that holds them; prompt and text are then empty."""
    left_out: frozenset[str] = frozenset()
    """Kinds of parts of a conversation that its rendering lacks."""
    targets: tuple[tuple[int, int], ...] | None = None
    """Spans of characters of prompt and text together whose tokens are targets; None: the whole text."""


TextFunction: TypeAlias = Callable[[Fields], RecordText]
"""Maps the fields of a record to what is read of it."""
_FIELD = re.compile(r"\{(\w+(?:[ -]\w+)*)\}")  # one plain field name; attributes and indices are not supported


@dataclass(frozen=True, slots=True)
class Document:
    """One training example as text."""

    id: str
    """The record's own `id` if it has one, else "name:line"."""
    source: str
    """The source's name."""
    line: int
    """1-based line on which it starts; the row number in Parquet, the element number in a JSON array."""
    record: int
    """0-based number among the file's records, unusable ones included; reading can start again from here."""
    prompt: str
    """The prompt, which the text completes; "" if there is none."""
    text: str
    """The whole text, or the completion if there is a prompt."""
    tokens: TokenRecord | None = None
    """The tokens, of a record that holds them; its prompt and text are empty."""
    targets: tuple[tuple[int, int], ...] | None = None
    """Spans of characters of prompt and text together whose tokens are targets, ascending and disjoint; None: the whole text."""
    column_texts: tuple[str, ...] = ()
    """The values of the columns that are kept, as text."""


@dataclass(frozen=True, slots=True)
class Template:
    r"""Which fields of a record become text: "{field}" stands for the field's value, \n and \t for line end and tab.

    If all templates are empty, the fields are detected, in this order: token ids (see `pretokenised.py`); a conversation (see
    `conversations.py`); `text`; `prompt` and `completion`; `instruction`, `input` and `output`. A `text` that ends with the
    record's completion or output is divided there.
    """

    text: str = ""
    """Template of the whole text; excludes `prompt` and `completion`."""
    prompt: str = ""
    """Template of the prompt; requires `completion`."""
    completion: str = ""
    """Template of the completion."""
    response: str | None = None
    """Which answer of a preference pair is read: chosen or rejected."""
    turns: Turns | None = None
    """Whether the last answer of a conversation is a target (the default), or all of them are."""

    @property
    def fields_of_prompt(self) -> tuple[str, ...]:
        """Names of the fields in the prompt's template."""
        return tuple(_FIELD.findall(self.prompt))

    @property
    def fields_of_completion(self) -> tuple[str, ...]:
        """Names of the fields in the completion's template."""
        return tuple(_FIELD.findall(self.completion))

    @property
    def names_fields(self) -> bool:
        """Whether there is a template, so that no fields are detected."""
        return bool(self.text or self.prompt or self.completion)


class RecordErrors:
    """Errors of single records: policy "fail" raises the first one, "skip" counts them and keeps the first messages. Also counts
    the conversations of which a part was left out.
    """

    def __init__(self, policy: Literal["fail", "skip"]) -> None:
        self.policy = policy
        self.count = 0
        self.first: list[str] = []
        self.left_out: Counter[str] = Counter()
        """Kind of a part that was left out → number of conversations."""
        self._counted: dict[str, int] = {}  # path → the last record whose left-out parts are counted

    def count_left_out(self, source: Source, record: Record, kinds: frozenset[str]) -> None:
        """Count the parts of one record that were left out, once, however often its file is read."""
        if kinds and record.ordinal > self._counted.get(source.path, -1):
            self._counted[source.path] = record.ordinal
            self.left_out.update(kinds)

    def report(self, message: str) -> None:
        """Handle one unusable record; the message is escaped to one printable line."""
        line = escaped(message)
        if self.policy == "fail":
            raise CorpusError(line)
        self.count += 1
        if len(self.first) < MAX_LISTED:
            self.first.append(line)


def read_documents(
    source: Source,
    template: Template,
    record_errors: RecordErrors,
    *,
    start: int = 0,
    chat: Chat | None = None,
    keep: Sequence[str] = (),
) -> Iterator[Document]:
    """Yield the source's documents in order from record `start`; unusable records are reported to `record_errors`.

    `chat` renders a conversation as (prompt, text, targets): spans of characters of both together, or None for the whole text.
    `keep`: columns whose values each document has beside its text.

    Raises:
        CorpusError: a record is unusable and the policy is "fail"; or, with any policy, the file cannot be read to its end
            (truncated, corrupt, a `.json` file above 1 GiB or not JSON).
    """
    to_text, field_names = _from_template(template) if template.names_fields else _from_field_names(chat, template)
    for record in read_source(source, start, field_names | {"id"} | columns_of(keep)):
        try:
            if record.error:
                raise BadRecord(record.error)
            content = to_text(record.fields)
            document = _document(source, record, content, kept_values(record.fields, keep))
        except BadRecord as bad_record:
            record_errors.report(f"{source.path}:{record.line}: {bad_record}")
        else:
            record_errors.count_left_out(source, record, content.left_out)
            yield document


def suits(template: Template, source: Source) -> bool:
    """Whether the first usable record of a file has the fields of a template; True for a file without usable records.

    Raises:
        CorpusError: the file cannot be read.
    """
    _, names = _from_template(template)
    for record in read_source(source, 0, names | {"id"}):
        if not record.error:
            return all(isinstance(record.fields.get(name), str) for name in names)
    return True


def record_name(source: Source, record: Record) -> str:
    """The id of a record's example: its field `id` as text if that is a scalar, else name:line."""
    return scalar_text(record.fields.get("id")) or f"{source.name}:{record.line}"


def _document(source: Source, record: Record, content: RecordText, column_texts: tuple[str, ...]) -> Document:
    prompt, text, tokens, _, targets = content
    if not tokens and not text.strip():
        raise BadRecord("empty text" if prompt is None else "empty completion")
    name = record_name(source, record)
    try:
        (name + (prompt or "") + text + "".join(column_texts)).encode()
    except UnicodeEncodeError as error:
        raise BadRecord(
            f"half a surrogate pair (U+{ord(error.object[error.start]):04X}); expected Unicode text"
        ) from None
    return Document(name, source.name, record.line, record.ordinal, prompt or "", text, tokens, targets, column_texts)


def _from_template(template: Template) -> tuple[TextFunction, set[str]]:
    """The text function of a template, and the names of the fields it reads."""
    whole, prompt, completion = (
        part.replace("\\n", "\n").replace("\\t", "\t") for part in (template.text, template.prompt, template.completion)
    )
    if whole and (prompt or completion):
        raise CorpusError(
            "a text template excludes prompt and completion templates: give --text-template, "
            "or --prompt-template and --completion-template"
        )
    if not (required := whole or completion):
        raise CorpusError("a prompt template needs a completion template beside it: add --completion-template")
    if not _FIELD.search(required):
        raise CorpusError(
            f"the template {required!r} has no {{field}} in it, so every document would be the same: name a field"
        )

    def to_text(fields: Fields) -> RecordText:
        return RecordText(_fill(prompt, fields) if prompt else None, _fill(required, fields))

    return to_text, set(_FIELD.findall(prompt + required))


def _fill(template: str, fields: Fields) -> str:
    """The template with each {field} replaced once; braces inside the values stay."""
    return _FIELD.sub(lambda match: _text_field(fields, match[1]), template)


def _text_field(fields: Fields, name: str) -> str:
    if (value := fields.get(name)) is None:
        raise BadRecord(f"no field {name!r} for the template; the record has {_field_list(fields)}")
    if not isinstance(value, str):
        raise BadRecord(f"field {name!r} is {type(value).__name__}, not text")
    return value


def _field_list(fields: Fields) -> str:
    names = [name if value is not None else f"{name} (null)" for name, value in fields.items()]
    return (", ".join(names[:MAX_LISTED]) + ", ..." * (len(names) > MAX_LISTED)) or "none"


def _from_field_names(chat: Chat | None, template: Template) -> tuple[TextFunction, set[str]]:
    """The text function that detects the format from a record's field names, and the names of the fields it may read."""
    turns: Turns = template.turns or "last"

    def to_text(fields: Fields) -> RecordText:
        if tokens := tokens_in(fields):
            return RecordText("", "", tokens)
        if conversation := conversation_in(fields, template.response):
            return _rendered(conversation, chat or plain_rendering, turns)
        present = {name for name, value in fields.items() if value is not None}
        answer = _prompt_and_answer(fields, present)
        if "text" in present:
            return _divided(_text_field(fields, "text"), answer)
        if answer:
            return RecordText(*answer)
        if "prompt" in present:
            raise BadRecord(f"a prompt without a completion; the record has {_field_list(fields)}")
        raise BadRecord(
            f"no text field; the record has {_field_list(fields)} (name them with --text-template '{{field}}')"
        )

    return to_text, {"text", "prompt", "completion", "instruction", "input", "output", *FIELD_NAMES, *TOKEN_FIELDS}


def _prompt_and_answer(fields: Fields, present: set[str]) -> tuple[str, str] | None:
    """(prompt, completion) of a record that has both in fields of their own."""
    if present >= {"prompt", "completion"}:
        return _text_field(fields, "prompt"), _text_field(fields, "completion")
    if present >= {"instruction", "output"}:
        input_text = _text_field(fields, "input") if "input" in present else ""
        prompt = _text_field(fields, "instruction") + ("\n" + input_text if input_text else "") + "\n"
        return prompt, _text_field(fields, "output")
    return None


def _divided(text: str, answer: tuple[str, str] | None) -> RecordText:
    """A text, divided before the answer that it ends with: some tables hold prompt and answer once more as one text."""
    completion = answer[1].strip() if answer else ""
    if not completion or not text.rstrip().endswith(completion):
        return RecordText(None, text)
    begin = text.rindex(completion)
    return RecordText(text[:begin], text[begin:]) if text[:begin].strip() else RecordText(None, text)


def _rendered(conversation: Conversation, chat: Chat, turns: Turns) -> RecordText:
    """What a chat template makes of a conversation."""
    try:
        prompt, text, targets = chat(conversation, turns)
    except Exception as error:  # a model's own template code, which may refuse a record with any exception
        raise BadRecord(f"the chat template refuses it: {' '.join(str(error).split()) or repr(error)}") from error
    return RecordText(prompt, text, left_out=left_out(conversation, prompt + text), targets=targets)
