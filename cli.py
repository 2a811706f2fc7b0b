"""The command line: collects the commands and turns errors into one line and a hint. Knows nothing of how anything is computed.

Commands are in engine/commands. Those modules and this one import no third-party library but click at their top; a command
imports what it needs when it runs, so that `--help` and `methods` answer at once.
Every `HeadwaterError` is printed as a line `error:`, and its hint as a line `hint:`, in one place: :class:`_Commands`. Exit
codes: 0 done, 1 a `HeadwaterError`, 2 wrong usage, 130 stopped.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, ClassVar

import click

from .engine.commands import (
    add,
    attribution,
    evaluation,
    fit,
    ground_truth,
    ingest,
    prediction,
    selection,
    self_influence,
    stores,
)
from .engine.commands.grouped_help import HelpfulGroup, message_options
from .engine.runtime import messages
from .store.errors import BrokenMethod, HeadwaterError, SettingsError

if TYPE_CHECKING:
    from .engine.interface.method import Method


@contextmanager
def _flushed_output() -> Iterator[None]:
    """Flush stdout when the block ends, also by an exit: a full device is then an error here, not at the interpreter's end."""
    if sys.__stdout__ is None and sys.stdout is None:  # started with a closed stdout
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 — it stays open until the process ends
    try:
        yield
    except SystemExit:
        sys.stdout.flush()
        raise
    sys.stdout.flush()


def _discard_output() -> None:
    """Send what stdout cannot take nowhere, because the interpreter would try to write it again at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)


def _print_error(text: str, hint: str = "") -> None:
    """Print an error and its hint, each on a line; in JSON both in one object."""
    line, advice = (" ".join("".join(c if c.isprintable() else " " for c in part).split()) for part in (text, hint))
    if messages.style().as_json:
        messages.message("error", line, hint=advice)
        return
    messages.message("error", line)
    if advice:
        messages.message("hint", advice)


class _UsageError(click.UsageError):
    """An error of click's, printed in the same style as ours."""

    def show(self, file: IO[Any] | None = None) -> None:
        """Print it to stderr."""
        with messages.using(self.style):
            _print_error(self.message, self.hint)

    hint: str = ""
    """What to do about it."""
    style = messages.PLAIN
    """That of the command, which has ended when the error is printed."""


@contextmanager
def _one_style() -> Iterator[None]:
    """Print click's errors as ours."""
    try:
        yield
    except (_UsageError, click.exceptions.NoArgsIsHelpError):
        raise
    except click.UsageError as error:
        known = isinstance(error, click.NoSuchOption | click.exceptions.NoSuchCommand)
        message = (error.message if known else error.format_message()).rstrip(".")
        styled = _UsageError(message[:1].lower() + message[1:], error.ctx)
        styled.hint, styled.style = _hint_of(error), messages.style()
        raise styled from None


def _hint_of(error: click.UsageError) -> str:
    """What to do about wrong usage: our own hint, the closest name, or where help is."""
    close = getattr(error, "possibilities", None)
    if close:
        return f"did you mean {' or '.join(close)}?"
    path = error.ctx.command_path if error.ctx else "headwater"
    return getattr(error, "hint", "") or f"{path} --help lists options and examples"


class _Commands(HelpfulGroup):
    """A group of commands that prints headwater's own errors as one line."""

    purposes: ClassVar[Mapping[str, Sequence[str]]] = {
        "Make a store": ("ingest", "add", "fit", "compress", "upgrade"),
        "Ask it": ("attribute", "value", "self-influence"),
        "Choose training data": ("select", "predict", "calibrate"),
        "Check answers": ("evaluate", "ground-truth"),
        "See what is there": ("info", "show", "verify", "methods", "plan", "demo"),
        "Write a method": ("check",),
    }

    def main(self, *args: Any, **extra: Any) -> Any:
        try:
            with _flushed_output():
                return super().main(*args, **extra)
        except OSError as error:
            _discard_output()
            if error.errno != errno.EPIPE:  # the program that read the output has ended: no message is needed
                _print_error(f"{error.filename or 'output'}: {error.strerror or error}")
            sys.exit(1)

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        with _one_style():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> object:
        try:
            with _one_style():
                return super().invoke(ctx)
        except HeadwaterError as error:
            _print_error(str(error), error.hint)
            ctx.exit(1)
        except KeyboardInterrupt:
            messages.say("stopped")
            ctx.exit(130)


@click.group(
    "headwater",
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, 1 an error, 2 wrong usage, 130 stopped: the same command continues.",
)
@click.version_option(package_name="headwater")
def main() -> None:
    """Trace what a language model does back to training examples.

    \b
    headwater demo
    headwater ingest corpus.jsonl --store S --model MODEL
    headwater attribute S --queries questions.jsonl
    """


@main.group(cls=HelpfulGroup)
def plan() -> None:
    """Print the memory plan of a command; nothing is written.

    \b
    headwater plan ingest corpus.jsonl --store S --model MODEL
    headwater plan attribute S --queries questions.jsonl --memory 2GB
    """


@main.command()
@click.option("--model", type=click.Choice(["small", "smollm2"]), default="small", show_default=True,
              help="Model: a small one trained from scratch, or SmolLM2-135M, fine-tuned on planted facts.")  # fmt: skip
@click.option(
    "--workdir", metavar="DIR", help="Folder of the corpus, the model and the store.  [default: demo, or demo-MODEL]"
)
@click.option(
    "--short", is_flag=True, help="A smaller corpus, and a smaller model: a minute or two, less accurate results."
)
def demo(model: str, workdir: str | None, short: bool) -> None:
    """Train a model offline and attribute its answers.

    It makes a corpus, a model trained on it, a store, and results, in minutes on two cores.

    \b
    headwater demo --short
    headwater demo --model smollm2
    """
    # Settings that differ from RISE's defaults: with tau and floor at 1, the small model's top example is from the module that
    # the question is about in 65 of 100 questions, with the published values in 49. On SmolLM2, in a trial with three examples a
    # fact, tau 1 and floor 0.1 had 30 of 30 among the first five, the published values 24.
    if model == "smollm2":
        from .engine.demo.language_tour import language_tour

        language_tour(workdir or "demo-smollm2", {"rise": {"tau": 1.0, "floor": 0.1}, "repsim": {}}, short)
        return
    from .engine.demo.tour import tour

    tour(workdir or "demo", "rise", short, {"kr": 96, "kh": 64, "kg": 32, "tau": 1.0, "floor": 1.0})


@main.command()
@click.argument("target", metavar="MODULE:CLASS")
@click.option(
    "--finds-itself",
    default=0.95,
    show_default=True,
    type=click.FloatRange(0, 1),
    metavar="SHARE",
    help="Share of examples that must rank first for themselves; lower it for scores that are no similarity.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:i.")
def check(target: str, finds_itself: float, device: str) -> None:
    """Check a method that you write, by the conformance suite.

    The class need not be installed: its module is imported from the current folder, or from Python's path. A line says of each
    check whether it holds, does not apply, or fails and why. Exits with 1 if one fails.

    \b
    headwater check my_module:MyMethod
    """
    from .engine.commands.options import echo
    from .engine.models.language_model import pick_device
    from .plugins.conformance import checks

    method = _class_at(target)()
    failed = 0
    for one in checks(finds_itself=finds_itself, device=str(pick_device(device))):
        name = str(one).replace("_", " ")
        try:
            reason = one(method)
            echo(f"{'-' if reason else 'ok':<6}  {name}{f' (does not apply: {reason})' if reason else ''}")
        except Exception as error:  # an author's code may raise anything; each check is one line
            failed += 1
            kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
            echo(f"FAILED  {name}: {kind}{' '.join(str(error).split())}")
    echo(f"{failed} checks failed" if failed else f"{target} conforms", err=True)
    sys.exit(1 if failed else 0)


def _class_at(target: str) -> type[Method]:
    """The class that `module:Class` names.

    Raises:
        SettingsError: it is no such name. BrokenMethod: its module cannot be imported, or it is no method.
    """
    from importlib import import_module

    from .engine.interface.method import Method

    module, _, name = target.partition(":")
    if not (module and name.isidentifier()):
        raise SettingsError(f"{target} is not MODULE:CLASS", hint="write headwater check my_module:MyMethod")
    sys.path.insert(0, os.getcwd())  # noqa: PTH109 — as python -m does
    try:
        value = getattr(import_module(module), name)
    except (Exception, SystemExit) as error:  # an author's module may raise anything
        raise BrokenMethod(f"{target} cannot be imported: {type(error).__name__}: {error}") from None
    if not (isinstance(value, type) and issubclass(value, Method)):
        raise BrokenMethod(
            f"{target} is not a method", hint="let the class extend headwater.plugins.Similarity, or another base"
        )
    return value


main.params.extend(message_options())
for _command in (ingest.ingest, add.add, fit.fit, attribution.attribute, attribution.value, self_influence.self_influence,
                 stores.compress, stores.methods, stores.info, stores.show, stores.verify, stores.upgrade,
                 ground_truth.ground_truth, evaluation.evaluate, prediction.predict, prediction.calibrate,
                 selection.select):  # fmt: skip
    main.add_command(_command)
plan.add_command(ingest.plan_ingest)
plan.add_command(fit.plan_fit)
plan.add_command(attribution.plan_attribute)
