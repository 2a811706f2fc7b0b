"""The demo's corpus: documentation strings of Python's standard library, some held out as queries.

Sources are parsed, never imported. A text is `def name(arguments)` or `class Name` with its docstring. Names of the module and
of the outer class are only in the id, so that matching words cannot reveal the module. Knows no model, no store, no method.
"""

from __future__ import annotations

import ast
import json
import sysconfig
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from ...store.errors import CorpusError
from ..runtime.output_files import whole_file

SHORTEST = 40  # characters: shorter docstrings carry too little information
QUESTION = (160, 480)  # characters of a held-out text: some sentences, and at most 512 byte-level tokens
SIBLINGS = 8  # texts that a module must keep in the corpus if some of its texts are held out
_SKIPPED = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "turtledemo", "pydoc_data",
            "ensurepip", "__pycache__", "__phello__", "lib-dynload"}  # fmt: skip
_Documented = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(frozen=True, slots=True)
class Docstring:
    """One documented module, class or function."""

    id: str
    """Module and qualified name: `logging.handlers.SocketHandler.emit`."""
    heading: str
    """`def name(arguments)` or `class Name`; "" for a module, whose name must not be in its text."""
    docstring: str
    """The docstring without its indentation."""

    @property
    def text(self) -> str:
        """Text of the training example: heading and docstring."""
        return f"{self.heading}\n{self.docstring}\n".lstrip()

    @property
    def module(self) -> str:
        """Top-level module, see :func:`module_of`."""
        return module_of(self.id)


@dataclass(frozen=True, slots=True)
class Split:
    """Training corpus and held-out questions."""

    corpus: list[Docstring]
    """Training texts, sorted by id."""
    questions: list[Docstring]
    """Held-out texts, in an order that depends on their ids only."""


def module_of(example_id: str) -> str:
    """Top-level module of an id: `asyncio` for `asyncio.tasks.Task.cancel`, and for chunk `asyncio.tasks#2` of a long text."""
    return example_id.partition("#")[0].partition(".")[0]


def standard_library() -> Path:
    """Folder of the running Python's standard library."""
    return Path(sysconfig.get_path("stdlib"))


def docstrings(root: Path) -> list[Docstring]:
    """Docstrings of all public modules, classes and functions below `root`, without duplicate texts, sorted by id.

    Raises:
        CorpusError: there are no sources (a Python packed into one file, or without its library's sources).
    """
    by_id: dict[str, Docstring] = {}
    texts: set[str] = set()
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if _SKIPPED.intersection(parts) or parts[0].startswith("_") or "-" in "".join(parts):
            continue
        name = ".".join(parts).removesuffix(".__init__")
        for doc in _docstrings_of_file(path, name):
            normalized = _normalize_space(doc.text)
            if doc.id not in by_id and normalized not in texts:
                by_id[doc.id] = doc
                texts.add(normalized)
    if not by_id:
        raise CorpusError(
            f"{root} holds no documented Python source to build the demo's corpus from",
            hint="use a Python with sources",
        )
    return [by_id[name] for name in sorted(by_id)]


def _docstrings_of_file(path: Path, module: str) -> Iterator[Docstring]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in the sources
            tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError):  # templates, and files with deliberate errors
        return
    text = _docstring_of(tree)
    if text:
        yield Docstring(module, "", text)
    yield from _docstrings_below(tree, module)


def _docstrings_below(parent: ast.AST, path: str) -> Iterator[Docstring]:
    for node in ast.iter_child_nodes(parent):
        if isinstance(node, ast.If | ast.Try | ast.ExceptHandler):  # conditional definitions
            yield from _docstrings_below(node, path)
        if isinstance(node, _Documented):
            name = f"{path}.{node.name}"
            text = _docstring_of(node)
            if text:
                yield Docstring(name, _heading(node), text)
            if isinstance(node, ast.ClassDef):
                yield from _docstrings_below(node, name)


def _docstring_of(node: ast.Module | _Documented) -> str:
    text = (ast.get_docstring(node) or "").strip().encode("utf-8", "replace").decode()
    return text if len(text) >= SHORTEST else ""


def _heading(node: _Documented) -> str:
    if isinstance(node, ast.ClassDef):
        return f"class {node.name}"
    names = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args)]
    names += [f"*{node.args.vararg.arg}"] if node.args.vararg else []
    names += [argument.arg for argument in node.args.kwonlyargs]
    names += [f"**{node.args.kwarg.arg}"] if node.args.kwarg else []
    return f"def {node.name}({', '.join(names)})"


def _normalize_space(text: str) -> str:
    return " ".join(text.split())


def select_modules(docs: list[Docstring], count: int) -> list[Docstring]:
    """Whole modules, in an order that depends on their names only, until there are `count` texts."""
    sizes = Counter(doc.module for doc in docs)
    selected: set[str] = set()
    total = 0
    for module in sorted(sizes, key=_shuffle_key):
        if total >= count:
            break
        if SIBLINGS <= sizes[module] <= count // 4:
            selected.add(module)
            total += sizes[module]
    return [doc for doc in docs if doc.module in selected]


def split(docs: list[Docstring], count: int, each: int = 3) -> Split:
    """Hold out up to `count` texts as questions, at most `each` per module, from modules that keep at least `SIBLINGS` texts.

    A docstring is held out only if neither half of it occurs anywhere else in the library word for word.
    """
    sizes = Counter(doc.module for doc in docs)
    all_text = "\n".join(_normalize_space(doc.text) for doc in docs)
    held_out_count: Counter[str] = Counter()
    held_out: list[Docstring] = []
    for doc in sorted(docs, key=lambda doc: _shuffle_key(doc.id)):
        if len(held_out) == count:
            break
        length_fits = QUESTION[0] <= len(doc.text) and len(doc.text.encode()) <= QUESTION[1]
        if (
            not doc.heading
            or not length_fits
            or sizes[doc.module] < SIBLINGS + each
            or held_out_count[doc.module] == each
        ):
            continue
        if all(all_text.count(_normalize_space(half)) == 1 for half in _split_halves(doc.docstring)):
            held_out.append(doc)
            held_out_count[doc.module] += 1
    held_out_ids = {doc.id for doc in held_out}
    return Split([doc for doc in docs if doc.id not in held_out_ids], held_out)


def _shuffle_key(name: str) -> bytes:
    """Sort key of a fixed pseudo-random order: the same on every machine, independent of the other names."""
    return blake2b(name.encode(), digest_size=8).digest()


def _split_halves(text: str) -> tuple[str, str]:
    middle = len(text) // 2
    return text[:middle], text[middle:]


def write_corpus(path: Path, corpus: list[Docstring]) -> None:
    """Write texts as JSONL: `id`, `text`; atomically."""
    _write(path, [{"id": doc.id, "text": doc.text} for doc in corpus])


def write_questions(path: Path, questions: list[Docstring]) -> None:
    """Write held-out texts as JSONL: `id`, `prompt` (the heading), `completion` (the docstring); atomically."""
    _write(
        path, [{"id": doc.id, "prompt": doc.heading + "\n", "completion": doc.docstring + "\n"} for doc in questions]
    )


def _write(path: Path, records: list[dict[str, str]]) -> None:
    with whole_file(path) as hidden:
        hidden.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def read_records(path: Path) -> list[dict[str, str]]:
    """Read a JSONL file written by this module."""
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]
