"""The tree of ARCHITECTURE.md, made from the modules' docstrings; `make tree` writes it.

Rooms in the order of test_layers.py; of every file the first sentence of its docstring.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

from places import ROOT
from test_layers import LAYERS, ORDER, is_below, room_of

TREE = re.compile(r"(?<=<!-- tree -->\n```text\n).*?(?=```\n<!-- end of tree -->)", re.S)
WIDTH = 110


def summary(module: Path) -> str:
    """The first sentence of a module's docstring; of a long one what precedes its first colon."""
    paragraph = (ast.get_docstring(ast.parse(module.read_text("utf-8"))) or "").split("\n\n")[0]
    sentence = re.split(r"(?<!al\.)(?<=[.])\s", " ".join(paragraph.split()))[0].rstrip(".")
    sentence = sentence.split(": ")[0] if len(sentence) > WIDTH else sentence
    return sentence if len(sentence) <= WIDTH else sentence[: WIDTH - 1] + "…"


def drawn() -> str:
    """A heading a room, a line a file."""
    files = [path for layer in LAYERS for path in (ROOT / layer).rglob("*.py") if path.name != "__init__.py"]
    names = sorted(path.relative_to(ROOT).as_posix() for path in [*files, ROOT / "cli.py"])
    width, lines = max(map(len, names)), list[str]()
    for room in ORDER:
        inside = [name for name in names if is_below(name.removesuffix(".py"), room) and room_of(name[:-3]) == room]
        face = ROOT / room / "__init__.py"
        if inside and face.exists():
            lines += ["", f"# {room}/  {summary(face)}"]
        lines += [f"{name:<{width}}  {summary(ROOT / name)}" for name in inside]
    return "\n".join(lines).strip() + "\n"


def architecture(text: str) -> str:
    """ARCHITECTURE.md with the tree as it is now."""
    return TREE.sub(lambda found: drawn(), text)


if __name__ == "__main__":
    page = ROOT / "ARCHITECTURE.md"
    page.write_text(architecture(page.read_text("utf-8")), "utf-8")
