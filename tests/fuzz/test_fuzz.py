"""The fuzzer itself, for seconds: some cases of each part, and every case that failed once. `make fuzz` runs it for an hour."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from command_server import CommandServer

from fuzz.__main__ import recorded
from fuzz.campaign import Worker, environment
from fuzz.cases import Case
from fuzz.kills import Killer
from fuzz.mutations import Target, drawn
from fuzz.outcomes import FAULTS, SAME, TRACEBACK, WRONG, Answer, Expected, outcome
from fuzz.snapshot import Snapshot
from fuzz.world import install_plugin

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a forked child")
PARTS = {"mutations": 34, "hostile": 40, "budgets": 6}
"""Cases of each part."""
KILLS = [0, 9, 14, 24]


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    folder = tmp_path_factory.mktemp("fuzz")
    install_plugin(folder)
    with environment(folder):
        worker = Worker(folder)
        worker.start()
        yield worker
        worker.stop()


def faults(cases: list[Case]) -> list[str]:
    """One line for each case that failed."""
    return [f"{case.part} {case.seed}: {case}" for case in cases if case.outcome in FAULTS]


@pytest.mark.parametrize("part", PARTS)
def test_damaged_files_hostile_inputs_and_tiny_budgets(worker: Worker, part: str) -> None:
    assert not faults([worker.run(part, seed) for seed in range(PARTS[part])])


def test_commands_that_are_killed_and_run_again_end_with_the_same_bytes(worker: Worker) -> None:
    with CommandServer() as server:
        killer = Killer(worker.folder, server)
        assert not faults([killer.case(seed) for seed in KILLS])


def test_what_failed_once_fails_no_more(worker: Worker) -> None:
    with CommandServer() as server:
        killer = Killer(worker.folder, server)
        cases = [killer.case(seed) if part == "kills" else worker.run(part, seed) for part, seed in recorded()]
        assert not faults(cases)


def test_a_case_is_the_same_each_time(worker: Worker) -> None:
    first, second = (worker.run("mutations", 1234) for _ in range(2))
    assert (first.what, first.how, first.command, first.outcome) == (
        second.what,
        second.how,
        second.command,
        second.outcome,
    )


def test_a_folder_is_brought_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pristine, work = tmp_path / "pristine", tmp_path / "work"
    (pristine / "below/deep").mkdir(parents=True)
    for name in ("a.json", "b.json", "below/c", "below/deep/d"):
        (pristine / name).write_text('{"a": [1, {"b": "c"}]}')
    shutil.copytree(pristine, work)
    snapshot = Snapshot(work, pristine)
    monkeypatch.chdir(work)
    for seed in range(300):
        random = Random(seed)
        path = Path(random.choice(["a.json", "below/c", "below/deep/d"]))
        drawn(random, path)(random, Target(path, [Path("a.json"), Path("b.json")], None))
        (work / "new").mkdir()
        assert "new" in snapshot.differences()
        snapshot.restore()
        assert not snapshot.changed() and not Snapshot(work, pristine).differences()


CALM = Answer(0, "answer\n", "note: this\n")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Answer(0, "answer\n", ""), SAME),
        (Answer(0, "other\n", ""), WRONG),
        (Answer(0, "other\n", "note: this\n"), WRONG),
        (Answer(0, "other\n", "note: that\n"), "with a note"),
        (Answer(0, "answer\n", "", files={"S/x": "1"}), WRONG),
        (Answer(0, "answer\n", "", files={"damaged": "1"}), SAME),
        (Answer(1, "", "error: one\n"), "one line"),
        (Answer(1, "", "note: this\nerror: one\n"), "one line"),
        (Answer(2, "", "error: one\nhint: headwater --help\n"), "one line"),
        (Answer(1, "", "error: one\nerror: two\n"), "noise"),
        (Answer(1, "", "error: one\nand more\n"), "noise"),
        (Answer(1, "", "error: one\n", files={"out.csv": "1"}), "left over"),
        (Answer(1, "", "", "KeyError: 'x'"), TRACEBACK),
        (Answer(0, "answer\n", "Exception ignored in: x\n"), TRACEBACK),
        (Answer(0, "answer\n", "x.py:1: RuntimeWarning: overflow\n"), "noise"),
    ],
)
def test_outcomes(answer: Answer, expected: str) -> None:
    assert outcome(answer, Expected(CALM, frozenset({"damaged"})))[0] == expected
