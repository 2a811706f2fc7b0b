"""The notebooks are the guides, without outputs; each runs from start to end in a real kernel, offline."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from documents import blocks, fill_for
from notebooks import FOLDER, NOTEBOOKS, contents, execute, notebook, path_of


@pytest.mark.parametrize("guide", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_as_its_guide_is(guide: Path) -> None:
    assert path_of(guide).read_text("utf-8") == contents(guide), "run `make tree`"
    nbformat.validate(nbformat.read(path_of(guide), as_version=4))
    sources = ["".join(cell["source"]) for cell in notebook(guide)["cells"]]
    links = [link for source in sources for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", source)]
    assert links and all((FOLDER / link).exists() for link in links)


def test_there_is_one_for_every_task_and_no_other() -> None:
    assert {path.name for path in FOLDER.glob("*")} == {path_of(guide).name for guide in NOTEBOOKS}
    assert all(blocks(guide, "python") for guide in NOTEBOOKS)


@pytest.mark.slow
@pytest.mark.parametrize("guide", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_in_a_kernel(guide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fill_for(guide, tmp_path)
    done = execute(nbformat.read(path_of(guide), as_version=4), tmp_path, monkeypatch)
    streams = [output for cell in done.cells for output in cell.get("outputs", []) if output.output_type == "stream"]
    if guide.stem != "writing-a-method":
        assert any(output.name == "stdout" for output in streams)
    assert [
        output.text for output in streams if output.name == "stderr" and "%" in output.text
    ] == []  # no lines of progress
