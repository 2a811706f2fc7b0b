"""What a corpus is: which files belong to it, and which text each of their records stands for.

A source is one file, a document is one training example of it: a text, or a prompt with its completion. Documents are
read in order, one at a time, and reading can begin anew at any record. Knows nothing of tokens or models, nor of how
the files' bytes become records (formats.py).
"""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal, TypeAlias

from ...store.errors import CorpusError
from .formats import COMPRESSIONS, SUFFIXES, BadRecord, Fields, Record, read_records, split_suffix

DIGEST_SPAN = 64 << 10  # bytes at either end of a file that enter its digest: what identity may cost on 100 GB
_ZARR = "zarr.json"
SHOWN = 20  # messages kept by Faults, field names listed in a message: what a screen takes

Chat: TypeAlias = Callable[[list[dict[str, str]]], tuple[str, str]]
"""Messages (`role`, `content`), the last of them the assistant's, to (prompt, completion)."""
Shape: TypeAlias = Callable[[Fields], tuple[str | None, str]]
"""Fields to (prompt, text); None in place of the prompt where the record has no notion of one."""
_PLACE = re.compile(r"\{(\w+(?:[ -]\w+)*)\}")  # one plain field name; never an attribute or an index


@dataclass(frozen=True, slots=True)
class Source:
    """One corpus file."""

    path: str
    """Where to open it."""
    name: str
    """How it is shown and cited: its base name, or its path below the folder that was given."""
    format: str
    """"jsonl", "json", "text", "lines", "csv" or "parquet"."""
    size: int
    """Bytes on disk."""
    digest: str
    """Hex BLAKE2b of its size and both its ends."""


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


def find_sources(paths: Sequence[str], *, lines: bool = False) -> list[Source]:
    """The files that `paths` (files, folders, globs) stand for, each once; with `lines`, text files go by line."""
    found: dict[Path, tuple[str, Path]] = {}
    try:
        for path in [paths] if isinstance(paths, str) else paths:
            for name, file in _expand(path):
                found.setdefault(file.absolute(), (name, file))
        names = _told_apart(list(found), [name for name, _ in found.values()])
        sources = [_source(file, name, lines) for (_, file), name in zip(found.values(), names, strict=True)]
    except OSError as error:
        raise CorpusError(f"{error.filename}: cannot read: {error.strerror or error}") from error
    if not sources:
        raise CorpusError("no corpus file given")
    return sources


def _expand(path: str) -> list[tuple[str, Path]]:
    """(name, file) for each file that one given path stands for."""
    here = Path(path)
    if path and here.is_dir():
        found = sorted((file.relative_to(here).as_posix(), file) for file in _walk(here))
    elif path and here.exists():
        return [(here.name, here)]
    elif re.search(r"[*?[]", path):
        found = [(file.name, file) for file in _matches(here)]
    else:
        raise CorpusError(f"{path or repr(path)}: no such file or folder")
    if not found:
        raise CorpusError(f"{path}: no corpus file there (known: {_known()})")
    return found


def _matches(pattern: Path) -> list[Path]:
    """Corpus files that a glob matches, none in a hidden folder that it does not name; `**` follows no links."""
    try:
        files = sorted(Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor))))
    except ValueError as error:
        raise CorpusError(f"{pattern}: {error}") from None
    shown = [f for f in files if not any(part.startswith(".") for part in {*f.parts} - {*pattern.parts, ".."})]
    return [f for f in shown if _is_corpus(f.name) and not f.is_dir() and not (f.parent / _ZARR).exists()]


def _walk(folder: Path) -> Iterator[Path]:
    """Corpus files below a folder; linked folders are followed, none twice, hence none for ever."""
    seen: set[str] = set()
    errors: list[OSError] = []
    for here, folders, files in os.walk(folder, onerror=errors.append, followlinks=True):
        new = (real := os.path.realpath(here)) not in seen
        seen.add(real)
        zarr = _ZARR in files  # a store, say, that was made beside its corpus
        folders[:] = sorted(name for name in folders if new and not zarr and not name.startswith("."))
        yield from (Path(here, name) for name in files if new and not zarr and _is_corpus(name))
    if errors:
        raise errors[0]


def _is_corpus(name: str) -> bool:
    return not name.startswith(".") and split_suffix(name)[0] in SUFFIXES


def _known() -> str:
    return f"{' '.join(SUFFIXES)}, each also with {' or '.join(COMPRESSIONS)}"


def _told_apart(files: list[Path], names: list[str]) -> list[str]:
    """The files' names, lengthened by as many parent folders as tell them apart."""
    depth = 1
    while len(times := Counter(names)) < len(names):
        depth += 1
        names = [n if times[n] == 1 else "/".join(f.parts[-depth:]) for f, n in zip(files, names, strict=True)]
    return [os.fsencode(name).decode(errors="backslashreplace") for name in names]


def _source(file: Path, name: str, lines: bool) -> Source:
    """Look at one file: its format by its name, its size, its digest."""
    suffix, compression = split_suffix(file.name)
    if suffix not in SUFFIXES:
        raise CorpusError(f"{file}: unknown suffix {suffix + compression!r} (known: {_known()})")
    if suffix == ".parquet" and compression:
        raise CorpusError(f"{file}: Parquet inside {compression} cannot be read in part; decompress it first")
    format = "lines" if lines and SUFFIXES[suffix] == "text" else SUFFIXES[suffix]
    if file.exists() and not file.is_file():
        raise CorpusError(f"{file}: not a regular file")
    with file.open("rb") as raw:
        size = os.fstat(raw.fileno()).st_size
        digest = blake2b(size.to_bytes(8, "little") + raw.read(DIGEST_SPAN), digest_size=16)
        raw.seek(max(0, size - DIGEST_SPAN))
        digest.update(raw.read(DIGEST_SPAN))
    if not size:
        raise CorpusError(f"{file}: is empty")
    return Source(str(file), name, format, size, digest.hexdigest())


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


def _document(source: Source, record: Record, prompt: str | None, text: str) -> Document:
    if not text.strip():
        raise BadRecord("empty text" if prompt is None else "empty completion")
    own = record.fields.get("id")
    name = str(own) if type(own) in (str, int) and own != "" else f"{source.name}:{record.line}"
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
    """The template with each placeholder replaced, once: what the values hold is never a placeholder."""
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
