"""Ingests and fits methods for a store in Python, with progress, by a model that stays loaded. Knows no method by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ...store.errors import SettingsError
from ...store.feature_store import FeatureStore
from ...store.json_values import JsonObject
from ..fitting.fit_job import prepare_fit
from ..fitting.fit_request import FitJob
from ..ingest.ingest_job import IngestJob, prepare
from ..interface.registry import load as load_method
from ..interface.subset_method import SubsetMethod
from ..models.language_model import load
from .opening import MethodChoice, ModelHolder
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
    store: FeatureStore, holder: ModelHolder, methods: Sequence[str | MethodChoice], seeds: int, memory: int | None, *,
    progress: bool,
) -> FeatureStore:  # fmt: skip
    """Add methods to a store from what it keeps: see :meth:`Store.add`."""
    if not methods:
        raise SettingsError("add: name a method")
    stored, fitted = divided(methods)
    if stored:
        job = IngestJob([], store.url, holder.loaded(store), stored, seeds=seeds)
        ingested(job, holder, memory, progress=progress)
    fit_all(store, holder, fitted, memory, progress=progress)
    return FeatureStore.open(store.url)


def ingested(job: IngestJob, holder: ModelHolder, memory: int | None, *, progress: bool) -> FeatureStore:
    """Run an ingestion with progress; the model that it loads stays in `holder`."""
    with shown_run(memory, job.model.device, progress=progress) as run:
        if job.model.loaded is None and job.model.path:
            job = replace(job, model=replace(job.model, loaded=load(job.model)))
            holder.choice = job.model
        prepare(job, run).open().run(run)
    return FeatureStore.open(job.store)


def fit_all(
    store: FeatureStore, holder: ModelHolder, methods: Sequence[MethodChoice], memory: int | None, *, progress: bool
) -> None:
    """Fit methods to a store, one after the other."""
    for choice in methods:
        with shown_run(memory, holder.choice.device, progress=progress) as run:
            fit = prepare_fit(FitJob(store.url, choice.name, choice.settings, model=holder.loaded(store)), run)
            fit.run(run)
