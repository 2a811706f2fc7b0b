"""The reference page of the Python API, made from signatures and docstrings; `make tree` writes it with the tree."""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
from pathlib import Path

from places import ROOT

PAGE = ROOT / "examples" / "guides" / "python-api.md"
FUNCTIONS = ("ingest", "open", "method")
CLASSES = (
    "Store",
    "Attributions",
    "Answer",
    "ScoredExample",
    "Values",
    "Comparison",
    "Selection",
    "Evaluation",
    "Capture",
)
EVALUATIONS = ("lds", "subsets", "retrieval", "brittleness")
OPTIONS = ("QueryKeywords", "SelectKeywords", "ModelKeywords", "ReadingKeywords", "IngestKeywords")
HEAD = """# Python API

Made from the docstrings by `make tree`; the guide is [find what made an answer](find-what-made-an-answer.md). Every name is an
attribute of `headwater` (`import headwater as hw`), which imports it when it is first used. Every error that a user can cause is
a `hw.HeadwaterError`.
"""


def text_of(docstring: str | None) -> str:
    """A docstring as Markdown: examples become blocks of code, sections of errors a paragraph."""
    lines = inspect.cleandoc(docstring or "").splitlines()
    out: list[str] = []
    for block in "\n".join(lines).split("\n\n"):
        if block.startswith(">>>"):
            out.append(f"```pycon\n{block}\n```")
        elif block.startswith("Raises"):
            title, _, rest = block.partition("\n")
            out.append(f"*{title.rstrip(':')}:* {' '.join(textwrap.dedent(rest).split())}")
        else:
            out.append(" ".join(block.split()))
    return re.sub(r":(?:class|func|meth):`([^`]*)`", r"`\1`", "\n\n".join(out))


def signature_of(function: object, name: str) -> str:
    """The written signature, without annotations of long types."""
    signature = inspect.signature(inspect.unwrap(function))  # type: ignore[arg-type]
    parameters = [p for p in signature.parameters.values() if p.name != "self"]
    shown = [
        f"**{p.name}" if p.kind is p.VAR_KEYWORD else f"*{p.name}" if p.kind is p.VAR_POSITIONAL
        else p.name if p.default is p.empty else f"{p.name}={p.default!r}"
        for p in parameters
    ]  # fmt: skip
    first = next((at for at, p in enumerate(parameters) if p.kind is p.KEYWORD_ONLY), None)
    if first is not None and not any(p.kind is p.VAR_POSITIONAL for p in parameters):
        shown.insert(first, "*")
    return f"{name}({', '.join(shown)})"


def entry(title: str, docstring: str | None, level: int = 3) -> str:
    return f"{'#' * level} `{title}`\n\n{text_of(docstring)}\n"


def fields_of(kind: type) -> list[tuple[str, str, str]]:
    """(name, type, docstring) of the annotated fields of a class, in order; a docstring serves the fields before it, too."""
    tree = ast.parse(inspect.getsource(sys.modules[kind.__module__]))
    node = next(item for item in tree.body if isinstance(item, ast.ClassDef) and item.name == kind.__name__)
    fields: list[tuple[str, str, str]] = []
    for item in node.body:
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
            fields.append((item.target.id, ast.unparse(item.annotation), ""))
        elif isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant) and fields and not fields[-1][2]:
            fields[-1] = (*fields[-1][:2], " ".join(str(item.value.value).split()))
    return fields


def table_of(kind: type) -> str:
    rows = [f"| `{name}` | `{hint.replace('|', chr(92) + '|')}` | {about} |" for name, hint, about in fields_of(kind)]
    return "\n".join(["| name | type | |", "|---|---|---|", *rows]) + "\n" if rows else ""


def members_of(kind: type) -> str:
    """Entries of the public methods and properties of a class, in the order in which they are written."""
    parts = []
    for name, member in vars(kind).items():
        public = not name.startswith("_") or name in ("__getitem__",)
        if not public or not (callable(member) or isinstance(member, property)) or name.startswith("on_"):
            continue
        if isinstance(member, property):
            parts.append(entry(f".{name}", member.__doc__, 4))
        elif member.__doc__:
            parts.append(entry("." + signature_of(member, name), member.__doc__, 4))
    return "\n".join(parts)


def page() -> str:
    """The whole page."""
    import headwater as hw
    from headwater.engine.api import ingesting, opening, selections

    parts = [HEAD, "## Functions\n"]
    parts += [entry(signature_of(getattr(hw, name), f"hw.{name}"), getattr(hw, name).__doc__) for name in FUNCTIONS]
    parts += [
        entry(signature_of(getattr(hw.evaluate, name), f"hw.evaluate.{name}"), getattr(hw.evaluate, name).__doc__)
        for name in EVALUATIONS
    ]
    parts.append("## Options\n")
    for name in OPTIONS:
        kind = next(getattr(module, name) for module in (opening, selections, ingesting) if hasattr(module, name))
        parts += [entry(name, kind.__doc__), table_of(kind)]
    parts.append("## Classes\n")
    for name in CLASSES:
        kind = getattr(hw, name)
        title = signature_of(kind.__init__, f"hw.{name}") if name == "Capture" else f"hw.{name}"
        about = "\n\n".join(filter(None, [kind.__doc__, kind.__init__.__doc__ if name == "Capture" else ""]))
        parts += [entry(title, about), table_of(kind), members_of(kind)]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(parts)).strip() + "\n"


def write(path: Path = PAGE) -> None:
    """Write the page."""
    path.write_text(page(), "utf-8")


if __name__ == "__main__":
    write()
