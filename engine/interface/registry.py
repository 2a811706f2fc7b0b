"""Finds installed methods by name, from entry points. Built-in methods are found in the same way as others.

Entry-point group `headwater.methods`: name = "package.module:Class". Listing imports no plugin, so that a broken one is
still listed; only the requested method is imported. Knows no method by name.
"""

from __future__ import annotations

import inspect
import sys
import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import Distribution, EntryPoint, distributions, entry_points
from importlib.util import find_spec
from types import CodeType

from ...store.errors import BrokenMethod, ClashingMethods, DataError, OutdatedMethod, UnknownMethod
from ...store.names import require_method
from .method import API, Method
from .settings import close_name, settings_fault

GROUP = "headwater.methods"
EVERY_MEMBER = "all"
"""The label that stands for all members of a method."""


@dataclass(frozen=True, slots=True)
class MethodInfo:
    """One line of the list of methods."""

    name: str
    """The name that commands take."""
    distribution: str
    """Name and version of the package that provides it; several if names clash."""
    target: str
    """Module and class."""
    about: str
    """First line of the module's docstring."""
    fault: str
    """Why it cannot be used; empty if it can."""


@dataclass(frozen=True, slots=True)
class MethodEntry:
    """One entry point: a method's name, and the class that one distribution provides for it."""

    name: str
    """The name that commands take."""
    distribution: str
    """Name and version."""
    target: str
    """Module and class, as written; empty where the distribution's entry points cannot be read."""

    @property
    def fault(self) -> str:
        """What is wrong with the entry point itself, or empty."""
        if not self.target:
            return "its entry points cannot be read"
        match = EntryPoint.pattern.match(self.target)
        if not match or not match["attr"]:
            return f"its entry point {self.target!r} is not module:Class"
        return ""

    @property
    def target_names(self) -> tuple[str, str]:
        """The module, and the first part of the class's name in it (A of A.B)."""
        module, _, attribute = self.target.partition(":")
        return module.strip(), attribute.strip().partition(".")[0].partition(" ")[0]

    def load(self) -> object:
        """Import the class (or whatever the entry point names)."""
        return EntryPoint(self.name, self.target, GROUP).load()


def entries_by_name() -> dict[str, list[MethodEntry]]:
    """Name → its entry points. The path is searched once per process, and again after `sys.path` has changed.

    A distribution that is on the path twice counts once: the one that Python would import.
    """
    by_name: dict[str, list[MethodEntry]] = {}
    for entry in _entries_on(tuple(sys.path)):
        by_name.setdefault(entry.name, []).append(entry)
    return dict(sorted(by_name.items()))


@lru_cache(maxsize=1)
def _entries_on(path: tuple[str, ...]) -> tuple[MethodEntry, ...]:
    """The entry points of all distributions on a path.

    The standard search reads no other metadata and takes a few milliseconds, but it fails if a single file is damaged; then each
    distribution is read separately.
    """
    try:
        points = entry_points(group=GROUP)
        owners: dict[int, str] = {}  # metadata is read once per distribution, however many methods it has
        for point in points:
            owners.setdefault(id(point.dist), _owner(point.dist)[1])
        entries = [MethodEntry(point.name, owners[id(point.dist)], point.value) for point in points]
    except Exception:  # metadata can be damaged in many ways
        entries = list(_entries_one_by_one())
    return tuple(dict.fromkeys(entries))


def _owner(distribution: Distribution | None) -> tuple[str, str]:
    """A distribution's name, and its name with version for messages."""
    text = ""
    if distribution:
        with suppress(Exception):  # metadata can be missing or damaged; then the distribution has no name
            text = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
    headers = dict(line.split(": ", 1) for line in text.partition("\n\n")[0].split("\n") if ": " in line)
    name, version = (headers.get(key, "").strip() for key in ("Name", "Version"))
    return name or "unnamed", f"{name or 'unnamed'} {version or 'of no version'}"


def _entries_one_by_one() -> Iterator[MethodEntry]:
    """Entry points of one distribution at a time, so that unreadable metadata of one does not hide the others."""
    seen: set[str] = set()
    for distribution in distributions():
        name, owner = _owner(distribution)
        normalized = name.lower().replace("_", "-").replace(".", "-")
        if normalized in seen and name != "unnamed":
            continue
        seen.add(normalized)
        yield from _entries_of(distribution, name, owner)


def _entries_of(distribution: Distribution, name: str, owner: str) -> Iterator[MethodEntry]:
    try:
        yield from (
            MethodEntry(point.name, owner, point.value) for point in distribution.entry_points.select(group=GROUP)
        )
    except Exception:  # a line that is not an entry point, bytes that are not text, …
        if GROUP in _raw_entry_points(distribution):
            yield MethodEntry(name, owner, "")


def _raw_entry_points(distribution: Distribution) -> str:
    try:
        return distribution.read_text("entry_points.txt") or ""
    except (OSError, ValueError):
        return GROUP  # unreadable, so it may name methods: the caller looks for GROUP in the text


def distribution_of(name: str) -> str:
    """Name and version of the distribution that provides a method; for errors."""
    entries = entries_by_name().get(name.partition("@")[0], [])
    return " and ".join(entry.distribution for entry in entries) or "no installed package"


def list_methods() -> list[MethodInfo]:
    """All installed methods, broken ones included. Never fails, imports no plugin."""
    return [_listed(name, entries) for name, entries in entries_by_name().items()]


def _listed(name: str, entries: list[MethodEntry]) -> MethodInfo:
    owners = ", ".join(entry.distribution for entry in entries)
    target = ", ".join(entry.target for entry in entries)
    if len(entries) > 1:
        return MethodInfo(name, owners, target, "", "name clash: uninstall all but one")
    fault = entries[0].fault
    about, fault = ("", fault) if fault else _about(*entries[0].target_names)
    return MethodInfo(name, owners, target, about, fault)


def _about(module: str, attribute: str) -> tuple[str, str]:
    """First line of a module's docstring, and what is wrong with its file. The module is not executed.

    The loader's code object comes from Python's cache of compiled files: parsing the sources of all built-in methods would take
    0.15 s.
    """
    try:
        spec = _spec(module)
        if spec is None:
            return "", f"there is no module {module}"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            code = getattr(spec.loader, "get_code", lambda name: None)(module)  # None: an extension module, or a folder
    except SyntaxError as error:
        where = f" in line {error.lineno}" if error.lineno else ""
        return "", f"{module} does not parse{where}: {_first_line(error.msg)}"
    except Exception as error:  # whatever a plugin's file or finder raises, the list continues
        return "", f"{module} cannot be read: {_summary(error)}"
    return _first_line(_docstring(code)), _missing_name(code, module, attribute)


def _missing_name(code: CodeType | None, module: str, attribute: str) -> str:
    """An error text if a module's code does not mention the class of an entry point; empty if the module may define it."""
    if code is None or attribute in code.co_names or {"__getattr__", "*"} & {*code.co_names, *code.co_consts}:
        return ""
    if any(isinstance(value, tuple) and "*" in value for value in code.co_consts):  # from … import *
        return ""
    return f"{module} has no {attribute}"


def _docstring(code: CodeType | None) -> str:
    """The docstring of a compiled module, which its first statement stores as `__doc__`; or empty."""
    if code is None or code.co_names[:1] != ("__doc__",) or not isinstance(code.co_consts[0], str):
        return ""
    return code.co_consts[0]


def _spec(module: str) -> ModuleSpec | None:
    """A module's spec, without importing the module or its parents."""
    names = module.split(".")
    spec: ModuleSpec | None = find_spec(names[0])
    for count in range(2, len(names) + 1):
        if spec is None or spec.submodule_search_locations is None:
            return None
        spec = PathFinder.find_spec(".".join(names[:count]), list(spec.submodule_search_locations))
    return spec


def load(name: str) -> type[Method]:
    """The class of a method. The part of `name` after an @ is ignored: it names a member, such as another seed (rise@1).

    Raises:
        UnknownMethod: no installed package has it; the message lists the installed methods.
        DataError: a store cannot hold rows under the name, or the label is the one that stands for all members.
        ClashingMethods: two distributions have it.
        BrokenMethod: its import fails, or it is not a concrete Method.
        OutdatedMethod: it was written for another number of the contract.
    """
    installed = entries_by_name()
    given, name = name, name.partition("@")[0]
    entries = installed.get(name, [])
    if not entries:
        close = close_name(name, installed)
        raise UnknownMethod(
            f"no method {name}; installed: {', '.join(installed) or 'none'}",
            hint=close or "headwater methods lists them",
        )
    require_method(given)
    if given == f"{name}@{EVERY_MEMBER}":
        raise DataError(f"{given} cannot name a member: {EVERY_MEMBER} stands for all members of {name}")
    if len(entries) > 1:
        owners = " and by ".join(entry.distribution for entry in entries)
        raise ClashingMethods(f"method {name} is provided by {owners}", hint="uninstall all but one")
    entry = entries[0]
    if entry.fault:
        raise BrokenMethod(f"method {name} of {entry.distribution} cannot be loaded: {entry.fault}")
    try:
        loaded = entry.load()
    except (Exception, SystemExit) as error:  # a plugin may raise anything; each error becomes one line
        raise BrokenMethod(f"method {name} of {entry.distribution} does not import: {_summary(error)}") from error
    return _checked(name, entry.distribution, loaded)


def _summary(error: BaseException) -> str:
    """An error's type and the first line of its message."""
    return f"{type(error).__name__}: {_first_line(str(error))}".rstrip(": ")


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]


def _checked(name: str, owner: str, loaded: object) -> type[Method]:
    if not isinstance(loaded, type):
        raise BrokenMethod(f"method {name} of {owner} is not a class: it is {type(loaded).__name__} {loaded!r}")
    if not issubclass(loaded, Method):
        raise BrokenMethod(
            f"method {name} of {owner}: class {loaded.__name__} does not extend headwater.plugins.Method"
        )
    if not isinstance(loaded.api, int):
        raise BrokenMethod(f"method {name} of {owner} has {loaded.api!r} as its plugin API, which must be a number")
    if loaded.api != API:
        who = f"upgrade {owner}" if loaded.api < API else "upgrade headwater"
        raise OutdatedMethod(
            f"method {name} of {owner} is written for plugin API {loaded.api}, this headwater has API {API}", hint=who
        )
    if inspect.isabstract(loaded):
        missing = ", ".join(sorted(loaded.__abstractmethods__))
        raise BrokenMethod(f"method {name} of {owner} lacks {missing}")
    if fault := settings_fault(loaded):
        raise BrokenMethod(f"method {name} of {owner}: {fault}")
    return loaded
