"""Finds installed methods by name, from entry points. Built-in methods come in by the same door as anyone's.

Entry-point group `headwater.methods`: name = "package.module:Class". Listing imports nothing, so that a broken plugin is a
line in the list and not a failure of it; only the method asked for is imported. Knows no method by name.
"""

from __future__ import annotations

import inspect
import sys
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import Distribution, EntryPoint, distributions, entry_points
from importlib.util import find_spec
from types import CodeType
from typing import Any

from ...store.errors import BrokenMethod, ClashingMethods, OutdatedMethod, UnknownMethod
from .method import API, Method

GROUP = "headwater.methods"


@dataclass(frozen=True, slots=True)
class MethodInfo:
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


@dataclass(frozen=True, slots=True)
class MethodEntry:
    """A name, and what one distribution has behind it."""

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
        found = EntryPoint.pattern.match(self.target)
        if not found or not found["attr"]:
            return f"its entry point {self.target!r} is not module:Class"
        return ""

    def load(self) -> Any:
        """Import it."""
        return EntryPoint(self.name, self.target, GROUP).load()


def offers() -> dict[str, list[MethodEntry]]:
    """Name → who offers it. The path is searched once a process, and again when `sys.path` is another one.

    A distribution that is twice on the path counts once, as Python would import it.
    """
    by_name: dict[str, list[MethodEntry]] = {}
    for offer in _offers_on(tuple(sys.path)):
        by_name.setdefault(offer.name, []).append(offer)
    return dict(sorted(by_name.items()))


@lru_cache(maxsize=1)
def _offers_on(path: tuple[str, ...]) -> tuple[MethodEntry, ...]:
    """What every distribution on a path offers.

    The standard search reads entry points alone, no other metadata, and takes a few milliseconds; but a single damaged file
    ends it, so then each distribution is asked on its own.
    """
    try:
        points = entry_points(group=GROUP)
        owners: dict[int, str] = {}  # of one metadata file each, however many methods it offers
        for point in points:
            owners.setdefault(id(point.dist), _owner(point.dist)[1])
        offered = [MethodEntry(point.name, owners[id(point.dist)], point.value) for point in points]
    except Exception:  # metadata can be damaged in many ways
        offered = list(_offers_one_by_one())
    return tuple(dict.fromkeys(offered))


def _owner(distribution: Any) -> tuple[str, str]:
    """A distribution's name, and name with version as messages say it."""
    try:
        text = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
    except Exception:  # metadata can be missing or damaged; the folder alone names nobody
        text = ""
    headers = dict(line.split(": ", 1) for line in text.partition("\n\n")[0].split("\n") if ": " in line)
    name, version = (headers.get(key, "").strip() for key in ("Name", "Version"))
    return name or "unnamed", f"{name or 'unnamed'} {version or 'of no version'}"


def _offers_one_by_one() -> Iterator[MethodEntry]:
    """One distribution at a time, so that one with unreadable metadata hides no other."""
    seen: set[str] = set()
    for distribution in distributions():
        name, owner = _owner(distribution)
        normalized = name.lower().replace("_", "-").replace(".", "-")
        if normalized in seen and name != "unnamed":
            continue
        seen.add(normalized)
        yield from _offers_of(distribution, name, owner)


def _offers_of(distribution: Distribution, name: str, owner: str) -> Iterator[MethodEntry]:
    try:
        yield from (
            MethodEntry(point.name, owner, point.value) for point in distribution.entry_points.select(group=GROUP)
        )
    except Exception:  # a line that is no entry point, bytes that are no text, …
        if GROUP in _raw_entry_points(distribution):
            yield MethodEntry(name, owner, "")


def _raw_entry_points(distribution: Distribution) -> str:
    try:
        return distribution.read_text("entry_points.txt") or ""
    except (OSError, ValueError):
        return GROUP  # unreadable: possibly ours


def provider_of(name: str) -> str:
    """Name and version of the distribution that offers a method; for errors."""
    offered = offers().get(name.partition("@")[0], [])
    return " and ".join(offer.distribution for offer in offered) or "no installed package"


def list_methods() -> list[MethodInfo]:
    """Every installed method, good or broken. Never fails, imports no plugin."""
    return [_listed(name, those) for name, those in offers().items()]


def _listed(name: str, those: list[MethodEntry]) -> MethodInfo:
    owners = ", ".join(offer.distribution for offer in those)
    target = ", ".join(offer.target for offer in those)
    if len(those) > 1:
        return MethodInfo(name, owners, target, "", "name clash: uninstall all but one")
    fault = those[0].fault
    about, fault = ("", fault) if fault else _about(target.partition(":")[0].strip())
    return MethodInfo(name, owners, target, about, fault)


def _about(module: str) -> tuple[str, str]:
    """First line of a module's docstring, and what is wrong with its file; nothing is run.

    The loader's code object comes from Python's own cache of compiled files: to parse the sources of all built-in methods
    takes 0.15 s.
    """
    try:
        spec = _spec(module)
        if spec is None:
            return "", f"module {module} is not there"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            code = getattr(spec.loader, "get_code", lambda name: None)(module)  # None: an extension module, or a folder
    except SyntaxError as error:
        where = f" in line {error.lineno}" if error.lineno else ""
        return "", f"{module} does not parse{where}: {_first_line(error.msg)}"
    except Exception as error:  # whatever a plugin's file or finder does, the list goes on
        return "", f"{module} cannot be read: {_told(error)}"
    return _first_line(_docstring(code)), ""


def _docstring(code: CodeType | None) -> str:
    """Of a compiled module: what its first statement stores as `__doc__`, or empty."""
    if code is None or code.co_names[:1] != ("__doc__",) or not isinstance(code.co_consts[0], str):
        return ""
    return code.co_consts[0]


def _spec(module: str) -> ModuleSpec | None:
    """Where a module is, found without importing it or its parents."""
    names = module.split(".")
    spec: ModuleSpec | None = find_spec(names[0])
    for count in range(2, len(names) + 1):
        if spec is None or spec.submodule_search_locations is None:
            return None
        spec = PathFinder.find_spec(".".join(names[:count]), list(spec.submodule_search_locations))
    return spec


def load(name: str) -> type[Method]:
    """The class behind a name. What follows an @ tells apart rows that one method made with several settings: rise@1.

    Raises:
        UnknownMethod: nobody offers it; the message lists who is there.
        ClashingMethods: two distributions do.
        BrokenMethod: its import fails, or it is not a concrete Method.
        OutdatedMethod: it was written for another number of the contract.
    """
    known = offers()
    name = name.partition("@")[0]
    those = known.get(name, [])
    if not those:
        raise UnknownMethod(_unknown(name, known))
    if len(those) > 1:
        owners = " and by ".join(offer.distribution for offer in those)
        raise ClashingMethods(f"method {name} is offered by {owners}: uninstall all but one")
    offer = those[0]
    if offer.fault:
        raise BrokenMethod(f"method {name} of {offer.distribution} cannot be loaded: {offer.fault}")
    try:
        found = offer.load()
    except (Exception, SystemExit) as error:  # a plugin may fail in any way at all; each becomes one line
        raise BrokenMethod(f"method {name} of {offer.distribution} does not import: {_told(error)}") from error
    return _checked(name, offer.distribution, found)


def _told(error: BaseException) -> str:
    """An error's type and the first line of what it says."""
    return f"{type(error).__name__}: {_first_line(str(error))}".rstrip(": ")


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]


def _checked(name: str, owner: str, found: object) -> type[Method]:
    if not isinstance(found, type):
        raise BrokenMethod(f"method {name} of {owner} is no class but {type(found).__name__} {found!r}")
    if not issubclass(found, Method):
        raise BrokenMethod(f"method {name} of {owner} is not a Method: class {found.__name__} does not extend it")
    if not isinstance(found.api, int):
        raise BrokenMethod(f"method {name} of {owner} gives {found.api!r} as its plugin API, which is a number")
    if found.api != API:
        who = f"upgrade {owner}" if found.api < API else "upgrade headwater"
        raise OutdatedMethod(
            f"method {name} of {owner} is written for plugin API {found.api}, this is API {API}: {who}"
        )
    if inspect.isabstract(found):
        missing = ", ".join(sorted(found.__abstractmethods__))
        raise BrokenMethod(f"method {name} of {owner} lacks {missing}")
    return found


def _unknown(name: str, known: Iterable[str]) -> str:
    import difflib

    names = list(known)
    close = difflib.get_close_matches(name, names, 1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    return f"no method {name}{hint}; installed: {', '.join(names) or 'none'}"
