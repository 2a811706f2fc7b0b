"""ARCHITECTURE.md is true: its tree is the tree, its examples run."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest
from documents import ROOT, blocks
from headwater.engine.interface.method import API, Method
from headwater.plugins.conformance import checks
from tree import TREE, architecture, drawn

PAGE = ROOT / "ARCHITECTURE.md"
TEXT = PAGE.read_text("utf-8")


def test_the_tree_is_the_tree() -> None:
    assert architecture(TEXT) == TEXT, "run `make tree`"


def test_every_line_of_the_tree_says_what_a_file_is_in_one_line() -> None:
    lines = [line for line in drawn().splitlines() if line]
    assert [line for line in lines if not re.search(r"\S  +\S", line) or line.endswith("…")] == []
    assert TREE.search(TEXT)


@pytest.mark.skipif(API < 2, reason="the examples are of plugin API 2")
@pytest.mark.parametrize("number", range(len(blocks(PAGE, "python"))))
def test_every_example_of_a_method_conforms(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = f"architecture_example_{number}"
    (tmp_path / f"{module}.py").write_text(blocks(PAGE, "python")[number], "utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    kinds = [
        kind for kind in vars(import_module(module)).values() if isinstance(kind, type) and issubclass(kind, Method)
    ]
    (method,) = [kind() for kind in kinds if kind.__module__ == module]
    for check in checks():
        check(method)
