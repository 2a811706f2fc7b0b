"""Reads the record of a fit of before members were fits of their own: it lists base models. Knows no file and no method."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from ...store.errors import StoreMismatch
from .fit_digest import digest_of, fit_settings


def converted(values: Mapping[str, Any], name: str, url: str) -> dict[str, Any]:
    """A record as it is now, from one of before members were fits of their own: it lists base models.

    Raises:
        StoreMismatch: there are several.
    """
    bases, settings = values.get("bases"), values.get("settings")
    if not isinstance(bases, list) or not all(isinstance(base, dict) for base in bases) or not bases:
        return dict(values)
    if not isinstance(settings, dict):
        return {}
    if len(bases) > 1:
        fit = shlex.join(["headwater", "fit", url, "--method", name])
        paths = ",".join(str(base["base"]) for base in bases if base.get("base"))
        raise StoreMismatch(
            f"the fit of {name} holds {len(bases)} base models, which are members now: {fit} --again replaces it by one of the "
            f"store's own model, then {fit} --bases {shlex.quote(paths)} fits the others"
        )
    facts = [
        fit_settings(settings),
        *(values.get(key) for key in ("examples", "corpus", "model")),
        bases[0].get("base"),
        0,
    ]
    now = {key: value for key, value in values.items() if key not in ("bases", "done")}
    settings = {key: value for key, value in settings.items() if key != "bases"}
    return {
        **now,
        "settings": settings,
        **bases[0],
        "draw": 0,
        "done": bool(values.get("done")),
        "of": digest_of(facts),
    }
