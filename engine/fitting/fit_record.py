"""What a fit stores: its record, and the fitted parameters. A member (`NAME@MEMBER`) is a fit of its own. Knows no
method by name.

methods/NAME/state/fit                     the record: settings, examples, corpus, model, draw of the design, whether it is done
methods/NAME/state/base0/operators         the fitted parameters
methods/NAME/state/base0/training          the checkpoint of the training, until it is done
shards/0/hidden_states/NAME.base0/         the hidden states that the model computes for the examples
"""

from __future__ import annotations

import itertools
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
from ...store.store_record import FITTED
from ..ingest.member_model import MemberModel
from ..interface.registry import load
from ..interface.subset_method import Design, SubsetMethod
from ..recovery.recover import PURSUITS, Recovery
from .earlier_fit import converted
from .fit_digest import RECOVERY, digest_of, fit_settings

RECORD = "fit"


class _OfBefore(TypedDict, total=False):
    """What only a record has that was made before members were fits of their own."""

    of: str
    """The digest that its parameters bear."""


class FitRecord(_OfBefore):
    """The record of a fit, as JSON values."""

    settings: JsonObject
    examples: int
    """Number of examples."""
    corpus: list[str]
    """Digests of the corpus's files."""
    model: str
    """Fingerprint of the store's model."""
    base: str
    """Folder of the model, or file of arrays, that the fit reads; "" is the store's own."""
    made: JsonObject
    """Fingerprints of this model and its tokenizer; empty before it was read."""
    draw: int
    """Decides the random numbers of the design, besides the settings."""
    done: bool


def state_folder(store: FeatureStore, name: str) -> Path:
    """Folder of a method's fit."""
    return store.path / method_group(name) / "state"


def new_record(store: FeatureStore, name: str, method: SubsetMethod, base: str) -> FitRecord:
    """The record of a fit that has not begun."""
    provenance, settings = store.provenance, method.settings()
    return {
        "settings": settings,
        "examples": store.rows(EXAMPLES),
        "corpus": [source["digest"] for source in provenance["sources"]],
        "model": provenance["model"],
        "base": base,
        "made": {},
        "draw": next_draw(store, name, settings),
        "done": False,
    }


def next_draw(store: FeatureStore, name: str, settings: JsonObject) -> int:
    """The smallest draw with which no other member has the sum of this one's seed and draw, so that designs are independent."""
    members = {member: record for member, record in fits_of(store).items() if member != name}
    same_method = [record for member, record in members.items() if member.partition("@")[0] == name.partition("@")[0]]
    taken = {_seed(record["settings"]) + record["draw"] for record in same_method}
    return next(draw for draw in itertools.count() if _seed(settings) + draw not in taken)


def _seed(settings: JsonObject) -> int:
    seed = settings.get("seed")
    return seed if isinstance(seed, int) else 0


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
        StoreDamaged: it is damaged. StoreMismatch: it is of several base models in one, which only earlier versions read.
    """
    folder = state_folder(store, name) / RECORD
    if store.remote:
        return None
    values: object = None
    with suppress(StoreDamaged):
        state = read_state(folder)
        if state is None:
            return None
        values = converted(state.values, name, store.url)
    if not _is_record(values):
        raise StoreDamaged(f"{folder} is not a record of a fit", hint="run headwater fit --again to make a new one")
    return cast(FitRecord, values)


def _is_record(values: object) -> bool:
    """Whether JSON values are a record of a fit."""
    if not isinstance(values, dict) or set(values) - {"of"} != FitRecord.__required_keys__:
        return False
    types = {"settings": dict, "examples": int, "corpus": list, "model": str, "base": str, "made": dict, "draw": int,
             "done": bool}  # fmt: skip
    is_typed = all(isinstance(values[key], kind) for key, kind in types.items())
    is_typed = is_typed and isinstance(values.get("of", ""), str)
    return is_typed and 0 <= values["draw"] < 1 << 31 and (not values["done"] or "model" in values["made"])


def fits_of(store: FeatureStore) -> dict[str, FitRecord]:
    """Method → record, of all fits in a store that can be read; members in the order of their draws."""
    folders = [] if store.remote else sorted(store.path.glob(f"methods/*/state/{RECORD}"))
    names = [folder.parts[-3] for folder in folders if has_state(folder)]
    records = {name: record for name in names if (record := readable_record(store, name))}
    return dict(sorted(records.items(), key=lambda item: (item[0].partition("@")[0], item[1]["draw"], item[0])))


@dataclass(frozen=True, slots=True)
class StoredFit:
    """A finished fit."""

    name: str
    method: SubsetMethod
    rows: int
    """N: number of examples."""
    model: MemberModel
    """The model that it reads; queries must be read by the same one."""
    draw: int
    digests: tuple[str, ...]
    """The digests of which its parameters bear one."""
    folder: Path

    def design(self) -> Design:
        """Which examples are in which subsets."""
        return self.method.design(self.rows, self.draw)

    def operators(self) -> dict[str, Array]:
        """The fitted parameters.

        Raises:
            StoreDamaged: they are missing or damaged.
        """
        folder = self.folder / FITTED / "operators"
        arrays = read_operators(folder, self.digests)
        if arrays is None:
            raise StoreDamaged(
                f"{folder} is missing, damaged, or of another fit", hint="run headwater fit to make it again"
            )
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
    if not record["done"]:
        raise StoreMissing(
            f"the fit of {name} is not finished", hint=f"run headwater fit {store.url} --method {name} to continue"
        )
    model = MemberModel(record["base"], record["made"], name) if record["base"] else MemberModel.of_store(store)
    method, folder = kind.from_settings(record["settings"]), state_folder(store, name)
    return StoredFit(name, method, record["examples"], model, record["draw"], fit_digests(record), folder)


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
            f"the fit of {name} is not of this store's contents ({'; '.join(differences)})",
            hint=f"run headwater fit {store.url} --method {name} --again",
        )


def readable_record(store: FeatureStore, name: str) -> FitRecord | None:
    """A fit's record; None if it is missing or damaged, or of several base models."""
    try:
        return read_record(store, name)
    except (StoreDamaged, StoreMismatch):
        return None


def record_bytes(store: FeatureStore, name: str) -> bytes:
    """The bytes of a fit's record; empty if there is none."""
    try:
        return (state_folder(store, name) / RECORD / ROOT).read_bytes()
    except OSError:
        return b""


def fit_digests(record: FitRecord) -> tuple[str, ...]:
    """Digests of all that the fitted parameters depend on: the first is the one that is written with them. Parameters of before
    members were fits of their own bear one of the others.
    """
    settings, made, draw = fit_settings(record["settings"]), record["made"], record["draw"]
    corpus = (record["examples"], record["corpus"], record["model"])
    before = [] if record["base"] or draw else [(own, *corpus, "", 0) for own in ({**settings, "bases": []}, settings)]
    digests = [digest_of(facts) for facts in [(settings, *corpus, made, draw), *before]]
    return (*digests, record["of"]) if "of" in record else tuple(digests)


def read_operators(folder: Path, digests: Sequence[str]) -> dict[str, Array] | None:
    """The parameters of the fit with one of these digests; None if they are missing, damaged or of another fit."""
    state = whole_state(folder)
    return dict(state.arrays) if state is not None and state.values.get("of") in digests else None


def same_fit(record: FitRecord, other: FitRecord) -> bool:
    """Whether two records are of the same fit; its draw, and whether it is done, do not matter. Nor does the path of the model,
    where both records have its fingerprints.
    """
    has_made = record["made"] and other["made"]
    same_model = record["made"] == other["made"] if has_made else record["base"] == other["base"]
    same = same_model and all(record[key] == other[key] for key in ("examples", "corpus", "model"))
    return same and fit_settings(record["settings"]) == fit_settings(other["settings"])


def require_same_settings(name: str, stored: JsonObject, settings: JsonObject) -> None:
    """Raise StoreMismatch if settings that a fit depends on differ."""
    differences = [f"{key} is {stored.get(key)!r} in the fit, {value!r} in this run" for key, value in settings.items()
                   if key not in RECOVERY and stored.get(key) != value]  # fmt: skip
    if differences:
        raise StoreMismatch(
            f"{name} was fitted with other settings: {'; '.join(differences)}; to replace the fit, use --again"
        )


def is_intact(store: FeatureStore, name: str, record: FitRecord) -> bool:
    """Whether a fit is done and its parameters are undamaged."""
    return record["done"] and bool(
        read_operators(state_folder(store, name) / FITTED / "operators", fit_digests(record))
    )
