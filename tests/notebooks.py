"""The guides of tasks as notebooks: made from the pages by `make tree`, and run in a real Jupyter kernel by a slow test.

Prose becomes Markdown cells, Python blocks become code cells; commands of the shell stay prose. No outputs are stored.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from places import ROOT

FOLDER = ROOT / "examples" / "notebooks"
TASKS = (
    "find-what-made-an-answer", "choose-training-data", "find-poison", "trust-a-score", "writing-a-method",
    "many-methods-on-one-question", "bring-your-own-arrays",
)  # fmt: skip
"""The guides that are notebooks, too: one for each thing that a person wants."""
NOTEBOOKS = [ROOT / "examples" / "guides" / f"{name}.md" for name in TASKS]
SECONDS = 240
"""The longest that one cell may take."""
HEAD = (
    "*Made from [the guide](../guides/{name}) by `make tree`. Run it in a folder that holds the files that it names, with your "
    "own corpus and model; headwater must be installed in the notebook's kernel.*"
)


def parts(text: str) -> list[tuple[str, str]]:
    """(kind of cell, contents) of a page, in its order."""
    cells = []
    for number, part in enumerate(re.split(r"^```python\n(.*?)^```\n", text, flags=re.M | re.S)):
        if part.strip():
            cells.append(("code" if number % 2 else "markdown", part.strip()))
    return cells


def notebook(guide: Path) -> dict[str, Any]:
    """A page as a notebook; its links lead where the page's lead."""
    text = re.sub(r"\]\(([\w-]+\.md)", r"](../guides/\1", guide.read_text("utf-8"))
    title, _, rest = text.partition("\n")
    cells = []
    for number, (kind, source) in enumerate(parts(f"{title}\n\n{HEAD.format(name=guide.name)}\n{rest}")):
        cell = {"cell_type": kind, "id": f"cell-{number}", "metadata": {}, "source": source.splitlines(keepends=True)}
        cells.append(cell | ({"execution_count": None, "outputs": []} if kind == "code" else {}))
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


def contents(guide: Path) -> str:
    """The notebook's file."""
    return json.dumps(notebook(guide), indent=1, ensure_ascii=False) + "\n"


def path_of(guide: Path) -> Path:
    """Where the notebook of a page lies."""
    return FOLDER / f"{guide.stem}.ipynb"


def execute(cells: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run all cells in a new kernel whose current folder is `folder`: the notebook with its outputs. A cell that fails raises."""
    from nbclient import NotebookClient

    settings = folder / ".jupyter"
    settings.mkdir()
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(settings))
    place = {"metadata": {"path": str(folder)}}
    return NotebookClient(cells, timeout=SECONDS, kernel_name="python3", resources=place).execute()


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.glob("*.ipynb"):
        old.unlink()
    for page in NOTEBOOKS:
        path_of(page).write_text(contents(page), "utf-8")
