"""What a fit leaves in the store: its record, and the parameters for each base model. Knows no method by name.

methods/NAME/state/fit                     what was fitted: settings, examples, corpus, bases, and how many of these are done
methods/NAME/state/base0/operators         of the first base model
methods/NAME/state/base0/training          where its training stands, until it is done
shards/0/hidden_states/NAME.base0/         hidden states of the examples under it
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...store.errors import BrokenMethod, SettingsError, StoreDamaged, StoreMismatch, StoreMissing
from ...store.feature_store import EXAMPLES, FeatureStore, method_group
from ...store.layout import Array
from ...store.state import ROOT, has_state, read_state, whole_state
from ..interface.registry import load
from ..interface.subset_method import SubsetMethod
from ..recovery.recover import PURSUITS, Recovery

RECORD = "fit"
RECOVERY = ("solver", "regularization", "held_out", "tolerance")
"""Settings that matter when a query is asked, and bind no fit."""


def state_folder(store: FeatureStore, name: str) -> Path:
    """Where a method's fit is kept."""
    return store.path / method_group(name) / "state"


def corpus_of(store: FeatureStore) -> dict[str, Any]:
    """What a fit must agree with: how many examples, of which files, under which model."""
    there = store.provenance
    return {
        "examples": store.rows(EXAMPLES),
        "corpus": [one["digest"] for one in there["sources"]],
        "model": there["model"],
    }


def recovery_of(method: SubsetMethod) -> Recovery:
    """How a method's answers are recovered.

    Raises:
        SettingsError: settings out of range.
    """
    if method.solver not in PURSUITS:
        return Recovery(method.solver, method.regularization, 0, method.held_out, method.tolerance)
    if method.regularization != int(method.regularization):
        raise SettingsError(f"of {method.solver} regularization is a number of causes, not {method.regularization:g}")
    return Recovery(method.solver, 0.0, int(method.regularization), method.held_out, method.tolerance)


def read_record(store: FeatureStore, name: str) -> dict[str, Any] | None:
    """A fit's record, if there is one.

    Raises:
        StoreDamaged: there is one that cannot be understood.
    """
    folder = state_folder(store, name) / RECORD
    if store.remote:
        return None
    with suppress(StoreDamaged):
        state = read_state(folder)
        if state is None:
            return None
        if _is_record(state.values):
            return dict(state.values)
    raise StoreDamaged(f"{folder} is no record of a fit: headwater fit --again makes one")


def _is_record(found: Any) -> bool:
    """Whether a record says what one must, as it must."""
    if not isinstance(found, dict) or not {"settings", "examples", "corpus", "model", "bases", "done"} <= set(found):
        return False
    bases, done = found["bases"], found["done"]
    kinds = (
        isinstance(found["settings"], dict) and isinstance(found["examples"], int) and isinstance(bases, list) and bases
    )
    each = all(
        isinstance(one, dict) and isinstance(one.get("base"), str) and isinstance(one.get("made"), dict)
        for one in bases
    )
    named = each and all("model" in one["made"] for one in bases[: done if isinstance(done, int) else 0])
    return bool(kinds and each and named and isinstance(done, int) and 0 <= done <= len(bases))


def fits_of(store: FeatureStore) -> dict[str, dict[str, Any]]:
    """Method → record, of all fits beside a store."""
    folders = [] if store.remote else sorted(store.path.glob(f"methods/*/state/{RECORD}"))
    found = {folder.parts[-3]: read_record(store, folder.parts[-3]) for folder in folders if has_state(folder)}
    return {name: record for name, record in found.items() if record}


@dataclass(frozen=True, slots=True)
class StoredFit:
    """A fit that is done."""

    name: str
    method: SubsetMethod
    rows: int
    """N."""
    bases: tuple[str, ...]
    """Folders of base models, or files of arrays; "" is the store's own."""
    made: tuple[Mapping[str, Any], ...]
    """What each base's queries must agree with."""
    digests: tuple[str, ...]
    """What each base's operators must be of."""
    folder: Path

    def operators(self, base: int) -> dict[str, Array]:
        """Of a base.

        Raises:
            StoreDamaged: they are gone, or not whole.
        """
        folder = self.folder / f"base{base}" / "operators"
        found = whole_operators(folder, self.digests[base])
        if found is None:
            raise StoreDamaged(f"{folder} is missing, not whole, or of another fit: headwater fit makes it anew")
        return found


def fitted(store: FeatureStore, name: str) -> StoredFit:
    """A method's fit.

    Raises:
        StoreMissing: there is none, or it is not finished. StoreMismatch: it is of other examples than the store has now.
        BrokenMethod: the method measures nothing.
    """
    kind = load(name)
    if not issubclass(kind, SubsetMethod):
        raise BrokenMethod(f"method {name} measures nothing by operators")
    record = read_record(store, name)
    if record is None:
        raise StoreMissing(f"{store.url} holds no fit of {name}: headwater fit {store.url} --method {name} makes one")
    refuse_other(store, name, record)
    if record["done"] < len(record["bases"]):
        raise StoreMissing(
            f"the fit of {name} is not finished: headwater fit {store.url} --method {name} goes on with it"
        )
    if record["done"] and not all("model" in one["made"] for one in record["bases"]):
        raise StoreDamaged(f"the fit of {name} does not say which models it is of: headwater fit --again makes it anew")
    bases = tuple(one["base"] for one in record["bases"])
    made = tuple(one["made"] for one in record["bases"])
    method = kind.from_settings(record["settings"])
    digests = tuple(fit_digest(record, base) for base in range(len(bases)))
    return StoredFit(name, method, int(record["examples"]), bases, made, digests, state_folder(store, name))


def refuse_other(store: FeatureStore, name: str, record: Mapping[str, Any]) -> None:
    """Raise StoreMismatch for a fit of other examples than the store's."""
    now = corpus_of(store)
    told = {"examples": "{0:,} examples there, {1:,} here", "corpus": "another corpus", "model": "another model"}
    apart = [text.format(record[key], now[key]) for key, text in told.items() if record[key] != now[key]]
    if apart:
        raise StoreMismatch(
            f"{name} was fitted to {'; '.join(apart)}: headwater fit {store.url} --method {name} --again"
        )


def held_record(store: FeatureStore, name: str) -> dict[str, Any] | None:
    """A fit's record; None where there is none that can be understood."""
    try:
        return read_record(store, name)
    except StoreDamaged:
        return None


def record_bytes(store: FeatureStore, name: str) -> bytes:
    """A fit's record as it lies there; nothing where there is none."""
    try:
        return (state_folder(store, name) / RECORD / ROOT).read_bytes()
    except OSError:
        return b""


def fit_digest(record: Mapping[str, Any], base: int) -> str:
    """Of all that binds a base's operators."""
    settings = {key: value for key, value in record["settings"].items() if key not in RECOVERY}
    told = [settings, record["examples"], record["corpus"], record["model"], record["bases"][base]["base"], base]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def whole_operators(folder: Path, digest: str) -> dict[str, Array] | None:
    """Operators that are there whole and of the fit with a digest; else None."""
    state = whole_state(folder)
    return dict(state.arrays) if state is not None and state.values.get("of") == digest else None


def same_fit(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two records are of the same fit, however far each is."""

    def told(record: Mapping[str, Any]) -> Any:
        settings = {key: value for key, value in record["settings"].items() if key not in RECOVERY}
        return (
            settings,
            [record[key] for key in ("examples", "corpus", "model")],
            [base["base"] for base in record["bases"]],
        )

    try:
        return bool(told(one) == told(other))
    except (KeyError, TypeError, AttributeError):
        return False


def refuse_settings(name: str, there: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Raise StoreMismatch where settings that bind a fit differ."""
    apart = [f"{key} is {there.get(key)!r} there, {value!r} here" for key, value in asked.items()
             if key not in RECOVERY and there.get(key) != value]  # fmt: skip
    if apart:
        raise StoreMismatch(f"{name} was fitted with other settings: {'; '.join(apart)}; --again begins anew")
