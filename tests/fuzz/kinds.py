"""Kinds of files that headwater writes and reads, and the commands that read each. Knows the store's layout, no format."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

from fuzz import tool_commands
from fuzz.snapshot import FOLDER, signs
from fuzz.tool_commands import Command


class Kind(NamedTuple):
    """Files that are damaged and counted together."""

    name: str
    pattern: str
    """A regular expression of their relative paths."""
    checked: bool = True
    """Whether a changed number in it must never lead to another answer; not so for files without checksums."""
    optional: bool = False
    """Whether a store without it is another whole one: what is computed again, or was not written yet."""
    given: bool = False
    """Whether another whole one in its place gives another answer: an input, or a store of a format without manifests."""


KINDS: tuple[Kind, ...] = (
    Kind("root", r"[SPFAV]/zarr\.json"),
    Kind("manifest", r"[SPFAV]/shards/0/manifests/.*"),
    Kind("progress record", r"P/shards/0/(examples|(methods|forms|hidden_states)/[^/]+)/zarr\.json", optional=True),
    Kind(
        "group metadata",
        r"[SPFAV]/((shards/0/)?(methods|forms|hidden_states)(/[^/]+)?(/columns)?|shards|shards/0|shards/0/examples)/zarr\.json",
    ),
    Kind("array metadata", r"[SPFAV]/shards/0/(examples|.*/columns)/.*zarr\.json"),
    Kind("text chunk", r"[SPFAV]/shards/0/examples/(id|source|text|prompt)/c/.*"),
    Kind("ragged chunk", r"[SPFAV]/shards/0/examples/(token_ids|target_positions)/.*/c/.*"),
    Kind("number chunk", r"[SPFAV]/shards/0/examples/\w+/c/.*"),
    Kind("row chunk", r"[SPFAV]/shards/0/methods/.*/c/.*"),
    Kind("copy chunk", r"[SPFAV]/shards/0/forms/.*/c/.*"),
    Kind("hidden-state chunk", r"[SPFAV]/shards/0/hidden_states/.*/c/.*"),
    Kind("old store", r"O[12]/.*", given=True),
    Kind("task vectors", r"S/methods/grasp/state/task-.*", optional=True),
    Kind("calibration", r"S/methods/grasp/state/calibration/.*", optional=True),
    Kind("fit record", r"[SFA]/methods/stride/state/(zarr\.json|fit/.*|base0/zarr\.json)", optional=True),
    Kind("checkpoint", r"F/methods/stride/state/base0/.*", optional=True),
    Kind("state group", r"[SFAV]/methods/\w+/state/zarr\.json", optional=True),
    Kind("model", r"model/.*"),
    Kind("scores chunk", r"scores\.zarr/.*/c/.*", given=True),
    Kind("scores metadata", r"scores\.zarr/.*", False),
    Kind("answers .jsonl", r"answers\.jsonl", False),
    Kind("answers .csv", r"answers\.csv", False),
    Kind("answers .parquet", r"answers\.parquet", False),
    Kind("selection", r"chosen\.jsonl", False),
    Kind("arrays .npz", r".*\.npz", given=True),
    Kind("matrix .npy", r"(utilities|masks?|gains|scores1?|without|outcomes)\.npy", False),
    Kind("masks .parquet", r"masks\.parquet", False),
    Kind("compressed corpus", r"c\d+\.\w+\.\w+", given=True),
    Kind("corpus", r"c\d+\.\w+", False),
    Kind("table", r"(columns\.csv|gold\.jsonl|subsets\.jsonl|ids\.txt|q\.jsonl)", False),
    Kind("operators", r"[SA]/methods/stride/state/base0/operators/.*", optional=True),
    Kind("moments", r"[SA]/methods/\w+/state/moments/.*", optional=True),
    Kind("corpus statistics", r"S/methods/fitted_mean/state/statistics/.*", optional=True),
    Kind("ground truth", r"truth/.*"),
)

_READERS = {
    "S": tool_commands.OF_STORE,
    "P": tool_commands.OF_UNFINISHED,
    "F": tool_commands.OF_UNFITTED,
    "O1": tool_commands.OF_OLD,
    "O2": tool_commands.OF_OLD,
    "A": tool_commands.OF_ARRAYS,
    "V": tool_commands.OF_ARRAYS,
    "truth": tool_commands.OF_TRUTH,
}


class Files:
    """The world's files by kind."""

    def __init__(self, pristine: Path) -> None:
        """`pristine`: the undamaged folder."""
        places = sorted(place for place, sign in signs(pristine).items() if sign != FOLDER)
        self.of_kind: dict[str, list[str]] = {kind.name: [] for kind in KINDS}
        for place in places:
            kind = next((kind for kind in KINDS if re.fullmatch(kind.pattern, place)), None)
            if kind is not None:
                self.of_kind[kind.name].append(place)

    def peers(self, kind: Kind, place: str) -> list[str]:
        """Files of a kind, and of the same store, with which one can be swapped: those of its own name, if there are any."""
        near = [other for other in self.of_kind[kind.name] if other.split("/")[0] == place.split("/")[0]] or [place]
        alike = [other for other in near if Path(other).name == Path(place).name]
        return alike if len(alike) > 1 or "/" in place else self.of_kind[kind.name]


def reader(random: Random, place: str) -> Command:
    """A command that reads a file, or whose store holds it."""
    top, commands = place.split("/")[0], _readers(place)
    parts = set(place.split("/"))
    near = [command for command in commands if command.method and {command.method, f"{command.method}.base0"} & parts]
    if top in _READERS and near and random.random() < 0.7:
        return random.choice(near)
    return random.choice(commands)


def _readers(place: str) -> Sequence[Command]:
    top = place.split("/")[0]
    if top == "model":
        return [
            command
            for command in tool_commands.ALL
            if command.verb in ("attribute", "ingest", "fit", "show", "predict", "value")
        ]
    if top in _READERS:
        commands = [command for command in _READERS[top] if top in command.words]
        files = [command for command in tool_commands.OF_FILES if top == "S" and top in command.words]
        return [*commands, *files] or _READERS[top]
    return [command for command in tool_commands.ALL if top in command.words]
