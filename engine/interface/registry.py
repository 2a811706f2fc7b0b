"""From a method's name to its class, by entry point. Built-in methods come in by the same door as anyone's.

Entry-point group `headwater.methods`: name = "package.module:Class". Listing imports nothing, so that a broken plugin is a
line in the list and not a failure of it; only the method asked for is imported. Knows no method by name.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import Distribution, EntryPoint, distributions
from importlib.util import find_spec
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
    """Name → who offers it. A distribution that is twice on the path counts once, as Python would import it."""
    found: dict[str, list[MethodEntry]] = {}
    for offer in dict.fromkeys(_all_offers()):
        found.setdefault(offer.name, []).append(offer)
    return dict(sorted(found.items()))


def _all_offers() -> Iterator[MethodEntry]:
    """One distribution at a time, so that one with unreadable metadata hides no other."""
    seen: set[str] = set()
    for distribution in distributions():
        try:
            name, version = distribution.name or "unnamed", distribution.version or "of no version"
        except Exception:  # metadata can be missing or damaged in many ways; the folder alone names nobody
            name, version = "unnamed", "of no version"
        known = name.lower().replace("_", "-").replace(".", "-")
        if known in seen and name != "unnamed":
            continue
        seen.add(known)
        yield from _offers_of(distribution, name, f"{name} {version}")


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
    """First line of a module's docstring, and what is wrong with its file; nothing is run."""
    try:
        spec = _spec(module)
        if spec is None:
            return "", f"module {module} is not there"
        source = getattr(spec.loader, "get_source", lambda name: None)(module)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source or "")  # a compiled module has no source, and is none the worse for it
    except SyntaxError as error:
        where = f" in line {error.lineno}" if error.lineno else ""
        return "", f"{module} does not parse{where}: {_first_line(error.msg)}"
    except Exception as error:  # whatever a plugin's file or finder does, the list goes on
        return "", f"{module} cannot be read: {_told(error)}"
    return (ast.get_docstring(tree) or "").split("\n")[0], ""


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
    names = list(known)
    close = difflib.get_close_matches(name, names, 1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    return f"no method {name}{hint}; installed: {', '.join(names) or 'none'}"
