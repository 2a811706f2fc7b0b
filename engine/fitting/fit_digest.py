"""What a fit's parameters depend on, as a digest that is written with them. Knows no record and no method."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from ...store.json_values import JsonObject

RECOVERY = ("solver", "regularization", "held_out", "tolerance")
"""Settings of the recovery: they may change after the fit."""


def fit_settings(settings: JsonObject) -> JsonObject:
    """The settings without those of the recovery."""
    return {key: value for key, value in settings.items() if key not in RECOVERY}


def digest_of(facts: Sequence[object]) -> str:
    """The digest of JSON values."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
