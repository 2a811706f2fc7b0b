"""Settings of a method as the fields of a frozen dataclass: to JSON and back, typed by their defaults. Knows no method."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from ...store.errors import SettingsError


@dataclass(frozen=True)
class Settings:
    """What is stored and compared whole. Each field has a default, whose type it keeps."""

    def settings(self) -> dict[str, Any]:
        """All settings, as JSON values: what is stored, and compared whole."""
        values = {one.name: getattr(self, one.name) for one in _fields(type(self))}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Self:
        """One with these settings; fields left out have their defaults.

        Raises:
            SettingsError: a setting is unknown or of the wrong type.
        """
        fields = {one.name: one for one in _fields(cls)}
        unknown = sorted(set(settings) - set(fields))
        if unknown:
            raise SettingsError(f"no setting {', '.join(unknown)}; there are {', '.join(fields)}")
        return cls(**{name: _typed(name, value, fields[name].default) for name, value in settings.items()})


def _fields(kind: type[Settings]) -> list[dataclasses.Field[Any]]:
    """All settings, a class's own before those of its base."""
    return sorted(dataclasses.fields(kind), key=lambda one: bool(one.kw_only))


def _typed(name: str, value: Any, default: Any) -> Any:
    """`value` as the type of its default: an int where a float stands is taken, nothing else is bent.

    JSON writes a tuple as a list; its items are of the type of the default's first one, if there is one. A command line writes
    strings with commas between them.
    """
    wanted = type(default)
    if wanted is tuple and isinstance(value, str) and all(isinstance(item, str) for item in default):
        value = [part for part in value.split(",") if part]
    if wanted is tuple and isinstance(value, list | tuple):
        return tuple(_typed(name, item, default[0]) for item in value) if default else tuple(value)
    if wanted is float and type(value) is int:
        return float(value)
    if type(value) is not wanted or (wanted is float and not math.isfinite(value)):
        raise SettingsError(f"setting {name} is {wanted.__name__} (default {default!r}), not {value!r}")
    return value
