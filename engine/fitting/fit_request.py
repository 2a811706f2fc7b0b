"""What a fit is asked for: the method, its settings and its model, and the record of the fit that begins or continues. Knows no
method by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ...store.errors import SettingsError, StoreMismatch, StoreMissing
from ...store.feature_store import EXAMPLES, FeatureStore
from ...store.json_values import JsonObject
from ..ingest.member_model import fingerprints_of
from ..interface.registry import load
from ..interface.subset_method import SubsetMethod
from ..models.language_model import ModelChoice
from .fit_corpus import absolute, base_provider, require_source
from .fit_record import (
    FitRecord,
    is_intact,
    new_record,
    read_record,
    readable_record,
    require_same_corpus,
    require_same_settings,
    same_fit,
)


@dataclass(frozen=True, slots=True)
class FitJob:
    """Which method to fit to which store."""

    store: str
    method: str
    settings: JsonObject = field(default_factory=dict)
    """Settings that differ from the default, or from those of the existing fit."""
    corpus: Sequence[str] = ()
    """Paths of the corpus's files, if they are needed and have moved."""
    model: ModelChoice = field(default_factory=lambda: ModelChoice(""))
    again: bool = False
    """Whether to replace a fit with other settings or of other examples."""
    commit_seconds: float = 15.0
    """Seconds between checkpoints: a kill loses at most this much work, plus one step."""
    base: str = ""
    """Model of the member, or file of arrays, in place of the store's own; empty: the recorded one, or the store's own."""


def requested(store: FeatureStore, job: FitJob) -> tuple[SubsetMethod, FitRecord]:
    """The method of a fit, and the record to continue or to begin with.

    Raises:
        SettingsError, StoreMissing, StoreMismatch: the fit cannot be made, or the store has another one under the name.
    """
    kind = load(job.method)
    if job.base and "@" not in job.method:
        raise SettingsError("--base is the model of a member", hint=f"name it, such as --method {job.method}@early")
    if not issubclass(kind, SubsetMethod):
        raise SettingsError(
            f"method {job.method} has nothing to fit: headwater ingest --method {job.method} stores its rows"
        )
    if EXAMPLES not in store.groups or not store.rows(EXAMPLES) or not store.is_complete(EXAMPLES):
        raise StoreMissing(f"{store.url} does not hold all of its examples yet", hint="run ingest again to continue")
    stored = readable_record(store, job.method) if job.again else read_record(store, job.method)
    try:
        method = kind.from_settings({**(stored["settings"] if stored and not job.again else {}), **job.settings})
    except SettingsError as error:
        raise SettingsError(f"method {job.method}: {error}", hint=error.hint) from None
    require_source(store, job.method, method)
    record = new_record(store, job.method, method, absolute(job.base) or (stored["base"] if stored else ""))
    if stored and not job.again:
        require_same_corpus(store, job.method, stored)
        require_same_settings(job.method, kind.from_settings(stored["settings"]).settings(), record["settings"])
        _require_same_model(store, job, stored, record)
        done = is_intact(store, job.method, stored)
        record = {**stored, "settings": record["settings"], "base": record["base"], "done": done}
    elif stored and same_fit(stored, record) and not stored["done"]:
        record = {**stored, "settings": record["settings"]}  # a run with --again was stopped
    return method, record


def _require_same_model(store: FeatureStore, job: FitJob, stored: FitRecord, record: FitRecord) -> None:
    """Raise StoreMismatch unless the model at a new path is the one that the fit was made with."""
    if record["base"] == stored["base"] or not stored["made"]:
        return
    provider = base_provider(store, record["base"], job.model, job.corpus)
    if fingerprints_of(provider.provenance()) != stored["made"]:
        raise StoreMismatch(
            f"{job.method} was fitted with {stored['base'] or 'the model of the store'}, whose weights differ from "
            f"{record['base']}",
            hint="name another member, or replace the fit by --again",
        )
