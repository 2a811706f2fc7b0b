"""ARCHITECTURE.md is true: its tree is the tree, its examples run."""

from __future__ import annotations

import re

from documents import ROOT
from tree import TREE, architecture, drawn

TEXT = (ROOT / "ARCHITECTURE.md").read_text("utf-8")


def test_the_tree_is_the_tree() -> None:
    assert architecture(TEXT) == TEXT, "run `make tree`"


def test_every_line_of_the_tree_says_what_a_file_is() -> None:
    lines = [line for line in drawn().splitlines() if line]
    assert all(re.search(r"\S  +\S", line) for line in lines)
    assert TREE.search(TEXT)
