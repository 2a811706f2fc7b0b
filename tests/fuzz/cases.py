"""One case from its seed: a file is damaged, a command is run, the folder is brought back. Knows the world through its folder."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

from running import headwater

from fuzz.kinds import KINDS, Files, Kind, reader
from fuzz.mutations import Mutation, Target, delete, delete_folder, drawn, odd_json, older_version, swap
from fuzz.outcomes import NOTED, WRONG, Answer, Expected, outcome, same_twice
from fuzz.sealed import is_sealed, odd_and_sealed
from fuzz.snapshot import Snapshot
from fuzz.world import OLDER

WRITING = ("ingest", "fit", "compress", "calibrate", "upgrade", "ground-truth")

NEW = {"A2", "V2", "N", "out.zarr", "hostile"}
"""Folders that commands make."""


@dataclass
class Case:
    """What was done, and what came of it; one line of the log."""

    part: str
    seed: int
    what: str
    """The kind of file, or of input."""
    how: str
    """The damage, with the path."""
    command: str
    outcome: str = ""
    why: str = ""
    seconds: float = 0.0

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))


class Runner:
    """Runs commands in the world, and knows how the undisturbed ones end."""

    def __init__(self, snapshot: Snapshot) -> None:
        """`snapshot` is of the current folder."""
        self.snapshot, self._cases = snapshot, 0
        self.files = Files(snapshot.pristine)
        self._calm: dict[tuple[str, ...], Answer] = {}

    def begin(self, *words: str) -> None:
        """Begin a case that changes nothing outside the folders that some words name; every 100th time, this is checked."""
        self._cases += 1
        if self._cases % 100 == 0:
            self.snapshot.within = None
            outside = self.snapshot.changed()
            self.snapshot.restore()
            if outside:
                raise AssertionError(f"changed by one of the last 100 cases, though none names it: {outside}")
        self.snapshot.within = {word.split("/")[0] for word in words} | NEW

    def run(self, words: tuple[str, ...]) -> Answer:
        """Run a command where the folder is as it is now."""
        result = headwater(*words)
        return Answer.of(result, self.snapshot.differences())

    def calm(self, words: tuple[str, ...]) -> Answer:
        """How a command ends in the undamaged world, which must be so each time."""
        if words not in self._calm:
            answers = []
            for _ in range(2):
                self.snapshot.restore()
                answers.append(self.run(words))
            self.snapshot.restore()
            first, second = answers
            if not same_twice(first, second):
                raise AssertionError(f"the undisturbed run of {words} is not the same twice: {first} {second}")
            self._calm[words] = first
        return self._calm[words]


def mutation_kind(seed: int) -> Kind:
    """The kind of file of a seed: each in turn."""
    return KINDS[seed % len(KINDS)]


def mutated(runner: Runner, seed: int) -> Case:
    """Damage one file, and run one command."""
    random, kind = Random(f"mutations {seed}"), mutation_kind(seed)
    place = random.choice(runner.files.of_kind[kind.name])
    command = reader(random, place)
    runner.begin(place, *command.words)
    calm = runner.calm(command.words)
    mutation = odd_and_sealed if is_sealed(Path(place)) and random.random() < 0.3 else drawn(random, Path(place))
    older = OLDER / place
    target = Target(
        Path(place), [Path(peer) for peer in runner.files.peers(kind, place)], older if older.exists() else None
    )
    mutation(random, target)
    damaged = set(runner.snapshot.differences())
    damaged |= {
        place.replace("/", "/shards/0/", 1) for place in damaged if place[:2] in ("O1", "O2")
    }  # where `upgrade` puts it
    damaged |= {"N/zarr.json", "A2/zarr.json", "V2/zarr.json"} if kind.given else set()
    answer = runner.run(command.words)
    checked = kind.checked and mutation not in _another_whole_one(kind)
    if kind.optional and (
        command.verb == "plan fit" or _holds_nothing(Path(place))
    ):  # the plan is of the fit that is missing now
        checked = False
    end, why = outcome(answer, Expected(calm, frozenset(damaged), checked, command.verb in WRITING))
    if end == NOTED and command.verb in WRITING:
        again = runner.run(("verify", command.store))
        end, why = (end, why) if not again.code else (WRONG, f"{why}; then verify: {again}")
    runner.snapshot.restore()
    return Case("mutations", seed, kind.name, f"{mutation.__name__} {place}", command.name, end, why)


def _another_whole_one(kind: Kind) -> tuple[Mutation, ...]:
    """Mutations after which another answer is right."""
    exchanged = (swap, older_version, odd_json) if kind.given else ()
    removed = (delete, delete_folder) if kind.optional else ()
    return odd_and_sealed, *exchanged, *removed


def _holds_nothing(path: Path) -> bool:
    """Whether a group's metadata are those of a group of which nothing was committed."""
    try:
        return not json.loads(path.read_bytes()).get("attributes")
    except (OSError, ValueError, AttributeError, RecursionError):
        return False
