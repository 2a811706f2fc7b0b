"""Options that several commands share, and the frozen objects in which commands get them. Knows no command.

`@command_of(Arguments)` calls a command's function with one object whose fields are named as click's parameters.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

import click

from ...store.json_values import JsonFields
from ..results.printable import printable

if TYPE_CHECKING:
    from ..data.conversations import Turns
    from ..data.documents import Template
    from ..ingest.text_settings import TextSettings
    from ..models.language_model import ModelChoice

A = TypeVar("A")
Callback = Callable[..., None]
"""A function that click calls."""
Decorator = Callable[[Callback], Callback]
EXAMPLES_PRINTED = click.option(
    "--top",
    default=10,
    show_default=True,
    type=click.IntRange(1),
    metavar="K",
    help="Number of examples to print, if -o is not given.",
)
JSON_LINES = click.option("--json", "as_json", is_flag=True, help="Print JSON lines instead of a table.")
MEMORY = click.option(
    "--memory",
    metavar="BYTES",
    help="Largest memory plan: 512MB, 2GB, 1.5GiB. The command takes smaller blocks or batches where it "
    "can, and refuses to start if the plan still exceeds this.",
)
COLUMNS = click.option(
    "--columns",
    default="",
    metavar="FILE",
    help="File with each example's id and the column that --by names; the corpus file itself, if it has that column.",
)
MODEL_PATH = click.option(
    "--model",
    default="",
    metavar="PATH",
    help="Where the store's model is now, if it moved. [default: its path at ingestion]",
)


PARTIAL = click.option(
    "--partial",
    is_flag=True,
    help="Use the rows of a store or method that is unfinished, and say how many rows of how many these are.",
)


def echo(text: str, *, err: bool = False) -> None:
    """Print a line without control characters, which names, paths and texts may have, to stdout, or with `err` to stderr."""
    click.echo(printable(text), err=err)


def options(*decorators: Decorator) -> Decorator:
    """Several decorators as one, applied so that help lists them in this order."""

    def apply(function: Callback) -> Callback:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return apply


def command_of(arguments: Callable[..., A]) -> Callable[[Callable[[A], None]], Callback]:
    """Let click call a function of one argument: an object that is built from click's parameters by name."""

    def decorate(function: Callable[[A], None]) -> Callback:
        @wraps(function)
        def call(**parameters: object) -> None:
            print_left_out_files([path for name in _TABLES if isinstance(path := parameters.get(name), str)])
            function(arguments(**parameters))

        return call

    return decorate


_TABLES = ("queries", "labels", "results", "columns")  # parameters that may be a folder or a glob of files


def print_left_out_files(paths: Sequence[str]) -> None:
    """Print one line to stderr for each folder or glob of which not all files are read."""
    folders = [path for path in paths if path and (Path(path).is_dir() or any(mark in path for mark in "*?["))]
    if folders:
        from ...store.errors import CorpusError
        from ..data.array_files import is_array_path
        from ..data.sources import left_out_notes

        with suppress(CorpusError):  # reading the path reports it
            for line in left_out_notes([path for path in folders if not is_array_path(path)]):
                click.echo(f"note: {line}", err=True)


@dataclass(frozen=True, kw_only=True)
class RunArguments:
    """Values of the options in `RUN`, and of --model if a command has it."""

    memory: str | None
    device: str
    dtype: str
    trust_remote_code: bool
    model: str = ""

    @property
    def budget(self) -> int | None:
        """Bytes of --memory."""
        return budget_of(self.memory)

    @property
    def model_choice(self) -> ModelChoice:
        """How the model is loaded."""
        from ..models.language_model import ModelChoice

        return ModelChoice(self.model, self.device, self.dtype, self.trust_remote_code)


@dataclass(frozen=True, kw_only=True)
class FieldArguments:
    """Values of `FIELDS`."""

    text_field: str
    prompt_field: str
    completion_field: str
    response: str | None
    turns: Turns | None
    on_error: Literal["fail", "skip"] = "fail"

    @property
    def template(self) -> Template:
        """How a record becomes text."""
        from ..data.documents import Template

        return Template(self.text_field, self.prompt_field, self.completion_field, self.response, self.turns)

    @property
    def query_text(self) -> TextSettings:
        """How queries are read."""
        from ..ingest.text_settings import TextSettings

        return TextSettings(self.template, self.on_error)


RUN = options(
    MEMORY,
    click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:i."),
    click.option("--dtype", default="auto", show_default=True, help="auto, float32, bfloat16 or float16."),
    click.option("--trust-remote-code", is_flag=True, help="Run the Python code that ships with the model."),
)
FIELDS = options(
    click.option(
        "--text",
        "text_field",
        default="",
        metavar="TEMPLATE",
        help="Template of a record's text, with its fields in braces: '{title}: {body}'.",
    ),
    click.option(
        "--prompt",
        "prompt_field",
        default="",
        metavar="TEMPLATE",
        help="Template of a record's prompt, such as '{question}\\n'.",
    ),
    click.option(
        "--completion",
        "completion_field",
        default="",
        metavar="TEMPLATE",
        help="Template of a record's completion, such as '{answer}'.",
    ),
    click.option(
        "--response",
        type=click.Choice(["chosen", "rejected"]),
        default=None,
        help="Which answer of a preference pair is read.",
    ),
    click.option(
        "--turns",
        type=click.Choice(["last", "all"]),
        default=None,
        help="Whether the last answer of a conversation is a target, or all of them. [default: last]",
    ),
)
CORPUS = options(
    click.argument("corpus", nargs=-1, required=True),
    click.option("--store", required=True, metavar="DIR", help="Folder of the store; created if it does not exist."),
    click.option("--model", default="", metavar="PATH", help="Folder or hub id of a causal LM, or of a LoRA adapter."),
    click.option("--method", "methods", multiple=True, default=("rise",), show_default=True, metavar="NAME",
                 help="Attribution method; give it several times to store several in one forward pass."),
    click.option("-o", "settings", nargs=2, multiple=True, metavar="NAME.SETTING VALUE",
                 help="A method's setting, such as -o rise.tau 1.0."),
    click.option("--seeds", type=click.IntRange(1), default=1, show_default=True,
                 help="Number of seeds of each method's sketch: members NAME, NAME@1, …; `attribute --members all` then gives "
                 "standard errors."),
    click.option("--base", default="", metavar="PATH", help="Model of the members that --method names (NAME@MEMBER), in place of "
                 "the store's own: another checkpoint with the same tokenizer. [default: the recorded one]"),
    FIELDS,
    click.option("--max-length", type=int, metavar="TOKENS", help="Length of the longest example; longer texts are split. "
                 "[default: the model's context, at most 1024]"),
    click.option("--attribute", type=click.Choice(["completion", "all"]), default=None,
                 help="Tokens whose loss counts, if an example has a prompt: the completion's, or all. [default: completion]"),
    click.option("--boundary", type=click.Choice(["joined", "apart", "auto"]), default=None,
                 help="Tokenise a prompt and its completion joined as one text, or apart; auto: apart if that clearly lowers the "
                 "model's loss, otherwise joined. "
                 "[default: auto for a new store, else the store's]"),
    click.option("--truncate", is_flag=True, default=None,
                 help="Truncate examples with a prompt that are too long, the prompt first."),
    click.option("--lines", is_flag=True, default=None,
                 help="In plain text, one document per line instead of per paragraph."),
    click.option("--on-error", type=click.Choice(["fail", "skip"]), default="fail", show_default=True,
                 help="Whether a bad record is an error, or is skipped and counted."),
    click.option("--no-text", is_flag=True, default=None,
                 help="Store neither texts nor token ids, only ids, file names and line numbers."),
    click.option("--no-tokens", is_flag=True, default=None,
                 help="Store no token ids; a fit then tokenises the stored texts again."),
    click.option("--keep", multiple=True, metavar="COLUMN", help="Column of the corpus to store as text beside each example, for "
                 "--by, --quota and the like; meta.topic is a field in an object. Give it several times."),
    click.option("--append", is_flag=True, help="Add new files to an existing store."),
    click.option("--batch-tokens", type=click.IntRange(1), metavar="N",
                 help="Tokens per batch, padding included. [default: 4096, or fewer to fit --memory]"),
    click.option("--commit-seconds", type=click.FloatRange(0), default=15.0, show_default=True,
                 help="Seconds between commits; a kill loses at most this much work."),
)  # fmt: skip
QUERY_FIELDS = options(
    FIELDS,
    click.option("--on-error", type=click.Choice(["fail", "skip"]), default="fail", show_default=True,
                 help="Whether a bad query is an error, or is skipped and counted."),
)  # fmt: skip
QUERIES = options(
    click.argument("store"),
    click.option("--method", default="rise", show_default=True, metavar="NAME", help="Attribution method."),
    click.option("--queries", required=True, metavar="FILE", help="Queries, in any corpus format."),
    PARTIAL,
    MODEL_PATH,
    QUERY_FIELDS,
)
SEARCH = options(
    click.option("--scan", "precision", default="", metavar="PRECISION", help="Scan the copy in this precision first, such as "
                 "int8 or sign8192 (`headwater compress` makes it), then score the best candidates again from the rows as "
                 "ingested."),
    click.option("--candidates", type=click.IntRange(1), metavar="N", help="Rows per query that are scored again. "
                 "[default: 2 x --top, at least 100; for sign bits 10 x --top, at least 1000]"),
    click.option("--certify", is_flag=True,
                 help="Scan the int8 copy, then score every row again that may be among the best: the answer is exact."),
)  # fmt: skip
FIGURES = options(
    click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table."),
    click.option("-o", "--output", metavar="FILE.json", help="Write all numbers, those of single queries included."),
    click.option("--plot", metavar="FILE", help="Plot the numbers: .png, .svg or .pdf."),
)
OUTCOMES = options(
    click.option("--outcomes", required=True, metavar="FILE", help="Outcomes of training, (subsets, queries) or "
                 "(seeds, subsets, queries): .npy, .parquet or .zarr."),
    click.option("--outcome", "kind", type=click.Choice(["loss", "gain"]), default="loss", show_default=True,
                 help="Whether outcomes are losses, which fall where training helps, or gains, which rise."),
    click.option("--subsets", default="", metavar="FROM:TO", help="Use these subsets only, such as 80:100."),
    click.option("--resamples", type=click.IntRange(1), default=1000, show_default=True, help="Bootstrap resamples."),
)  # fmt: skip


def budget_of(memory: str | None) -> int | None:
    """--memory in bytes."""
    from ..runtime.memory import parse_bytes

    return None if memory is None else parse_bytes(memory)


def method_settings(names: tuple[str, ...], pairs: tuple[tuple[str, str], ...]) -> dict[str, JsonFields]:
    """Method → setting → value, from `-o NAME.SETTING VALUE`; a value that is not JSON is taken as a string."""
    settings: dict[str, JsonFields] = {name: {} for name in names}
    for key, text in pairs:
        name, dot, setting = key.rpartition(".")  # a member's name may hold a dot, a setting's does not
        if not dot or name not in settings:
            raise click.UsageError(f"-o {key}: write NAME.SETTING, where NAME is one of {', '.join(names)}")
        try:
            settings[name][setting] = json.loads(text)
        except (ValueError, RecursionError):
            settings[name][setting] = text
    return settings
