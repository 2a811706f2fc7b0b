"""One option, one meaning: a flag has the same metavar, type and first clause of help in every command."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator

import click
from headwater.cli import main

DIFFERING = {
    ("--boundary", "type"): "ground-truth trains as it is said to, hence has no auto",
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
