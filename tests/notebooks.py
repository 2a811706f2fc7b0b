"""Runs a notebook's cells in a real Jupyter kernel, from start to end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

SECONDS = 240
"""The longest that one cell may take."""


def execute(notebook: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run all cells in a new kernel whose current folder is `folder`: the notebook with its outputs. A cell that fails raises."""
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR"):
        (folder / ".jupyter").mkdir(exist_ok=True)
        monkeypatch.setenv(name, str(folder / ".jupyter"))
    from nbclient import NotebookClient

    client = NotebookClient(
        notebook, timeout=SECONDS, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    return client.execute()
