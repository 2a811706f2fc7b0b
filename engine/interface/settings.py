"""A method's settings as the fields of a frozen dataclass: to JSON and back, typed by their defaults. Knows no method."""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

from ...store.errors import SettingsError
from ...store.json_values import JsonFields, JsonObject, JsonValue

_CONTRACT = tuple(f"{__name__.rpartition('.')[0]}.{name}" for name in ("method", "subset_method"))
"""Modules of the contract's classes, whose settings every method of their kind has."""


@dataclass(frozen=True)
class Settings:
    """Base of a method: its fields are its settings. Each has a default and keeps the default's type."""

    def settings(self) -> JsonFields:
        """All settings as JSON values, which are stored and compared as a whole."""
        values = {field.name: getattr(self, field.name) for field in _fields(type(self))}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    @classmethod
    def from_settings(cls, settings: JsonObject) -> Self:
        """An instance with these settings, and defaults for all others.

        Raises:
            SettingsError: a setting is unknown or of the wrong type.
        """
        fields = {field.name: field for field in _fields(cls)}
        unknown = sorted(set(settings) - set(fields))
        if unknown:
            text = f"no setting {', '.join(unknown)}; the settings are {', '.join(fields)}"
            raise SettingsError(text, hint=close_name(unknown[0], fields))
        return cls(**{name: _typed(name, value, fields[name].default) for name, value in settings.items()})

    @classmethod
    def records_all_but(cls, settings: JsonObject, *names: str) -> bool:
        """Whether these are the settings that a store recorded before `names` were added: all others are there, none of these.

        Stores record all settings; the command line names some. A method that gets a new setting reads by this what it has to be
        for older rows.
        """
        return {field.name for field in _fields(cls)} - set(settings) == set(names)


def settings_fault(kind: type[Settings]) -> str:
    """What is wrong with a method's settings: one has no default, or the name of a setting that the method inherits; or empty."""
    for field in dataclasses.fields(kind):
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            return f"setting {field.name} has no default"
    bases = [base for base in kind.__mro__[1:] if dataclasses.is_dataclass(base) and base.__module__ in _CONTRACT]
    inherited = {field.name for base in bases for field in dataclasses.fields(base)}
    own = set(inspect.get_annotations(kind))
    shadowed = sorted(own & inherited)
    return f"setting {shadowed[0]} has the name of a setting that every method of its kind has" if shadowed else ""


def close_name(name: str, names: Iterable[str]) -> str:
    """A hint at the one of `names` that is most like a wrong name; empty if none is."""
    import difflib

    close = difflib.get_close_matches(name, list(names), 1)
    return f"did you mean {close[0]}?" if close else ""


def _fields(kind: type[Settings]) -> list[dataclasses.Field[Any]]:
    """All settings, the class's own before those of its base."""
    return sorted(dataclasses.fields(kind), key=lambda field: bool(field.kw_only))


def _typed(name: str, value: JsonValue, default: object) -> JsonValue:
    """`value` as the type of its default: an int is converted to float, nothing else is converted.

    A tuple is a list in JSON; its items have the type of the default's first item, if there is one. On the command line a tuple
    of strings is written with commas.
    """
    expected = type(default)
    if isinstance(default, tuple) and isinstance(value, str) and all(isinstance(item, str) for item in default):
        value = [part for part in value.split(",") if part]
    if isinstance(default, tuple) and isinstance(value, list | tuple):
        return tuple(_typed(name, item, default[0]) for item in value) if default else tuple(value)
    if expected is float and type(value) is int:
        return float(value)
    if type(value) is not expected or (isinstance(value, float) and not math.isfinite(value)):
        raise SettingsError(f"setting {name} must be {expected.__name__}, like its default {default!r}; got {value!r}")
    return value
