"""The guides are true: every command and every Python block of each runs, in the order shown, in one folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from documents import GUIDES, ROOT, blocks, commands, fill, fill_demo, run
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
