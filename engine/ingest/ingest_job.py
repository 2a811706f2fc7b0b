"""`ingest` as one call: prepare the store, the model and the plan, then run. Knows no method by name.

job = IngestJob(["corpus.jsonl"], "store", ModelChoice("model"), {"rise": {"tau": 1.0}})
outcome = prepare(job).ingest()
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ... import __version__
from ...store.errors import CorpusError, SettingsError, StoreMismatch
from ...store.feature_store import FeatureStore, method_group
from ..arrays.precision.precisions import Sign
from ..data.documents import RecordErrors
from ..interface.method import Method, Similarity, TextSimilarity
from ..interface.registry import load
from ..interface.subset_method import SubsetMethod
from ..models.language_model import ModelChoice
from ..runtime.memory import Plan
from ..runtime.run import SILENT, Run
from .examples import KeptFields, Place
from .ingest_plan import choose_batch
from .ingestion import Ingestion, IngestResult
from .open_provider import corpus_provider
from .provider import Provider
from .store_opening import open_for_ingest
from .stored_columns import precisions_of
from .text_settings import TextSettings


@dataclass(frozen=True, slots=True)
class IngestJob:
    """What to ingest, with what, into where."""

    corpus: Sequence[str]
    """Files, folders or globs of text; or .npz files and Zarr groups of arrays."""
    store: str
    """Folder of the store, made if it is not there."""
    model: ModelChoice
    """The model and how to run it."""
    methods: Mapping[str, Mapping[str, Any]]
    """Method name → settings that are not the default (or not the store's)."""
    text: TextSettings = field(default_factory=TextSettings)
    """How files of text are read."""
    batch_tokens: int | None = None
    """Padded tokens of a batch; None for the widest that fits."""
    with_text: bool | None = None
    """Whether texts are kept; None: as the store, or yes."""
    with_tokens: bool | None = None
    """Whether token ids and target positions are kept; None: as the store, or where texts are kept and a model reads them."""
    append: bool = False
    """Whether files that are new to the store are added to it."""
    seeds: int = 1
    """Sketches of each method, equal but for their seeds: the further ones are named NAME@1, NAME@2, …"""
    commit_seconds: float = 15.0
    """A kill loses at most this much work, plus one window."""


@dataclass(frozen=True, slots=True)
class PreparedIngest:
    """An ingestion that only needs to be started; nothing is written yet."""

    job: IngestJob
    provider: Provider
    methods: dict[str, Method]
    plan: Plan
    tokens: int
    kept: KeptFields

    @property
    def notes(self) -> list[str]:
        """What whoever starts it should know: a line each."""
        model_shape = self.provider.head.model_shape
        blind = [name for name, method in self.methods.items() if method.needs(model_shape).linear_layers]
        if not blind or not model_shape.skipped_weights:
            return []
        some = ", ".join(model_shape.skipped_weights[:2]) + (" …" if len(model_shape.skipped_weights) > 2 else "")
        return [
            f"{', '.join(blind)}: the gradients of {len(model_shape.skipped_weights)} weights that are in no linear layer "
            f"({some}) are left out"
        ]

    def ingest(self) -> IngestResult:
        """All of it, without progress."""
        return self.open().run()

    def open(self) -> Ingestion:
        """Create or open the store.

        Raises:
            StoreMismatch: it was made differently.
        """
        store = open_for_ingest(
            self.job.store, self.provider, self.methods,
            kept=self.kept, append=self.job.append, version=__version__,
        )  # fmt: skip
        return Ingestion(self.provider, store, self.methods, self.tokens, self.job.commit_seconds)


def prepare(job: IngestJob, run: Run = SILENT) -> PreparedIngest:
    """Load the model, find the files, make the plan, which fits the run's budget.

    Raises:
        HeadwaterError: whatever of these is not as it should be; nothing is written.
    """
    if "://" in job.store:
        raise SettingsError(f"{job.store}: a store is written to a local folder, and can be copied and read anywhere")
    store = FeatureStore.open(job.store) if FeatureStore.exists(job.store) else None
    if store is not None:
        store.require_writable()
    methods = {
        label: method
        for name, settings in job.methods.items()
        for label, method in _seeded(name, _method(name, settings, store), job.seeds, store).items()
    }
    of_text = store is not None and store.provenance["kind"] == "text"
    settings = job.text.following(store.provenance) if store and of_text else job.text
    provider = corpus_provider(job.corpus, job.model, settings)
    fields = _kept_fields(job, provider, store)
    for name, method in methods.items():
        _check_columns(name, method, provider)
    if store is None:
        _refuse_emptiness(provider, settings)
    tokens, plan = choose_batch(provider, methods, run.budget, job.batch_tokens, fields)
    return PreparedIngest(job, provider, methods, plan, tokens, fields)


def _kept_fields(job: IngestJob, provider: Provider, store: FeatureStore | None) -> KeptFields:
    """What is asked for, else what the store keeps, else all there is: arrays have no tokens.

    Raises:
        SettingsError: tokens of arrays are asked for.
    """
    if job.with_tokens and provider.provenance()["kind"] != "text":
        raise SettingsError("arrays have no token ids to keep")
    text = job.with_text if job.with_text is not None else bool(store.provenance["text"]) if store else True
    default = bool(store.provenance.get("tokens")) if store else text and provider.provenance()["kind"] == "text"
    return KeptFields(text, default if job.with_tokens is None else job.with_tokens)


def _method(name: str, given: Mapping[str, Any], store: FeatureStore | None) -> Method:
    """The method with the settings given; what is not given follows the store, or else the defaults."""
    kind = load(name)
    try:
        if store is None or method_group(name) not in store.groups:
            return kind.from_settings(given)
        there = kind.from_settings(store.groups[method_group(name)].settings).settings()
        asked = kind.from_settings({**there, **given})
    except SettingsError as error:
        raise SettingsError(f"method {name}: {error}") from None
    apart = [f"{name}.{key} is {there[key]!r} there, {value!r} here"
             for key, value in asked.settings().items() if there.get(key) != value]  # fmt: skip
    if apart:
        raise StoreMismatch(f"{store.path} was made with other settings: {'; '.join(apart)}")
    return asked


def _seeded(name: str, method: Method, seeds: int, store: FeatureStore | None) -> dict[str, Method]:
    """The method, and beside it the same with the seeds that follow its own."""
    settings = method.settings()
    if seeds > 1 and "seed" not in settings:
        raise SettingsError(
            f"method {name} has no seed: its rows are no random sketches, and --seeds leaves nothing to vary"
        )
    others = range(1, seeds)
    return {name: method} | {
        f"{name}@{more}": _method(f"{name}@{more}", {**settings, "seed": settings["seed"] + more}, store)
        for more in others
    }


def _refuse_emptiness(provider: Provider, settings: TextSettings) -> None:
    """A corpus without a first example is an error before anything is written."""
    if next(iter(provider.examples(Place())), None) is None:
        raise CorpusError(f"no example in {', '.join(source.path for source in provider.sources)}")
    provider.record_errors = RecordErrors(settings.on_error)  # what was met on the way is met again


def _check_columns(name: str, method: Method, provider: Provider) -> None:
    """What the method declares makes sense for this model."""
    model_shape = provider.head.model_shape
    if isinstance(method, TextSimilarity):
        raise SettingsError(f"method {name} stores nothing: headwater attribute asks it of any store that keeps texts")
    if isinstance(method, SubsetMethod):
        raise SettingsError(f"method {name} stores no rows: headwater fit fits it to a store's examples")
    seen = [column.name for column in method.columns(model_shape)]
    if not seen or len(set(seen)) != len(seen):
        raise SettingsError(f"method {name} declares columns {seen}: it needs one at least, each name once")
    try:
        precisions_of(method, model_shape)
    except SettingsError as error:
        raise SettingsError(f"method {name}: {error}") from None
    statistics_of = method.statistics(model_shape) if isinstance(method, Similarity) else None
    if statistics_of and isinstance(precisions_of(method, model_shape)[statistics_of[0]], Sign):
        raise SettingsError(
            f"method {name} learns from its stored rows, and signs do not give them back: another precision"
        )
    if model_shape.vocabulary < 2 and method.needs(model_shape).reductions:
        raise SettingsError(
            f"method {name} reads a head's doubt, and one class leaves none: vectors are for --method vectors"
        )
    absent = method.needs(model_shape).beyond(model_shape)
    if absent:
        raise SettingsError(
            f"method {name} needs hidden layers {list(absent)}; the model has {model_shape.layers} below its last"
        )
