"""Members of a method: which ones a store holds, and which of them are asked for. Knows no score.

A member is the same method under another seed, setting or model, stored as `NAME@MEMBER`. The first one is often just `NAME`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ...store.errors import SettingsError
from ...store.json_values import JsonObject
from ..interface.registry import EVERY_MEMBER

ALL = (EVERY_MEMBER,)
"""The labels that stand for all members."""


def method_of(name: str) -> str:
    """The method of a member: what stands before the @."""
    return name.partition("@")[0]


def members_of(names: Sequence[str], name: str) -> list[str]:
    """The members of a method among `names`, in their order; the one without a label first."""
    method = method_of(name)
    return sorted((member for member in names if method_of(member) == method), key=lambda member: member != method)


def chosen_members(members: Sequence[str], name: str, labels: Sequence[str], more: str) -> list[str]:
    """The members with these labels, in their order; all of them for `ALL`.

    A label is what follows the @. The member without one is named by the method. `more`: a command that adds members.

    Raises:
        SettingsError: a label names no member, or there are fewer than two.
    """
    method = method_of(name)
    listed = ", ".join(members) or "none"
    chosen = list(members) if tuple(labels) == ALL else [_member(method, label) for label in labels]
    unknown = [member for member in chosen if member not in members]
    if unknown:
        raise SettingsError(f"{method} has no member {unknown[0]}: its members are {listed}")
    chosen = list(dict.fromkeys(chosen))
    if len(chosen) < 2 <= len(members):
        raise SettingsError(f"--members takes two members or more: --method {chosen[0]} answers from this one")
    if len(chosen) < 2:
        raise SettingsError(f"--members needs two members of {method}, which has {listed}: {more}")
    return chosen


def _member(method: str, label: str) -> str:
    return label if method_of(label) == method else f"{method}@{label}"


def hint(members: Sequence[str]) -> str:
    """The end of an error about a method without a label of which there are members alone; empty if there are none."""
    return (
        f"; its members are {', '.join(members)}: name one, or give attribute or value --members all" if members else ""
    )


def same_but_seed(members: Iterable[tuple[JsonObject, JsonObject]]) -> bool:
    """Whether members, given as settings and their model's fingerprints, differ by their seed alone."""
    first, *others = [({key: value for key, value in own.items() if key != "seed"}, model) for own, model in members]
    return all(other == first for other in others)
