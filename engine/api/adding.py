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
from ..ingest.text_provider import TextProvider
from ..interface.registry import load as load_method
from ..interface.subset_method import SubsetMethod
from ..runtime.messages import say
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
) -> list[str]:  # fmt: skip
    """Add methods to a store from what it keeps: see :meth:`Store.add`. Returns notes for the user."""
    if not methods:
        raise SettingsError("add: name a method")
    (stored, fitted), notes = divided(methods), list[str]()
    if stored:
        job = IngestJob([], store.url, holder.loaded(store), stored, seeds=seeds)
        notes += ingested(job, holder, memory, progress=progress)
    return notes + fit_all(store, holder, fitted, memory, progress=progress)


def ingested(job: IngestJob, holder: ModelHolder, memory: int | None, *, progress: bool) -> list[str]:
    """Run an ingestion with progress; the model that it loads stays in `holder`. Returns notes for the user, which are printed if
    progress is shown.
    """
    with shown_run(memory, job.model.device, progress=progress) as run:
        prepared = prepare(job, run)
        ingestion = prepared.open()
        provider = ingestion.provider
        if isinstance(provider, TextProvider) and not prepared.has_base:
            holder.choice = replace(job.model, loaded=provider.model)
        ingestion.run(run)
    notes = [*prepared.notes, *provider.notes, *(f"skipped: {line}" for line in provider.record_errors.first)]
    return _said(notes, shown=progress)


def fit_all(
    store: FeatureStore, holder: ModelHolder, methods: Sequence[MethodChoice], memory: int | None, *, progress: bool
) -> list[str]:
    """Fit methods to a store, one after the other; returns notes for the user."""
    notes = list[str]()
    for choice in methods:
        with shown_run(memory, holder.choice.device, progress=progress) as run:
            fit = prepare_fit(FitJob(store.url, choice.name, choice.settings, model=holder.loaded(store)), run)
            notes += _said(fit.notes, shown=progress)
            fit.run(run)
    return notes


def _said(notes: Sequence[str], *, shown: bool) -> list[str]:
    """The notes, each once; printed to stderr if they are to be shown."""
    lines = list(dict.fromkeys(notes))
    for line in lines if shown else ():
        say(line if line.startswith("skipped: ") else f"note: {line}")
    return lines
