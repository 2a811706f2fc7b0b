"""Commands that write, killed once or more and run again: the end must be the bytes of an undisturbed run. Knows no format."""

from __future__ import annotations

import re
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random

from command_server import CommandServer, Ended

from fuzz.cases import Case
from fuzz.outcomes import LEFT, NOISE, SAME, TRACEBACK, WRONG
from fuzz.snapshot import digest, signs
from fuzz.tool_commands import SMALL, STRIDE, ingest_words


@dataclass(frozen=True)
class Writing:
    """A command that writes."""

    name: str
    words: tuple[str, ...]
    stores: tuple[str, ...] = ()
    """Stores and folders of the world that are there when it begins."""
    without: tuple[str, ...] = ()
    """What of them is not there, so that it is written."""


def _writing(name: str, words: str, stores: str = "S", without: str = "") -> Writing:
    return Writing(name, tuple(words.split()), tuple(stores.split()), tuple(without.split()))


OFTEN = ("--commit-seconds", "0")
FIT_OFTEN = (*STRIDE, "--commit-seconds", "0")
COMMANDS: tuple[Writing, ...] = (
    Writing("ingest", ingest_words("N", ["many.jsonl"], ["rise", "grasp", "repsim"], *OFTEN)),
    Writing("ingest, corpus statistics", ingest_words("N", ["many.jsonl"], ["fitted_mean"], *OFTEN)),
    Writing("ingest resumed", ingest_words("P", ["many.jsonl"], ["rise", "grasp"], *OFTEN), ("P",)),
    Writing(
        "append", ingest_words("S", ["c1.jsonl", "c2.jsonl", "c3.jsonl.gz"], list(SMALL), "--append", *OFTEN), ("S",)
    ),
    Writing("add a method", ingest_words("F", ["c1.jsonl", "c2.jsonl"], ["repsim", "headcos"], *OFTEN), ("F",)),
    Writing("ingest --seeds", ingest_words("N", ["c1.jsonl"], ["headcos"], "--seeds", "3", *OFTEN)),
    _writing("ingest arrays", "ingest features.npz --store N --method repsim --commit-seconds 0", ""),
    _writing("compress", "compress S --precision int8 --method gradcos"),
    _writing("compress sign", "compress S --precision sign --bits 128 --method graddot"),
    Writing("fit", ("fit", "F", *FIT_OFTEN), ("F",)),
    Writing("fit again", ("fit", "S", *FIT_OFTEN, "--set", "stride.seed", "1", "--again"), ("S",)),
    Writing("fit arrays", ("fit", "A", *FIT_OFTEN), ("../older/A",)),
    _writing(
        "calibrate", "calibrate S --queries q.jsonl --subsets masks.npy --outcomes gains.npy", without="S/methods/grasp"
    ),
    _writing("attribute, moments", "attribute S --queries q.jsonl --method headgn", without="S/methods/headgn"),
    _writing("attribute -o .jsonl", "attribute S --queries q.jsonl -o out.jsonl"),
    _writing("attribute -o .csv", "attribute S --queries q.jsonl -o deep/folder/out.csv"),
    _writing("attribute -o .parquet", "attribute S --queries q.jsonl --method bm25 -o out.parquet"),
    _writing("attribute --all-scores", "attribute S --queries q.jsonl --all-scores out.zarr"),
    _writing("value -o", "value S --queries q.jsonl --method repsim -o out.parquet"),
    _writing("self-influence -o", "self-influence S --method graddot -o out.jsonl"),
    _writing("select -o", "select S --queries q.jsonl --count 9 -o out.jsonl", without="S/methods/grasp"),
    _writing("predict -o .npy", "predict S --queries q.jsonl --subsets-by source -o out.npy"),
    _writing("predict -o .csv", "predict S --queries q.jsonl --subsets masks.npy -o out.csv"),
    _writing(
        "evaluate -o", "evaluate retrieval --results answers.jsonl --labels gold.jsonl -o out.json --plot out.png", ""
    ),
    _writing("upgrade, format 1", "upgrade O1", "O1"),
    _writing("upgrade, format 2", "upgrade O2", "O2"),
)
GROUND_TRUTH = _writing(
    "ground-truth",
    "ground-truth c1.jsonl --queries q.jsonl --model-config model -o N --subset-count 2 --seeds 1 --epochs 1 --processes 1",
    "",
)
DEMO = _writing("demo", "demo --short --workdir N", "")
"""Both train: they are one case in 100, and one in 500."""
_HIDDEN = re.compile(r"(^|/)\.[^/]*\.new(/|$)")
_UNNAMED = re.compile(r"/manifests/.*/[0-9a-f]{24}(/|$)")
"""What a kill may leave: hidden files, which the next write of their names replaces, and manifests that nothing names any more,
which the next commit of their groups removes."""
_FILES = ("*.jsonl", "*.npy", "*.npz", "*.gz", "*.csv")


def killed_command(seed: int) -> Writing:
    """The command of a seed: each in turn, the long ones seldom."""
    if seed % 100 == 99:
        return DEMO if seed % 500 == 499 else GROUND_TRUTH
    return COMMANDS[seed % len(COMMANDS)]


class Killer:
    """Runs commands in a folder of their own, by a server of processes that are killed."""

    def __init__(self, folder: Path, server: CommandServer) -> None:
        """`folder`: of the world, whose `pristine` copy is there."""
        self._pristine, self._place, self._server = folder / "pristine", folder / "killed", server
        self._calm: dict[str, tuple[dict[str, str], Ended, float]] = {}

    def case(self, seed: int) -> Case:
        """Kill a command up to three times, run it to the end, and compare what is there."""
        random, command = Random(f"kills {seed}"), killed_command(seed)
        calm, ended, seconds = self._undisturbed(command)
        self._begin(command)
        kills, end, why = [], SAME, ""
        for _ in range(random.choice([1, 1, 2, 3])):
            number = random.choice([signal.SIGKILL] * 4 + [signal.SIGTERM, signal.SIGINT])
            at = random.randint(1, ended.changes + 1) if random.random() < 0.7 else None
            after = None if at else random.uniform(0, 1.1 * seconds)
            killed = self._run(command, killed_at=at, killed_after=after, signal_number=number)
            kills.append(f"{number.name} {f'at {at}' if at else f'after {after:.3f} s'}")
            if killed.code not in (0, 130, -number) and " exists: " not in killed.err:
                end, why = TRACEBACK, f"exit code {killed.code} after {number.name}: {killed.err}"
            if "Traceback" in killed.err or "Exception ignored" in killed.err:
                end, why = TRACEBACK, killed.err
            end, why = self._verified(command) if end == SAME and random.random() < 0.4 else (end, why)
        if end == SAME:
            end, why = self._finished(command, calm)
        return Case("kills", seed, command.name, ", ".join(kills), command.words[0], end, why)

    def _undisturbed(self, command: Writing) -> tuple[dict[str, str], Ended, float]:
        if command.name not in self._calm:
            self._begin(command)
            if command.words[0] not in ("ground-truth", "demo"):  # which train in processes of their own
                self._server.warm(*command.words, folder=self._place)
            results = []
            for _ in range(2):
                self._begin(command)
                start = time.monotonic()
                ended = self._run(command)
                if ended.code:
                    raise RuntimeError(f"{command} ends with {ended}")
                results.append((self._tree(), ended, time.monotonic() - start))
            if results[0][0] != results[1][0]:
                unlike = [place for place, digest in results[0][0].items() if results[1][0].get(place) != digest]
                raise RuntimeError(f"two undisturbed runs of {command} differ in {unlike}")
            self._calm[command.name] = results[1]
        return self._calm[command.name]

    def _begin(self, command: Writing) -> None:
        shutil.rmtree(self._place, ignore_errors=True)
        self._place.mkdir()
        for pattern in _FILES:
            for file in self._pristine.glob(pattern):
                shutil.copy2(file, self._place)
        for name in ("model", *command.stores):
            shutil.copytree(self._pristine / name, self._place / Path(name).name)
        for name in command.without:
            shutil.rmtree(self._place / name)

    def _run(self, command: Writing, **kill: int | float | None) -> Ended:
        return self._server.run(*command.words, below=self._place, folder=self._place, **kill)  # type: ignore[arg-type]

    def _verified(self, command: Writing) -> tuple[str, str]:
        """A store is undamaged after a kill, or not there yet."""
        stores = [Path(name).name for name in (*command.stores, "N")]
        store = next((name for name in stores if (self._place / name / "zarr.json").exists()), None)
        if store is None:
            return SAME, ""
        checked = self._server.run("verify", store, folder=self._place)
        return (SAME, "") if not checked.code else (WRONG, f"verify after the kill: {checked}")

    def _finished(self, command: Writing, calm: dict[str, str]) -> tuple[str, str]:
        ended = self._run(command)
        tree = self._tree()
        finished_before = tree == calm and " exists: " in ended.err
        if (ended.code and not finished_before) or "Traceback" in ended.err:
            return (
                TRACEBACK if "Traceback" in ended.err else NOISE
            ), f"run again, it ends with {ended.code}: {ended.err}"
        unlike = sorted(place for place in {*tree, *calm} if tree.get(place) != calm.get(place))
        unlike = [place for place in unlike if place in calm or not (_HIDDEN.search(place) or _UNNAMED.search(place))]
        if not unlike:
            return SAME, ""
        missing_or_added = [place for place in unlike if (place in tree) != (place in calm)]
        if missing_or_added:
            return LEFT, f"{missing_or_added} of {unlike}"
        return WRONG, f"other bytes in {unlike}"

    def _tree(self) -> dict[str, str]:
        return {place: digest(self._place / place) for place in signs(self._place)}
