"""The guides are true: every command and every Python block of each runs, in the order shown, in one folder."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from documents import DOCUMENTS, GUIDES, ROOT, blocks, commands, fill, fill_demo, run
from fuzz.__main__ import main as fuzz
from headwater.cli import main
from headwater.engine.interface.registry import load
from small import sentences


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the guides name."""
    folder = tmp_path_factory.mktemp("filled")
    fill(folder)
    return folder


@pytest.fixture
def workplace(filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, which is the current folder."""
    shutil.copytree(filled, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("guide", [guide for guide in GUIDES if commands(guide)], ids=lambda path: path.stem)
def test_every_command_of_a_guide_runs(guide: Path, workplace: Path) -> None:
    if guide.stem == "demo":
        fill_demo(workplace)
    for line in commands(guide):
        run(line)


@pytest.mark.parametrize("guide", [guide for guide in GUIDES if blocks(guide, "python")], ids=lambda path: path.stem)
def test_every_python_block_of_a_guide_runs(
    guide: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "examples/third_party_method"))
    for code in blocks(guide, "python"):
        exec(compile(code, guide.name, "exec"), {})
    if guide.stem == "from-python":
        assert sentences(60)[0] in capsys.readouterr().out


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
