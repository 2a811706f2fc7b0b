"""The demo's corpus: documentation strings of Python's standard library, some held out as queries.

Sources are parsed, never imported. A text is what a reader of the source sees first, `def name(arguments)` or `class Name`
with its docstring; neither module nor outer class is in it, they are in the id alone, so that no words give the answer
away. Knows no model, no store, no method.
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
from ...store.files import whole_file

SHORTEST = 40  # characters: below, a docstring says too little to be an example of anything
QUESTION = (160, 480)  # characters of a held-out text: some sentences, and no more tokens than a context of 512
SIBLINGS = 8  # texts that a module needs for one of its own to be asked about
_SKIPPED = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "turtledemo", "pydoc_data",
            "ensurepip", "__pycache__", "__phello__", "lib-dynload"}  # fmt: skip
_Documented = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(frozen=True, slots=True)
class Docstring:
    """One documented thing."""

    id: str
    """Module and qualified name: `logging.handlers.SocketHandler.emit`."""
    heading: str
    """`def name(arguments)` or `class Name`; of a module "", so that its name is not in its text."""
    docstring: str
    """Without the indentation that the source gives it."""

    @property
    def text(self) -> str:
        """The training example."""
        return f"{self.heading}\n{self.docstring}\n".lstrip()

    @property
    def module(self) -> str:
        """See :func:`module_of`."""
        return module_of(self.id)


@dataclass(frozen=True, slots=True)
class Split:
    """What is trained on, and what is asked."""

    corpus: list[Docstring]
    """In the order of their ids."""
    questions: list[Docstring]
    """In an order that only their ids decide."""


def module_of(example_id: str) -> str:
    """The name one imports: `asyncio` for `asyncio.tasks.Task.cancel`, and for a piece `asyncio.tasks#2` of a long text."""
    return example_id.partition("#")[0].partition(".")[0]


def standard_library() -> Path:
    """Folder of the running Python's standard library."""
    return Path(sysconfig.get_path("stdlib"))


def docstrings(root: Path) -> list[Docstring]:
    """Every documented module, class and function below `root` that is public enough to be read, each text once.

    Raises:
        CorpusError: there are no sources (a Python packed into one file, or without its library's sources).
    """
    found: dict[str, Docstring] = {}
    texts: set[str] = set()
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if _SKIPPED.intersection(parts) or parts[0].startswith("_") or "-" in "".join(parts):
            continue
        name = ".".join(parts).removesuffix(".__init__")
        for doc in _of_file(path, name):
            words = _squeezed(doc.text)
            if doc.id not in found and words not in texts:
                found[doc.id] = doc
                texts.add(words)
    if not found:
        raise CorpusError(f"{root} holds no documented Python source to build the demo's corpus from")
    return [found[name] for name in sorted(found)]


def _of_file(path: Path, module: str) -> Iterator[Docstring]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # other people's invalid escapes
            tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError):  # templates and bad-on-purpose files
        return
    text = _cleaned(tree)
    if text:
        yield Docstring(module, "", text)
    yield from _below(tree, module)


def _below(parent: ast.AST, path: str) -> Iterator[Docstring]:
    for node in ast.iter_child_nodes(parent):
        if isinstance(node, ast.If | ast.Try | ast.ExceptHandler):  # defined on a condition, but there to be read
            yield from _below(node, path)
        if isinstance(node, _Documented):
            name = f"{path}.{node.name}"
            text = _cleaned(node)
            if text:
                yield Docstring(name, _heading(node), text)
            if isinstance(node, ast.ClassDef):
                yield from _below(node, name)


def _cleaned(node: ast.Module | _Documented) -> str:
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


def _squeezed(text: str) -> str:
    return " ".join(text.split())


def smaller(docs: list[Docstring], count: int) -> list[Docstring]:
    """Whole modules, in an order that their names decide, until there are `count` texts."""
    sizes = Counter(doc.module for doc in docs)
    kept: set[str] = set()
    total = 0
    for module in sorted(sizes, key=_order):
        if total >= count:
            break
        if SIBLINGS <= sizes[module] <= count // 4:
            kept.add(module)
            total += sizes[module]
    return [doc for doc in docs if doc.module in kept]


def split(docs: list[Docstring], count: int, each: int = 3) -> Split:
    """Hold out up to `count` texts, `each` of a module at most, from modules that keep enough others.

    Only a docstring can be held out of which neither half stands anywhere else in the library, word for word.
    """
    sizes = Counter(doc.module for doc in docs)
    everything = "\n".join(_squeezed(doc.text) for doc in docs)
    taken: Counter[str] = Counter()
    chosen: list[Docstring] = []
    for doc in sorted(docs, key=lambda doc: _order(doc.id)):
        if len(chosen) == count:
            break
        fits = QUESTION[0] <= len(doc.text) and len(doc.text.encode()) <= QUESTION[1]
        if not doc.heading or not fits or sizes[doc.module] < SIBLINGS + each or taken[doc.module] == each:
            continue
        if all(everything.count(_squeezed(half)) == 1 for half in _halves(doc.docstring)):
            chosen.append(doc)
            taken[doc.module] += 1
    out = {doc.id for doc in chosen}
    return Split([doc for doc in docs if doc.id not in out], chosen)


def _order(name: str) -> bytes:
    """A fixed shuffle: the same on every machine, whatever else is there."""
    return blake2b(name.encode(), digest_size=8).digest()


def _halves(text: str) -> tuple[str, str]:
    middle = len(text) // 2
    return text[:middle], text[middle:]


def write_corpus(path: Path, corpus: list[Docstring]) -> None:
    """Texts as JSONL: `id`, `text`. The file appears whole or not at all."""
    _write(path, [{"id": doc.id, "text": doc.text} for doc in corpus])


def write_questions(path: Path, questions: list[Docstring]) -> None:
    """Held-out texts as JSONL: `id`, `prompt` (the heading), `completion` (the docstring)."""
    _write(
        path, [{"id": doc.id, "prompt": doc.heading + "\n", "completion": doc.docstring + "\n"} for doc in questions]
    )


def _write(path: Path, records: list[dict[str, str]]) -> None:
    with whole_file(path) as hidden:
        hidden.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def read_records(path: Path) -> list[dict[str, str]]:
    """The records of a file written by this module."""
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]
