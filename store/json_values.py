"""Types of JSON values. Knows nothing of files, or of what the values mean.

A function that writes JSON takes a `JsonObject`; one that builds it returns `JsonFields`. A value that was read is a
`JsonValue`: a type checker asks for an `isinstance` before it is used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

JsonValue: TypeAlias = "bool | int | float | str | Sequence[JsonValue] | Mapping[str, JsonValue] | None"
"""Any JSON value."""
JsonObject: TypeAlias = Mapping[str, JsonValue]
"""A JSON object, read only."""
JsonFields: TypeAlias = dict[str, JsonValue]
"""A JSON object that is being built."""
ParsedJson: TypeAlias = dict[str, Any]
"""A JSON object as it was parsed, or built to be printed: nothing is known of its values."""
ParsedMapping: TypeAlias = Mapping[str, Any]
"""The same, read only."""
