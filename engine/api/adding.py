"""Ingests and fits methods for a store in Python, with progress, by a model that stays loaded. Knows no method by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...store.completeness import rows_missing
from ...store.errors import SettingsError
from ...store.feature_store import FeatureStore
from ...store.json_values import JsonObject
from ..fitting.fit_job import prepare_fit
from ..fitting.fit_request import FitJob
from ..ingest.equal_ids import equal_ids_note
from ..ingest.ingest_job import IngestJob, prepare
from ..ingest.stored_texts import StoredTexts
from ..ingest.text_provider import TextProvider
from ..interface.registry import load as load_method
from ..interface.subset_method import SubsetMethod
from ..runtime.messages import say
from .model_holder import ModelHolder
from .opening import MethodChoice
from .progress_choice import shown_run

Methods = str | MethodChoice | Sequence[str | MethodChoice]


def choices(methods: Methods) -> list[MethodChoice]:
    """Methods with their settings.

    Raises:
        SettingsError: a name stands twice.
    """
    listed = [methods] if isinstance(methods, str | MethodChoice) else list(methods)
    own = [item if isinstance(item, MethodChoice) else MethodChoice(item, {}) for item in listed]
    names = [choice.name for choice in own]
    if len(set(names)) < len(names):
        raise SettingsError(f"a method stands twice in {', '.join(names)}: its members are NAME@1, NAME@2, …")
    return own


def divided(methods: Methods) -> tuple[dict[str, JsonObject], list[MethodChoice]]:
    """Methods that store rows, with their settings; and methods that are fitted."""
    stored, fitted = dict[str, JsonObject](), list[MethodChoice]()
    for choice in choices(methods):
        if issubclass(load_method(choice.name), SubsetMethod):
            fitted.append(choice)
        else:
            stored[choice.name] = choice.settings
    return stored, fitted


def added(
    store: FeatureStore, holder: ModelHolder, methods: Sequence[str | MethodChoice], seeds: int, making: Making
) -> None:
    """Add methods to a store from what it keeps: see :meth:`Store.add`."""
    if not methods:
        raise SettingsError("add: name a method")
    stored, fitted = divided(methods)
    if fitted and seeds > 1:
        raise SettingsError(f"add: {fitted[0].name} is fitted: give its members as {fitted[0].name}@1, …, not as seeds")
    if stored:
        ingested(IngestJob([], store.url, holder.choice, stored, seeds=seeds), holder, making)
    fit_all(store, holder, fitted, making)


@dataclass(frozen=True, slots=True)
class Making:
    """How a store is made or extended."""

    memory: int | None
    """Largest memory plan in bytes."""
    progress: bool
    """Whether progress and notes are shown."""
    notes: list[str]
    """Notes for the user are added here."""

    def say(self, notes: Sequence[str]) -> None:
        """Add notes, each once, and print them if they are to be shown."""
        for line in dict.fromkeys(notes):
            self.notes.append(line)
            if self.progress:
                say(line if line.startswith("skipped") else f"note: {line}")


def ingested(job: IngestJob, holder: ModelHolder, making: Making) -> None:
    """Run an ingestion with progress; the store's own model, if it loads it, stays in `holder`."""
    with shown_run(making.memory, job.model.device, progress=making.progress) as run:
        prepared = prepare(job, run)
        making.say(prepared.notes)
        ingestion = prepared.open()
        provider = ingestion.provider
        if isinstance(provider, TextProvider | StoredTexts) and not prepared.has_base:
            holder.keep(provider.model)
        result = ingestion.run(run)
    errors = provider.record_errors
    making.say([*provider.notes, *(f"skipped: {line}" for line in errors.first)])
    if errors.count:
        making.say([f"skipped {errors.count} bad records in all"])
    making.say(rows_missing(ingestion.store))
    if result.added and (note := equal_ids_note(ingestion.store)):
        making.say([note])


def fit_all(
    store: FeatureStore, holder: ModelHolder, methods: Sequence[MethodChoice], making: Making, base: str = ""
) -> None:
    """Fit methods to a store, one after the other. `base`: the model of these members, in place of the store's own."""
    for choice in methods:
        model = holder.choice if base else holder.loaded(store) if store.provenance["kind"] == "text" else holder.choice
        with shown_run(making.memory, holder.choice.device, progress=making.progress) as run:
            fit = prepare_fit(FitJob(store.url, choice.name, choice.settings, model=model, base=base), run)
            making.say(fit.notes)
            fit.run(run)
