"""The model of a member: the store's own, or another one, whose path and fingerprints the member records. Knows no score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...store.errors import SettingsError, StoreMismatch, StoreMissing
from ...store.feature_store import EXAMPLES, FeatureStore, method_group
from ...store.json_values import JsonObject
from ...store.state import remove_state, state_folders
from ..models.language_model import ModelChoice
from .provider import Provider

FINGERPRINTS = ("model", "tokenizer")


@dataclass(frozen=True, slots=True)
class MemberModel:
    """The model that reads a member's examples and queries."""

    path: str
    """Folder or hub id of a model, or file of arrays; empty for the head in a store's own arrays."""
    fingerprints: JsonObject
    """Digests of the model and of its tokenizer."""
    member: str = ""
    """Name of the member; empty for the store's own model."""

    @classmethod
    def of_store(cls, store: FeatureStore) -> MemberModel:
        """The store's own model."""
        return cls(str(store.provenance.get("model_path", "")), fingerprints_of(store.provenance))

    @classmethod
    def of_rows(cls, store: FeatureStore, name: str) -> MemberModel:
        """The model that made a method's stored rows; the store's own if it has none."""
        record = store.groups.get(method_group(name))
        model = record.model if record else {}
        return cls(model["path"], fingerprints_of(model), name) if model else cls.of_store(store)

    def chosen(self, choice: ModelChoice) -> ModelChoice:
        """How this model is loaded: as the user chose, or from its recorded path if nothing is chosen, or if the model in memory
        is not this member's.
        """
        loaded, own = choice.loaded, self.fingerprints.get("model")
        if self.member and loaded and loaded.fingerprint["model"] != own:
            return choice.other(self.path)
        return choice.of_store(self.path)


def fingerprints_of(facts: JsonObject) -> JsonObject:
    """The fingerprints among the facts of a provenance or a record."""
    return {key: facts[key] for key in FINGERPRINTS if key in facts}


def model_facts(store: FeatureStore, provider: Provider) -> dict[str, str]:
    """Path and fingerprints of a provider's model, as a member's record holds them; empty for the store's own model."""
    fingerprints = fingerprints_of(provider.provenance())
    if fingerprints.get("model") == store.provenance["model"]:
        return {}
    return {"path": str(provider.origin()["model_path"]), **{key: str(value) for key, value in fingerprints.items()}}


def base_of(store: FeatureStore | None, names: Sequence[str], base: str, *, append: bool) -> str:
    """The path of the model that reads the examples for these members: `base`, or the recorded one; empty for the store's own.

    Raises:
        SettingsError: the members have several models, or there is no store of texts yet, or documents are appended.
        StoreMissing: the store lacks examples.
    """
    if not names:
        return ""
    own = {} if store is None else {name: MemberModel.of_rows(store, name) for name in names}
    paths = {base or (own[name].path if name in own and own[name].member else "") for name in names}
    if len(paths) > 1:
        name = next(name for name in names if own[name].member)
        raise SettingsError(f"{name} has a model of its own", hint="ingest it by a command of its own")
    (path,) = paths
    if not path:
        return ""
    unlabelled = [name for name in names if "@" not in name]
    if unlabelled:
        raise SettingsError("--base is the model of a member", hint=f"name it, such as --method {unlabelled[0]}@early")
    if store is None or store.provenance["kind"] != "text" or EXAMPLES not in store.groups:
        raise SettingsError("--base needs a store of texts", hint="ingest the corpus with the store's own model first")
    if append:
        raise SettingsError(
            "appended documents are read by the store's own model first",
            hint=f"leave out {names[0]}, then ingest it without --append",
        )
    if not store.is_complete(EXAMPLES):
        raise StoreMissing(f"{store.url} does not hold all of its examples yet", hint=f"ingest them before {names[0]}")
    return path


def remove_unread(store: FeatureStore, name: str, facts: dict[str, str]) -> None:
    """Remove a member that another model began and of which there is no row yet: nothing is lost, and its model may have been
    named by mistake.

    Raises:
        StoreBusy: another process writes to it.
    """
    group = method_group(name)
    record = store.groups.get(group)
    if record is None or store.rows(group) or fingerprints_of(record.model) == fingerprints_of(facts):
        return
    store.remove_group(group)
    for folder in list(state_folders(store.path / group)):  # such as statistics of what the other model computes
        remove_state(folder)


def record_model(store: FeatureStore, name: str, facts: dict[str, str]) -> None:
    """Record the new path of a member's model, if it moved.

    Raises:
        StoreMismatch: the member's rows were made with another model.
    """
    record = store.groups[method_group(name)]
    if fingerprints_of(record.model) != fingerprints_of(facts):
        made, path = (model.get("path") or "the store's own model" for model in (record.model, facts))
        raise StoreMismatch(
            f"rows of {name} in {store.url} were made with {made}, whose weights differ from {path}",
            hint="name another member",
        )
    if record.model != facts:
        store.update(lambda root: root.with_group(method_group(name), record.noted(model=facts)))
