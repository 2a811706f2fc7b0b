"""The layers hold: who imports whom, what a module says of itself, and that the package lists what there is."""

import ast
import tomllib
from collections import Counter
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from places import ROOT

LAYERS = ("engine", "plugins", "store")
MODULES = sorted(path for layer in LAYERS for path in (ROOT / layer).rglob("*.py"))
PACKAGE = [*MODULES, *(path for path in (ROOT / "cli.py", ROOT / "__main__.py") if path.exists())]

ORDER = (
    "store",
    "engine/runtime",
    "engine/interface",
    "engine/arrays/precision",
    "engine/arrays/kernels",
    "engine/arrays/scan",
    "engine/arrays/moments",
    "engine/arrays/linalg",
    "engine/arrays/ranks",
    "engine/arrays/greedy",
    "engine/recovery",
    "engine/sketches",
    "engine/data",
    "engine/models",
    "engine/ingest",
    "engine/fitting",
    "engine/steering",
    "engine/results",
    "engine/attribution",
    "engine/evaluation",
    "engine/selection",
    "engine/retraining",
    "engine/presentation",
    "engine/api",
    "engine/demo",
    "engine/commands",
    "plugins",
    "plugins/conformance",
    "cli",
    "__main__",
)
"""Rooms and loose files from the foundation up: each imports only what stands above it in this list."""
ALONE = {
    "engine/interface": ("store",),
    "engine/steering": (*ORDER[: ORDER.index("engine/steering")],),
    "plugins": (*ORDER[: ORDER.index("engine/results")],),
}
"""Rooms that may import less than all that stands above them: the contract, and what authors of methods use."""


def name_of(path: Path) -> str:
    """A module's path below the root."""
    return path.relative_to(ROOT).as_posix()


def stem_of(path: Path) -> str:
    """A module's path below the root, as imports name it."""
    return name_of(path).removesuffix(".py").removesuffix("/__init__")


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


def room_of(path: str) -> str:
    """The room (or loose file) of a module; the longest name that fits."""
    return max((room for room in ORDER if is_below(path, room)), key=len, default="")


def arrows(module: Path) -> Iterator[tuple[str, str]]:
    """Rooms that a module imports, with what it names there; packages above it, which hold nothing, are left out."""
    own = room_of(stem_of(module))
    for target in relative_imports(module):
        room = room_of(target)
        if room and room != own:
            yield room, target


@pytest.mark.parametrize("module", PACKAGE, ids=name_of)
def test_every_module_is_in_a_room_of_the_list(module):
    assert room_of(stem_of(module)) or module.name == "__init__.py"


@pytest.mark.parametrize("room", ORDER)
def test_a_room_imports_only_rooms_above_it(room):
    allowed = ALONE.get(room, ORDER[: ORDER.index(room)])
    wrong = [
        f"{name_of(module)} imports {target}"
        for module in PACKAGE
        if room_of(stem_of(module)) == room
        for there, target in arrows(module)
        if there not in allowed
    ]
    assert wrong == []


def test_steering_is_imported_by_plugins_alone():
    importers = {room_of(stem_of(m)) for m in PACKAGE for there, _ in arrows(m) if there == "engine/steering"}
    assert importers == {"plugins"}


def test_no_files_import_each_other_in_a_circle():
    stems = {stem_of(module) for module in PACKAGE}
    graph = {stem_of(module): stems & set(relative_imports(module)) - {stem_of(module)} for module in PACKAGE}
    tuple(TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle


def test_no_two_files_have_one_name():
    names = Counter(m.stem for m in MODULES if m.stem != "__init__" and "commands" not in m.parts)
    assert [name for name, count in names.items() if count > 1] == []


def test_no_two_classes_have_one_name():
    classes = Counter(
        node.name for module in PACKAGE for node in ast.walk(parsed(module)) if isinstance(node, ast.ClassDef)
    )
    assert [name for name, count in classes.items() if count > 1] == []


def test_the_check_above_understands_every_form_of_import(tmp_path, monkeypatch):
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    module = tmp_path / "engine/arrays/x.py"
    module.parent.mkdir(parents=True)
    module.write_text(
        "from ..data.documents import read\nfrom ... import cli\n"
        "def late():\n    from ...store.layout import Block\n    from .. import results\n    from . import stream\n"
    )
    found = set(relative_imports(module))
    assert {"engine/data/documents", "cli", "store/layout", "engine/results", "engine/arrays/stream"} <= found


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
    assert not any(isinstance(node, ast.Import | ast.ImportFrom) for node in root.body)


def test_the_root_s_types_are_of_its_names():
    stub = ast.parse((ROOT / "__init__.pyi").read_text("utf-8"))
    typed = {
        alias.asname or alias.name for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    namespace: dict[str, object] = {"__name__": "headwater"}
    exec(compile((ROOT / "__init__.py").read_text("utf-8"), "__init__.py", "exec"), namespace)
    assert typed == set(namespace["_WHERE"]) == {*namespace["__all__"], "open"}
