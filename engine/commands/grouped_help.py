"""Help of commands: options by topic, examples under a heading, commands by purpose. Knows no command's work."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import click

from ..runtime.messages import style, using

TOPICS: Mapping[str, Sequence[str]] = {
    "Input": (
        "--store", "--queries", "--query", "--prompt", "--completion", "--generate", "--new-tokens", "--minus", "--model",
        "--model-config", "--base", "--bases", "--corpus", "--text-template", "--prompt-template", "--completion-template",
        "--response", "--turns", "--max-length", "--targets", "--boundary", "--truncate", "--lines", "--on-error", "--append",
        "--keep", "--columns", "--scores", "--masks", "--predicted", "--outcomes", "--outcome", "--results", "--labels",
        "--column", "--query-labels", "--match", "--without", "--subsets", "--subsets-by", "--tasks-by", "--task", "--partial",
        "--rows",
    ),
    "Method": (
        "--method", "--set", "--seeds", "--where", "--members", "--combine", "--by", "--scan", "--candidates", "--certify",
        "--precision", "--bits", "--lambda", "--grid", "--calibrate", "--given", "--again", "--subset-count", "--fraction",
        "--clusters", "--seed", "--epochs", "--batch", "--learning-rate", "--pretrained", "--subset-range", "--resamples",
        "--at", "--short", "--finds-itself",
    ),
    "Choice of examples": (
        "--count", "--tokens", "--additive", "--per-step", "--distinct", "--copies", "--quota", "--among", "--exclude",
    ),
    "Memory and device": (
        "--memory", "--device", "--dtype", "--batch-tokens", "--processes", "--trust-remote-code",
    ),
    "Output": (
        "--output", "--top", "--bottom", "--limit", "--prompts", "--all-scores", "--records", "--json", "--plot", "--no-text",
        "--no-tokens", "--commit-seconds", "--workdir", "--quiet", "--log-format", "--help",
    ),
}  # fmt: skip
"""Topic → the flags under it. A flag has one meaning, hence one topic."""
_TOPIC_OF = {flag: topic for topic, flags in TOPICS.items() for flag in flags}
SUMMARY_WIDTH = 60
"""Columns of a command's summary in a list of commands."""


class _WithExamples(click.Command):
    """A command whose help has its examples under a heading: what stands after the mark of verbatim text."""

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The help text, then its examples."""
        text, _, examples = inspect.cleandoc(self.help or "").partition("\b\n")
        formatter.write_paragraph()
        with formatter.indentation():
            formatter.write_text(text.strip())
        if examples:
            with formatter.section("Examples"):
                for line in examples.strip().splitlines():
                    formatter.write(f"{'':{formatter.current_indent}}{line}\n")


class HelpfulCommand(_WithExamples):
    """A command whose help lists its options by topic, after its examples."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        """As click's, with the options that every command has."""
        super().__init__(*arguments, **more)
        self.params.extend(message_options())

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """One list of options for each topic."""
        records: dict[str, list[tuple[str, str]]] = {topic: [] for topic in TOPICS}
        for parameter in self.get_params(ctx):
            if isinstance(parameter, click.Option) and (record := parameter.get_help_record(ctx)) is not None:
                records[topic_of(parameter)].append(record)
        for topic, lines in records.items():
            if lines:
                with formatter.section(topic):
                    formatter.write_dl(lines)


def topic_of(parameter: click.Parameter) -> str:
    """The topic of an option: that of its flag in `TOPICS`."""
    return next((_TOPIC_OF[flag] for flag in parameter.opts if flag in _TOPIC_OF), "Output")


class HelpfulGroup(_WithExamples, click.Group):
    """A group of such commands. With `purposes`, its help lists the commands by purpose."""

    command_class = HelpfulCommand
    purposes: ClassVar[Mapping[str, Sequence[str]]] = {}
    """Purpose → the names of its commands, all of the group's."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """One list of commands for each purpose."""
        longest = max(map(len, self.commands))
        for purpose, names in (self.purposes or {"Commands": tuple(self.commands)}).items():
            with formatter.section(purpose):
                formatter.write_dl([(f"{name:<{longest}}", _summary(self.commands[name])) for name in names])


def _summary(command: click.Command) -> str:
    return command.get_short_help_str(SUMMARY_WIDTH)


def _be_quiet(ctx: click.Context, parameter: click.Parameter, chosen: bool) -> None:
    if chosen:
        ctx.find_root().with_resource(using(replace(style(), quiet=True)))


def _log_json(ctx: click.Context, parameter: click.Parameter, form: str | None) -> None:
    if form:
        ctx.find_root().with_resource(using(replace(style(), as_json=form == "json")))


def message_options() -> list[click.Option]:
    """The options of every command, and of the group of all: they hold for what is printed to stderr."""
    return [
        click.Option(["--quiet"], is_flag=True, expose_value=False, is_eager=True, callback=_be_quiet,
                     help="Print no progress and no notes, only warnings and errors."),
        click.Option(["--log-format"], type=click.Choice(["text", "json"]), expose_value=False, is_eager=True,
                     callback=_log_json, help="Form of progress, notes and errors on stderr. [default: text]"),
    ]  # fmt: skip


def command(name: str | None = None) -> Callable[[Callable[..., object]], HelpfulCommand]:
    """`click.command` with such help."""
    return click.command(name, cls=HelpfulCommand)
