"""Queries as the shell gives them: a file, stdin, a text, a prompt with its completion or with the model's own answer. Knows no
command.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, cast

import click

from .corpus_options import FieldArguments
from .options import RunArguments, WrongUsage, echo, options

if TYPE_CHECKING:
    from ..data.record_source import Data
    from ..models.language_model import ModelChoice
    from ..results.row_filter import RowFilter

_BOM_AND_SPACE = b"\xef\xbb\xbf \t\r\n"
QUESTIONS = options(
    click.option("--queries", default="", metavar="FILE", help="Queries, in any corpus format; - reads them from stdin, as JSON "
                 "lines, a JSON array or a text per line."),
    click.option("--query", "texts", multiple=True, metavar="TEXT", help="A query as bare text: a completion without a prompt. "
                 "Several may be given."),
    click.option("--prompt", "prompt_texts", multiple=True, metavar="TEXT",
                 help="A query's prompt, with --completion or --generate. Several may be given."),
    click.option("--completion", "completions", multiple=True, metavar="TEXT", help="The completion of each --prompt, in order."),
    click.option("--generate", is_flag=True, help="Ask for the model's own greedy answers to the prompts, and show them first."),
    click.option("--new-tokens", default=64, show_default=True, type=click.IntRange(1), metavar="N",
                 help="With --generate: most tokens of an answer."),
)  # fmt: skip
VIEW = options(
    click.option("--bottom", type=click.IntRange(1), metavar="K", help="Number of bottom examples for each query, in place of "
                 "--top: the lowest scores first, which speak most against the completion."),
    click.option("--minus", default="", metavar="FILE", help="Contrasting queries, one for each query or one for all: rank by "
                 "the score of a query minus that of its contrast."),
)  # fmt: skip
WHERE = click.option("--where", multiple=True, metavar="COLUMN=VALUE", help="Rank these examples only: those of a source, or of "
                     "a column that the store keeps or --columns has.")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class QuestionArguments(RunArguments, FieldArguments):
    """Values of `QUESTIONS`, `VIEW` and `WHERE`."""

    store: str
    queries: str
    texts: tuple[str, ...] = ()
    prompt_texts: tuple[str, ...] = ()
    completions: tuple[str, ...] = ()
    generate: bool = False
    new_tokens: int = 64
    bottom: int | None = None
    minus: str = ""
    where: tuple[str, ...] = ()
    columns: str = ""

    @property
    def row_filter(self) -> RowFilter:
        """The conditions of --where."""
        from ..results.row_filter import RowFilter

        return RowFilter.parsed(self.where, self.columns if self.where else "")


def question_data(arguments: QuestionArguments, model: ModelChoice) -> Data:
    """The queries of a command; with --generate, with the answers of the store's model, which are printed to stderr.

    Raises:
        WrongUsage: there is none, or several ways are mixed, or prompts and completions do not fit. HeadwaterError: the model or
        the prompts cannot be used.
    """
    a = arguments
    ways = [bool(a.queries), bool(a.texts), bool(a.prompt_texts or a.completions)]
    if sum(ways) != 1:
        raise WrongUsage("no query" if not any(ways) else "queries in several ways", "give one of --queries FILE, --query TEXT, "
                         "--prompt TEXT with --completion TEXT")  # fmt: skip
    data = _asked(a)
    return _generated(a, data, model) if a.generate else data


def _asked(arguments: QuestionArguments) -> Data:
    from ..data.python_data import data_of

    a = arguments
    if a.queries and a.queries != "-":
        return a.queries
    if a.queries:
        (data,) = data_of(_stdin_records(), texts=True, name="stdin")
        return data
    if a.texts:
        (data,) = data_of([{"text": text} for text in a.texts], texts=True, name="query")
        return _plain(data)
    if a.generate and a.completions:
        raise WrongUsage("--generate makes the completions", "leave out --completion")
    if not a.generate and len(a.completions) != len(a.prompt_texts):
        counts = f"{len(a.prompt_texts)} prompts and {len(a.completions)} completions"
        raise WrongUsage(
            counts, "give each --prompt its --completion, or --generate; --query TEXT is a text without a prompt"
        )
    completions = a.completions or [""] * len(a.prompt_texts)
    pairs = [{"prompt": prompt, "completion": text} for prompt, text in zip(a.prompt_texts, completions, strict=True)]
    (data,) = data_of(pairs, texts=True, name="query")
    return data if a.generate else _plain(data)


def _plain(data: Data) -> Data:
    """Records that no template of the store reads."""
    from ..data.record_source import RecordSource

    assert isinstance(data, RecordSource)
    return RecordSource(data.name, data.digest, data.size, data.records, plain=True)


def _stdin_records() -> Iterator[object]:
    """Records of stdin: JSON objects, a JSON array, or a text per line if the first line begins neither.

    Raises:
        CorpusError: a line of JSON lines is no object, an array is no JSON, or a line is not UTF-8; or there is none.
    """
    from ...store.errors import CorpusError

    stream, begin = sys.stdin.buffer, ""
    for number, raw in enumerate(stream, 1):
        if begin == "" and raw.lstrip(_BOM_AND_SPACE).startswith(b"["):
            yield from _array(raw, stream)
            return
        line = _decoded(raw, f"stdin:{number}").removeprefix("\ufeff")
        if not line.strip():
            continue
        begin = begin or line.lstrip()[0]
        if begin != "{":
            yield line.rstrip("\r\n")
            continue
        record = _parsed(line, f"stdin:{number}")
        if not isinstance(record, dict):
            raise CorpusError(f"stdin:{number}: not a JSON object but {type(record).__name__}")
        yield record
    if not begin:
        raise CorpusError("no query in stdin: it is empty")


def _array(start: bytes, stream: IO[bytes]) -> list[object]:
    """The elements of a JSON array that is all of stdin; `start`: what is read of it."""
    from ...store.errors import CorpusError
    from ..data.formats import JSON_LIMIT

    content = start + stream.read(max(0, JSON_LIMIT + 1 - len(start)))
    if len(content) > JSON_LIMIT:
        raise CorpusError(f"stdin: a JSON array larger than {JSON_LIMIT >> 20} MiB", hint="write JSON lines")
    hint = 'write a text that begins with [ as {"text": "[…"}'
    elements = _parsed(_decoded(content, "stdin").lstrip("\ufeff"), "stdin, which begins as a JSON array", hint)
    if not elements:
        raise CorpusError("no query in stdin: its array is empty")
    return cast(list[object], elements)


def _decoded(content: bytes, where: str) -> str:
    from ...store.errors import CorpusError

    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise CorpusError(f"{where}: not UTF-8: {error.reason} at byte {error.start + 1}") from None


def _parsed(text: str, where: str, hint: str = "") -> object:
    from ...store.errors import CorpusError

    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CorpusError(f"{where}: bad JSON: {error}", hint=hint) from None
    return value


def _generated(arguments: QuestionArguments, data: Data, model: ModelChoice) -> Data:
    """The prompts with the model's own answers, which are printed first."""
    from ...store.feature_store import FeatureStore
    from ..attribution.generation import Generation, with_answers

    generation = Generation(model, arguments.query_text, arguments.new_tokens)
    answered = with_answers(data, FeatureStore.open(arguments.store), generation)
    for record in answered.records(0):
        echo(f"{record['prompt']} → {record['completion']}".replace("\n", "⏎"), err=True)
    return answered
