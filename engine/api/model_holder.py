"""The model of a store held in Python: loaded at the first question that needs it, and kept. Knows no question."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace

from ...store.errors import ModelError
from ...store.feature_store import FeatureStore
from ..attribution.open_session import text_method_of
from ..fitting.fit_record import fits_of
from ..ingest.member_model import MemberModel
from ..models.language_model import LanguageModel, ModelChoice, load, tokenizer_of
from ..models.transformers_types import HfTokenizer


@dataclass(slots=True)
class ModelHolder:
    """The model of an open store: loaded at the first question that needs it, and kept. One model is in memory at a time: that of
    the member that was asked last.
    """

    choice: ModelChoice
    """The model as the user gave it; with `loaded`, an object in memory."""
    _member: ModelChoice | None = None
    """The last member's own model, loaded."""
    _tokenizer: HfTokenizer | None = None

    def for_method(self, store: FeatureStore, method: str, *, members: bool = False) -> ModelChoice:
        """The choice of model for a question to a method: loaded, unless the method reads texts, or the store has no model, or
        several `members` are asked, of which each loads its own.

        Raises:
            ModelError: the model is not there, or does not load.
        """
        if members or store.provenance["kind"] != "text" or text_method_of(method, store) is not None:
            return self.choice
        own = member_model(store, method)
        if not own.member:
            return self.loaded(store)
        chosen = own.chosen(self.choice)
        if chosen.loaded is not None:
            return chosen
        held = self._member.loaded if self._member else None
        if held is None or held.fingerprint["model"] != own.fingerprints.get("model"):
            self._member = None  # freed before the next one is loaded
            self._member = replace(chosen, loaded=load(chosen))
        assert self._member is not None
        return self._member

    def loaded(self, store: FeatureStore) -> ModelChoice:
        """The store's own model, loaded.

        Raises:
            ModelError: the model is not there, or does not load.
        """
        if self.choice.loaded is None:
            own = MemberModel.of_store(store).chosen(self.choice)
            self.choice = replace(own, loaded=load(own))
        return self.choice

    def keep(self, model: LanguageModel) -> None:
        """Keep the store's own model, which an ingestion has loaded."""
        self.choice = replace(self.choice, loaded=model)

    def tokenizer(self, store: FeatureStore) -> HfTokenizer | None:
        """The tokenizer of the store's model; None if the store is of arrays, or the tokenizer is not there."""
        if self.choice.loaded is not None:
            return self.choice.loaded.tokenizer
        path = self.choice.path or str(store.provenance.get("model_path", ""))
        if self._tokenizer is None and path:
            with suppress(ModelError):
                digest = str(store.provenance.get("tokenizer"))
                self._tokenizer = tokenizer_of(path, self.choice.trust_remote_code, digest)
        return self._tokenizer


def member_model(store: FeatureStore, method: str) -> MemberModel:
    """The model of a method's rows or fit: the store's own, or that of a member."""
    if method in store.methods:
        return MemberModel.of_rows(store, method)
    record = fits_of(store).get(method)
    if record is None or not record["base"]:
        return MemberModel.of_store(store)
    return MemberModel(record["base"], record["made"], method)
