"""From a method's name to its class, by entry point. Built-in methods come in by the same door as anyone's.

Entry-point group `headwater.methods`: name = "package.module:Class". Listing imports nothing, so that a broken plugin is a
line in the list and not a failure of it; only the method asked for is imported. Knows no method by name.
"""

from __future__ import annotations

import ast
import difflib
import inspect
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path

from ..store.errors import BrokenMethod, ClashingMethods, OutdatedMethod, UnknownMethod
from .method import API, Method

GROUP = "headwater.methods"


@dataclass(frozen=True, slots=True)
class Listed:
    """One line of the list of methods."""

    name: str
    """The name that commands take."""
    distribution: str
    """Who provides it, with version; several where names clash."""
    target: str
    """Module and class."""
    about: str
    """First line of the module's docstring."""
    fault: str
    """Why it cannot be used, or empty."""


def installed() -> dict[str, list[EntryPoint]]:
    """Name → its providers; one provider found twice on the path counts once."""
    found: dict[str, dict[tuple[str, str], EntryPoint]] = {}
    for point in entry_points(group=GROUP):
        found.setdefault(point.name, {})[_distribution(point), point.value] = point
    return {name: list(points.values()) for name, points in sorted(found.items())}


def _distribution(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else "unknown distribution"


def list_methods() -> list[Listed]:
    """Every installed method, good or broken. Never fails, imports no plugin."""
    return [_listed(name, points) for name, points in installed().items()]


def _listed(name: str, points: list[EntryPoint]) -> Listed:
    owners = ", ".join(_distribution(point) for point in points)
    target = ", ".join(point.value for point in points)
    if len(points) > 1:
        return Listed(name, owners, target, "", "name clash: uninstall all but one")
    path = _source(points[0].module)
    if path is None:
        return Listed(name, owners, target, "", f"module {points[0].module} is not there")
    try:
        about = (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").split("\n")[0]
    except (OSError, SyntaxError, ValueError) as error:
        return Listed(name, owners, target, "", f"{path} does not parse: {type(error).__name__}")
    return Listed(name, owners, target, about, "")


def _source(module: str) -> Path | None:
    """File of a module, found without importing it or its parents."""
    names = module.split(".")
    try:
        spec: ModuleSpec | None = find_spec(names[0])
    except (ImportError, ValueError):
        return None
    for count in range(2, len(names) + 1):
        if spec is None or spec.submodule_search_locations is None:
            return None
        spec = PathFinder.find_spec(".".join(names[:count]), list(spec.submodule_search_locations))
    return Path(spec.origin) if spec is not None and spec.origin and spec.has_location else None


def load(name: str) -> type[Method]:
    """The class behind a name.

    Raises:
        UnknownMethod: nobody offers it; the message lists who is there.
        ClashingMethods: two distributions do.
        BrokenMethod: its import fails, or it is not a concrete Method.
        OutdatedMethod: it was written for another number of the contract.
    """
    points = installed().get(name, [])
    if not points:
        raise UnknownMethod(_unknown(name, installed()))
    if len(points) > 1:
        raise ClashingMethods(f"method {name} is offered by {' and by '.join(map(_distribution, points))}: "
                              "uninstall all but one")  # fmt: skip
    point, owner = points[0], _distribution(points[0])
    try:
        found = point.load()
    except Exception as error:  # a plugin may fail in any way at all; each becomes one line
        cause = str(error).split("\n")[0]
        raise BrokenMethod(f"method {name} of {owner} does not import: {type(error).__name__}: {cause}") from error
    return _checked(name, owner, found)


def _checked(name: str, owner: str, found: object) -> type[Method]:
    api = getattr(found, "api", None)
    if isinstance(found, type) and api != API:
        who = f"upgrade {owner}" if isinstance(api, int) and api < API else "upgrade headwater"
        raise OutdatedMethod(f"method {name} of {owner} is written for plugin API {api}, this is API {API}: {who}")
    if not (isinstance(found, type) and issubclass(found, Method)):
        raise BrokenMethod(f"method {name} of {owner} is not a Method: {found!r}")
    if inspect.isabstract(found):
        missing = ", ".join(sorted(found.__abstractmethods__))
        raise BrokenMethod(f"method {name} of {owner} lacks {missing}")
    return found


def _unknown(name: str, known: Iterable[str]) -> str:
    names = list(known)
    close = difflib.get_close_matches(name, names, 1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    return f"no method {name}{hint}; installed: {', '.join(names) or 'none'}"
