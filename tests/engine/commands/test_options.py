"""One option, one meaning: a flag has the same metavar, type and first clause of help in every command. Help is grouped."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner
from headwater.cli import main
from headwater.engine.commands.grouped_help import SUMMARY_WIDTH, TOPICS

DIFFERING = {
    ("--boundary", "type"): "ground-truth trains as it is said to, hence has no auto",
    ("--model", "type"): "the demo has two models of its own",
    ("--model", "metavar"): "the demo has two models of its own",
    ("--output", "metavar"): "ground-truth writes a folder",
    ("--output", "help"): "ground-truth writes a folder",
    ("-o", "metavar"): "ground-truth writes a folder",
    ("-o", "help"): "ground-truth writes a folder",
}
"""(flag, part) that differs between commands, and why."""


def commands(group: click.Group = main, prefix: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every command with its name, such as `plan ingest`."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{prefix}{name} ")
        else:
            yield prefix + name, command


def test_one_flag_has_one_meaning() -> None:
    meanings: dict[tuple[str, str], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for name, command in commands():
        for option in (one for one in command.params if isinstance(one, click.Option)):
            parts = {
                "metavar": str(option.metavar),
                "type": str(option.type),
                "help": re.split(r"[.:;,(\[]", option.help or "")[0].strip(),
            }
            for flag in option.opts:
                for part, value in parts.items():
                    meanings[flag, part][value].append(name)
    several = {key: dict(values) for key, values in meanings.items() if len(values) > 1}
    assert {key: values for key, values in several.items() if key not in DIFFERING} == {}
    assert set(DIFFERING) <= set(several), "remove what no longer differs"
    assert len(meanings) > 200 and meanings["-o", "help"].keys() == {"Output file", "Output folder"}


def test_every_option_says_what_it_is() -> None:
    bare = [
        (name, option.name)
        for name, command in commands()
        for option in command.params
        if isinstance(option, click.Option) and not option.help
    ]
    assert bare == []


def test_every_flag_has_one_topic_and_no_topic_an_unknown_flag() -> None:
    listed = Counter(flag for flags in TOPICS.values() for flag in flags)
    flags = {
        option.opts[-1]
        for _, command in commands()
        for option in command.get_params(click.Context(command))
        if isinstance(option, click.Option)
    }
    assert [flag for flag, times in listed.items() if times > 1] == []
    assert set(listed) ^ (flags | {"--help"}) == set()


def test_help_lists_options_by_topic_after_the_examples() -> None:
    output = CliRunner().invoke(main, ["attribute", "--help"]).stdout
    headings = re.findall(r"^(\S.*):$", output, re.MULTILINE)
    assert headings == ["Examples", "Input", "Method", "Memory and device", "Output"]
    assert re.search(r"Memory and device:\n  --memory BYTES .*\n", output) and "\b" not in output


def everything(group: click.Group = main, prefix: str = "headwater") -> Iterator[tuple[str, click.Command]]:
    """Every command and group."""
    yield prefix, group
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from everything(command, f"{prefix} {name}")
        else:
            yield f"{prefix} {name}", command


@pytest.mark.parametrize(("name", "command"), list(everything()))
def test_every_command_has_a_short_summary_and_an_example_of_itself(name: str, command: click.Command) -> None:
    assert 10 < len(command.get_short_help_str(500)) <= SUMMARY_WIDTH
    output = CliRunner().invoke(main, [*name.split()[1:], "--help"]).stdout
    examples = output.partition("\nExamples:\n")[2].partition("\n\n")[0]
    assert re.search(rf"^  {name} \S", examples, re.MULTILINE)
    assert max(map(len, output.splitlines())) <= 130


def test_the_commands_are_listed_by_purpose() -> None:
    output = CliRunner().invoke(main, ["--help"]).stdout
    assert sorted(name for names in type(main).purposes.values() for name in names) == sorted(main.commands)
    assert re.search(r"Ask it:\n  attribute +Rank training examples by influence on each completion\.\n", output)
