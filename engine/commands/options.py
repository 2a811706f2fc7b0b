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
from typing import TYPE_CHECKING, TypeVar

import click

from ...store.json_values import JsonFields
from ..results.printable import printable
from ..runtime.messages import say

if TYPE_CHECKING:
    from ..models.language_model import ModelChoice

A = TypeVar("A")


class WrongUsage(click.UsageError):
    """Options that do not go together, or a value that is not of the form that its option needs."""

    def __init__(self, message: str, hint: str = "") -> None:
        """`hint`: what to do about it."""
        super().__init__(message)
        self.hint = hint
        self.add_note(f"hint: {hint}")


Callback = Callable[..., None]
"""A function that click calls."""
Decorator = Callable[[Callback], Callback]
EXAMPLES_PRINTED = click.option(
    "--top",
    default=10,
    show_default=True,
    type=click.IntRange(1),
    metavar="K",
    help="Number of top examples, printed if there is no -o.",
)
PROMPTS = click.option("--prompts", is_flag=True, help="Print the examples' prompts, too.")
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON, one object.")
JSON_LINES = click.option("--json", "as_json", is_flag=True, help="Print JSON, one object per line.")
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
    help="File with each example's id and further columns; the corpus file itself, if it has them.",
)
MODEL_PATH = click.option(
    "--model",
    default="",
    metavar="PATH",
    help="Model, if the store's has moved: its folder. [default: its path at ingestion]",
)


PARTIAL = click.option(
    "--partial",
    is_flag=True,
    help="Use the rows of a store or method that is unfinished, and say how many rows of how many these are.",
)


def echo(text: str, *, err: bool = False) -> None:
    """Print a line without control characters, which names, paths and texts may have, to stdout, or with `err` to stderr."""
    if err:
        say(printable(text))
    else:
        click.echo(printable(text))


def method_names(ctx: click.Context, parameter: click.Parameter, begun: str) -> list[str]:
    """Completions of the name of a method, for the shell."""
    from ..interface.registry import entries_by_name

    return [name for name in entries_by_name() if name.startswith(begun)]


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
                say(f"note: {line}")


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


RUN = options(
    MEMORY,
    click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:i."),
    click.option("--dtype", default="auto", show_default=True, help="auto, float32, bfloat16 or float16."),
    click.option("--trust-remote-code", is_flag=True, help="Run the Python code that ships with the model."),
)


def budget_of(memory: str | None) -> int | None:
    """--memory in bytes."""
    from ..runtime.memory import parse_bytes

    return None if memory is None else parse_bytes(memory)


def method_settings(names: tuple[str, ...], pairs: tuple[tuple[str, str], ...]) -> dict[str, JsonFields]:
    """Method → setting → value, from `--set NAME.SETTING VALUE`; a value that is not JSON is taken as a string."""
    settings: dict[str, JsonFields] = {name: {} for name in names}
    for key, text in pairs:
        name, dot, setting = key.rpartition(".")  # a member's name may hold a dot, a setting's does not
        if not dot or name not in settings:
            raise WrongUsage(
                f"--set {key}: it names no method of this command",
                f"write NAME.SETTING, where NAME is one of {', '.join(names)}",
            )
        try:
            settings[name][setting] = json.loads(text)
        except (ValueError, RecursionError):
            settings[name][setting] = text
    return settings
