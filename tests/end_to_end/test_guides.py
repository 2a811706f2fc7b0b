"""The guides are true: the commands of each run, in the order shown, in one folder; and so does its Python, as in a notebook."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pyarrow.parquet as pq
import pytest
from documents import DOCUMENTS, GUIDES, blocks, commands, fill_for, run, run_python
from fuzz.__main__ import main as fuzz
from headwater.cli import main
from headwater.engine.interface.registry import load


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, which is the current one; modules in it can be imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("guide", [guide for guide in GUIDES if commands(guide)], ids=lambda path: path.stem)
def test_every_command_of_a_guide_runs(guide: Path, workplace: Path) -> None:
    fill_for(guide, workplace)
    for line in commands(guide):
        run(line)
    if guide.stem == "find-poison":
        shown = re.search(r"Here (\d+) of the first 50 are poisoned", guide.read_text("utf-8"))
        best = sorted(pq.read_table("trigger/self.parquet").to_pylist(), key=lambda line: -line["score"])[:50]
        poisoned = set(Path("trigger/poisoned.txt").read_text().split())
        count = sum(line["example_id"] in poisoned for line in best)
        assert shown is not None and count == pytest.approx(int(shown[1]), abs=6)


@pytest.mark.parametrize("guide", [guide for guide in GUIDES if blocks(guide, "python")], ids=lambda path: path.stem)
def test_the_python_of_a_guide_runs(guide: Path, workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill_for(guide, workplace)
    capsys.readouterr()
    run_python(guide)
    printed = capsys.readouterr().out
    if guide.stem == "find-what-made-an-answer":
        assert re.search(r"^ *-?\d\.\d{3}  corpus\.jsonl:\d+  .", printed, re.M)
    if guide.stem == "find-poison":
        precision = re.search(r"^precision@10 +([\d.]+)", printed, re.M)
        assert precision is not None and float(precision[1]) == pytest.approx(0.8, abs=0.15)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_settings_that_a_document_names_exist(document: Path) -> None:
    named = re.findall(r"--set ([a-z0-9]+)(?:@\w+)?\.(\w+)", document.read_text("utf-8"))
    unknown = [(name, setting) for name, setting in named if setting not in load(name)().settings()]
    assert unknown == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_options_that_a_document_names_exist(document: Path) -> None:
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", document.read_text("utf-8"))) - {"--help", "--no-deps"}  # pip's
    commands = [*every_command(main), fuzz]
    assert named <= {option for command in commands for part in command.params for option in part.opts}


def every_command(group: click.Command) -> Iterator[click.Command]:
    """A command and all below it."""
    yield group
    for command in getattr(group, "commands", {}).values():
        yield from every_command(command)
