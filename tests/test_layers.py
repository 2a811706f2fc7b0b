"""The layers hold: who imports whom, what a module says of itself, and that the package lists what there is."""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = ("engine", "plugins", "store")
MODULES = sorted(path for layer in LAYERS for path in (ROOT / layer).rglob("*.py"))
PACKAGE = [*MODULES, *(path for path in (ROOT / "cli.py", ROOT / "__main__.py") if path.exists())]

FORBIDDEN = {
    "store": ("engine", "plugins", "cli"),
    "engine": ("plugins", "cli"),
    "engine/forms": (
        "engine/arrays",
        "engine/intake",
        "engine/answers",
        "engine/utility",
        "engine/demo",
        "engine/commands",
    ),
    "engine/arrays": ("engine/intake", "engine/answers", "engine/utility", "engine/demo", "engine/commands"),
    "engine/intake": ("engine/arrays", "engine/answers", "engine/utility", "engine/demo", "engine/commands"),
    "engine/recovery": ("engine/intake", "engine/answers", "engine/utility", "engine/demo", "engine/commands"),
    "engine/steering": (
        "engine/arrays",
        "engine/recovery",
        "engine/answers",
        "engine/utility",
        "engine/demo",
        "engine/commands",
    ),
    "engine/fitting": (
        "engine/arrays",
        "engine/answers",
        "engine/utility",
        "engine/demo",
        "engine/commands",
    ),
    "plugins": ("cli", "engine/commands"),
} | {f"engine/{part}": ("engine/commands",) for part in ("answers", "evaluation", "truth", "utility", "demo")}


def name_of(path: Path) -> str:
    """A module's path below the root."""
    return path.relative_to(ROOT).as_posix()


def parsed(path: Path) -> ast.Module:
    """A module's syntax tree."""
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def relative_imports(path: Path) -> Iterator[str]:
    """What a module imports of ours, as paths below the root: `from ..store import reader` is store and store/reader."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.ImportFrom) and node.level:
            folder = path.parents[node.level - 1]
            target = folder.joinpath(*(node.module or "").split("."))
            yield name_of(target)
            yield from (name_of(target / alias.name) for alias in node.names)


def absolute_imports(path: Path) -> Iterator[str]:
    """First names of what a module imports absolutely."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.ImportFrom) and not node.level:
            yield (node.module or "").split(".")[0]
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)


def is_below(path: str, folder: str) -> bool:
    """Whether a path is a folder (or module), or something in it."""
    return path == folder or path.startswith(folder + "/")


@pytest.mark.parametrize("layer", FORBIDDEN)
def test_a_layer_imports_nothing_above_or_beside_it(layer):
    wrong = [
        f"{name_of(module)} imports {target}"
        for module in MODULES
        if is_below(name_of(module), layer)
        for target in relative_imports(module)
        if any(is_below(target, other) for other in FORBIDDEN[layer])
    ]
    assert wrong == []


def test_the_check_above_understands_every_form_of_import(tmp_path, monkeypatch):
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    module = tmp_path / "engine/arrays/x.py"
    module.parent.mkdir(parents=True)
    module.write_text(
        "from ..intake.corpus import read\nfrom ... import cli\n"
        "def late():\n    from ...store.layout import Block\n    from .. import answers\n    from . import stream\n"
    )
    found = set(relative_imports(module))
    assert {"engine/intake/corpus", "cli", "store/layout", "engine/answers", "engine/arrays/stream"} <= found


@pytest.mark.parametrize("module", PACKAGE, ids=name_of)
def test_inside_the_package_imports_are_relative(module):
    ours = {"headwater", *LAYERS, "cli"}
    assert ours.isdisjoint(absolute_imports(module))


@pytest.mark.parametrize("module", PACKAGE, ids=name_of)
def test_a_module_says_what_it_is(module):
    assert ast.get_docstring(parsed(module))


def test_no_module_is_a_drawer_for_odds_and_ends():
    odd = {"utils", "util", "common", "helpers", "helper", "misc"}
    assert [name_of(module) for module in PACKAGE if module.stem in odd or odd & set(name_of(module).split("/"))] == []


def test_the_package_lists_the_folders_there_are():
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for layer in LAYERS
        for path in (ROOT / layer).rglob("__init__.py")
    }
    assert sorted(packages) == sorted(["headwater", *(f"headwater.{folder}" for folder in folders)])
    assert {module.parent for module in MODULES} == {ROOT / folder.replace(".", "/") for folder in folders}


def test_the_root_imports_nothing():
    root = parsed(ROOT / "__init__.py")
    assert ast.get_docstring(root)
    assert not any(isinstance(node, ast.Import | ast.ImportFrom) for node in ast.walk(root))
