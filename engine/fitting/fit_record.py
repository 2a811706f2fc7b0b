"""What a fit stores: its record, and the parameters for each base model. Knows no method by name.

methods/NAME/state/fit                     the record: settings, examples, corpus, base models, and how many of these are done
methods/NAME/state/base0/operators         the parameters for the first base model
methods/NAME/state/base0/training          the checkpoint of its training, until it is done
shards/0/hidden_states/NAME.base0/         the hidden states that this base model computes for the examples
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict, cast

from ...store.errors import BrokenMethod, SettingsError, StoreDamaged, StoreMismatch, StoreMissing
from ...store.feature_store import EXAMPLES, FeatureStore, method_group
from ...store.json_values import JsonObject
from ...store.layout import Array
from ...store.state import ROOT, has_state, read_state, whole_state
from ..interface.registry import load
from ..interface.subset_method import SubsetMethod
from ..recovery.recover import PURSUITS, Recovery

RECORD = "fit"
RECOVERY = ("solver", "regularization", "held_out", "tolerance")
"""Settings of the recovery: they may change after the fit."""


class BaseRecord(TypedDict):
    """A base model of a fit."""

    base: str
    """Folder of a model, or file of arrays; "" is the store's own model."""
    made: JsonObject
    """Fingerprints of the model and tokenizer; empty before the base model was read."""


class FitRecord(TypedDict):
    """The record of a fit, as JSON values."""

    settings: JsonObject
    examples: int
    """Number of examples."""
    corpus: list[str]
    """Digests of the corpus's files."""
    model: str
    """Fingerprint of the store's model."""
    bases: list[BaseRecord]
    done: int
    """Number of base models that are done."""


def state_folder(store: FeatureStore, name: str) -> Path:
    """Folder of a method's fit."""
    return store.path / method_group(name) / "state"


def new_record(store: FeatureStore, method: SubsetMethod, bases: Sequence[str]) -> FitRecord:
    """The record of a fit that has not begun."""
    provenance = store.provenance
    return {
        "settings": method.settings(),
        "examples": store.rows(EXAMPLES),
        "corpus": [source["digest"] for source in provenance["sources"]],
        "model": provenance["model"],
        "bases": [{"base": base, "made": {}} for base in bases],
        "done": 0,
    }


def recovery_of(method: SubsetMethod) -> Recovery:
    """The recovery that a method's settings describe.

    Raises:
        SettingsError: settings out of range.
    """
    if method.solver not in PURSUITS:
        return Recovery(method.solver, method.regularization, 0, method.held_out, method.tolerance)
    if method.regularization != int(method.regularization):
        raise SettingsError(
            f"regularization of {method.solver} must be a number of nonzero weights; got {method.regularization:g}"
        )
    return Recovery(method.solver, 0.0, int(method.regularization), method.held_out, method.tolerance)


def read_record(store: FeatureStore, name: str) -> FitRecord | None:
    """A fit's record; None if there is none.

    Raises:
        StoreDamaged: it is damaged.
    """
    folder = state_folder(store, name) / RECORD
    if store.remote:
        return None
    with suppress(StoreDamaged):
        state = read_state(folder)
        if state is None:
            return None
        if _is_record(state.values):
            return cast(FitRecord, dict(state.values))
    raise StoreDamaged(f"{folder} is not a record of a fit: run headwater fit --again to make a new one")


def _is_record(values: object) -> bool:
    """Whether JSON values are a record of a fit."""
    if not isinstance(values, dict) or not FitRecord.__required_keys__ <= set(values):
        return False
    bases, done = values["bases"], values["done"]
    if not isinstance(values["settings"], dict) or not isinstance(values["examples"], int):
        return False
    if not isinstance(bases, list) or not isinstance(done, int) or not bases or not 0 <= done <= len(bases):
        return False
    are_bases = all(
        isinstance(base, dict) and isinstance(base.get("base"), str) and isinstance(base.get("made"), dict)
        for base in bases
    )
    return are_bases and all("model" in base["made"] for base in bases[:done])


def fits_of(store: FeatureStore) -> dict[str, FitRecord]:
    """Method → record, of all fits in a store."""
    folders = [] if store.remote else sorted(store.path.glob(f"methods/*/state/{RECORD}"))
    records = {folder.parts[-3]: read_record(store, folder.parts[-3]) for folder in folders if has_state(folder)}
    return {name: record for name, record in records.items() if record}


@dataclass(frozen=True, slots=True)
class StoredFit:
    """A finished fit."""

    name: str
    method: SubsetMethod
    rows: int
    """N: number of examples."""
    bases: tuple[str, ...]
    """Folders of base models, or files of arrays; "" is the store's own model."""
    fingerprints: tuple[JsonObject, ...]
    """Fingerprints of each base model and its tokenizer; queries must be read by the same ones."""
    digests: tuple[str, ...]
    """For each base model, a digest of the settings and corpus that its operators were fitted with."""
    folder: Path

    def operators(self, base: int) -> dict[str, Array]:
        """The parameters for a base model.

        Raises:
            StoreDamaged: they are missing or damaged.
        """
        folder = self.folder / f"base{base}" / "operators"
        arrays = read_operators(folder, self.digests[base])
        if arrays is None:
            raise StoreDamaged(f"{folder} is missing, damaged, or of another fit: run headwater fit to make it again")
        return arrays


def read_fit(store: FeatureStore, name: str) -> StoredFit:
    """A method's finished fit.

    Raises:
        StoreMissing: there is none, or it is not finished. StoreMismatch: it was made with other examples than the store has now.
        BrokenMethod: the method is not a SubsetMethod.
    """
    kind = load(name)
    if not issubclass(kind, SubsetMethod):
        raise BrokenMethod(f"method {name} cannot be fitted: it is not a SubsetMethod")
    record = read_record(store, name)
    if record is None:
        raise StoreMissing(f"{store.url} holds no fit of {name}: headwater fit {store.url} --method {name} makes one")
    require_same_corpus(store, name, record)
    if record["done"] < len(record["bases"]):
        raise StoreMissing(
            f"the fit of {name} is not finished: run headwater fit {store.url} --method {name} to continue"
        )
    if record["done"] and not all("model" in base["made"] for base in record["bases"]):
        raise StoreDamaged(f"the fit of {name} does not name its models: run headwater fit --again to make a new one")
    bases = tuple(base["base"] for base in record["bases"])
    fingerprints = tuple(base["made"] for base in record["bases"])
    method = kind.from_settings(record["settings"])
    digests = tuple(fit_digest(record, base) for base in range(len(bases)))
    return StoredFit(name, method, int(record["examples"]), bases, fingerprints, digests, state_folder(store, name))


def require_same_corpus(store: FeatureStore, name: str, record: FitRecord) -> None:
    """Raise StoreMismatch if a fit was made with other examples, another corpus or another model than the store has."""
    examples, provenance = store.rows(EXAMPLES), store.provenance
    differences = []
    if record["examples"] != examples:
        differences.append(f"{record['examples']:,} examples then, {examples:,} now")
    if record["corpus"] != [source["digest"] for source in provenance["sources"]]:
        differences.append("another corpus")
    if record["model"] != provenance["model"]:
        differences.append("another model")
    if differences:
        raise StoreMismatch(
            f"the fit of {name} is not of this store's contents ({'; '.join(differences)}): "
            f"run headwater fit {store.url} --method {name} --again"
        )


def readable_record(store: FeatureStore, name: str) -> FitRecord | None:
    """A fit's record; None if it is missing or damaged."""
    try:
        return read_record(store, name)
    except StoreDamaged:
        return None


def record_bytes(store: FeatureStore, name: str) -> bytes:
    """The bytes of a fit's record; empty if there is none."""
    try:
        return (state_folder(store, name) / RECORD / ROOT).read_bytes()
    except OSError:
        return b""


def fit_digest(record: FitRecord, base: int) -> str:
    """A digest of all that the operators for a base model depend on."""
    facts = [
        _fit_settings(record), record["examples"], record["corpus"], record["model"], record["bases"][base]["base"], base,
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def read_operators(folder: Path, digest: str) -> dict[str, Array] | None:
    """The operators of the fit with this digest; None if they are missing, damaged or of another fit."""
    state = whole_state(folder)
    return dict(state.arrays) if state is not None and state.values.get("of") == digest else None


def same_fit(record: FitRecord, other: FitRecord) -> bool:
    """Whether two records are of the same fit; how much of it is done does not matter."""
    return all(record[key] == other[key] for key in ("examples", "corpus", "model")) and (
        _fit_settings(record), [base["base"] for base in record["bases"]]
    ) == (_fit_settings(other), [base["base"] for base in other["bases"]])  # fmt: skip


def _fit_settings(record: FitRecord) -> JsonObject:
    """The settings without those of the recovery."""
    return {key: value for key, value in record["settings"].items() if key not in RECOVERY}


def require_same_settings(name: str, stored: JsonObject, settings: JsonObject) -> None:
    """Raise StoreMismatch if settings that a fit depends on differ."""
    differences = [f"{key} is {stored.get(key)!r} in the fit, {value!r} in this run" for key, value in settings.items()
                   if key not in RECOVERY and stored.get(key) != value]  # fmt: skip
    if differences:
        raise StoreMismatch(
            f"{name} was fitted with other settings: {'; '.join(differences)}; to replace the fit, use --again"
        )


def intact_bases(store: FeatureStore, name: str, record: FitRecord) -> int:
    """Number of finished base models before the first whose operators are missing or damaged."""
    for base in range(record["done"]):
        folder = state_folder(store, name) / f"base{base}/operators"
        if not read_operators(folder, fit_digest(record, base)):
            return base
    return record["done"]
