"""`ingest` as one call: prepare the store, the model and the plan, then run. Knows no method by name.

job = IngestJob(["corpus.jsonl"], "store", ModelChoice("model"), {"rise": {"tau": 1.0}})
result = prepare(job).ingest()
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ...store.completeness import require_whole
from ...store.errors import CorpusError, SettingsError, StoreMissing
from ...store.feature_store import FeatureStore
from ...store.json_values import JsonObject
from ...store.rowless_store import is_unused
from ..data.array_files import is_array_path
from ..data.documents import RecordErrors
from ..data.kept_columns import require_columns
from ..data.record_source import Data
from ..data.sources import left_out_notes
from ..interface.method import Method
from ..models.language_model import ModelChoice, load
from ..runtime.memory import Plan
from ..runtime.run import SILENT, Run
from .boundary import with_better_boundary
from .examples import Place, StoredFields
from .ingest_plan import choose_batch
from .ingestion import Ingestion, IngestResult
from .member_model import base_of
from .open_provider import corpus_provider
from .provider import Provider
from .requested_methods import check_kind, check_method, requested_method, with_seeds
from .store_opening import Opening, open_for_ingest
from .stored_columns import columns_to_keep
from .stored_texts import StoredTexts
from .text_provider import TextProvider
from .text_settings import TextSettings


@dataclass(frozen=True, slots=True)
class IngestJob:
    """What to ingest, with which model and methods, and into which store."""

    corpus: Sequence[Data]
    """Files, folders or globs of text, or records; or .npz files and Zarr groups of arrays. Empty: the examples of the
    store, which must be there.
    """
    store: str
    """Folder of the store, created if it does not exist."""
    model: ModelChoice
    """The model and how to run it."""
    methods: Mapping[str, JsonObject]
    """Method name → its settings. Those left out are the store's if the store has the method, else the defaults."""
    text: TextSettings = field(default_factory=TextSettings)
    """How files of text are read."""
    batch_tokens: int | None = None
    """Largest number of tokens of a batch, padding included; None: 4,096 (or one longest example), or fewer to fit the budget."""
    with_text: bool | None = None
    """Whether texts are stored; None: as in the existing store; a new store gets them."""
    with_tokens: bool | None = None
    """Whether token ids and target positions are stored; None: as in the existing store; a new one gets them with texts."""
    append: bool = False
    """Whether the documents of new files are appended to the store."""
    seeds: int = 1
    """Number of seeds of each method; the methods with further seeds are named NAME@1, NAME@2, …"""
    base: str = ""
    """Path of the model of the members in `methods`, in place of the store's own; empty: the recorded one, or the store's own."""
    commit_seconds: float = 15.0
    """Seconds between commits: a run that is killed loses at most this much work, plus one window."""
    keep: Sequence[str] = ()
    """Columns of the corpus whose values are stored as text; none: those of the existing store. `meta.topic` is the field `topic`
    of the object `meta`.
    """


@dataclass(frozen=True, slots=True)
class PreparedIngest:
    """An ingestion that is ready to start; nothing is written yet."""

    job: IngestJob
    provider: Provider
    methods: dict[str, Method]
    plan: Plan
    tokens: int
    """Largest number of tokens of a batch, padding included."""
    stored_fields: StoredFields
    has_base: bool = False
    """Whether the methods are members with a model of their own."""

    @property
    def notes(self) -> list[str]:
        """What the user should know before the start, one per line."""
        paths = [item for item in self.job.corpus if isinstance(item, str) and not is_array_path(item)]
        own = (self._skipped_weights_notes(), self._stored_fields_notes(), self._reading_notes())
        return [*left_out_notes(paths), *itertools.chain.from_iterable(own)]

    @property
    def remarks(self) -> list[str]:
        """What the methods say of their rows of this model, one per line."""
        shape = self.provider.head.model_shape
        return [f"{name}: {line}" for name, method in self.methods.items() for line in method.remarks(shape)]

    def _reading_notes(self) -> list[str]:
        """How conversations are read, where no option says it."""
        chat = self.provider.chat if isinstance(self.provider, TextProvider) else None
        if chat is None or not chat.reads_clock:
            return []
        return [f"the chat template reads the clock: in this store it is always {chat.day.isoformat()}"]

    def _skipped_weights_notes(self) -> list[str]:
        model_shape = self.provider.head.model_shape
        names = [name for name, method in self.methods.items() if method.needs(model_shape).linear_layers]
        if not names or not model_shape.skipped_weights:
            return []
        weights = ", ".join(model_shape.skipped_weights[:2]) + (" …" if len(model_shape.skipped_weights) > 2 else "")
        return [
            f"{', '.join(names)}: the gradients of {len(model_shape.skipped_weights)} weights outside linear layers ({weights}) "
            "are left out"
        ]

    def _stored_fields_notes(self) -> list[str]:
        """What a store without texts or token ids cannot do."""
        if self.provider.provenance()["kind"] != "text":
            return []
        text, tokens = self.stored_fields.text, self.stored_fields.tokens
        notes = []
        if not text:
            notes.append(
                "texts are not stored (--no-text): methods that compare texts, per-token scores and labels given as a text "
                "pattern do not work with this store, and answers show ids without texts"
            )
        if not text and not tokens:
            notes.append("token ids are not stored either: a fit reads the corpus's files again")
        if text and not tokens:
            notes.append("token ids are not stored (--no-tokens): a fit tokenises the stored texts again")
        return notes

    def ingest(self) -> IngestResult:
        """Run the whole ingestion, without progress."""
        return self.open().run()

    def open(self) -> Ingestion:
        """Create or open the store. Before a store of texts is created, the token boundary is chosen by the model's losses,
        unless the job names one; the provider's notes then give these losses.

        Raises:
            StoreMismatch: the store has another model, tokenizer, corpus or settings.
        """
        provider = self.provider
        is_new = not FeatureStore.exists(self.job.store) or is_unused(FeatureStore.open(self.job.store))
        if isinstance(provider, TextProvider) and is_new:
            provider = with_better_boundary(provider, self.job.text.boundary, self.tokens)
        store = open_for_ingest(
            self.job.store, provider, self.methods, Opening(self.stored_fields, self.job.append, self.has_base)
        )
        return Ingestion(provider, store, self.methods, self.tokens, self.job.commit_seconds)


def prepare(job: IngestJob, run: Run = SILENT) -> PreparedIngest:
    """Load the model, find the files, and make a plan within the run's budget.

    Raises:
        HeadwaterError: one of these fails; nothing is written.
    """
    if "://" in job.store:
        raise SettingsError(
            f"{job.store}: a store can only be written to a local folder", hint="write it there, then copy it"
        )
    store = FeatureStore.open(job.store) if FeatureStore.exists(job.store) else None
    if store is not None:
        store.require_writable()
        store = None if is_unused(store) else store  # its settings bind no run
    methods = {
        label: method
        for name, settings in job.methods.items()
        for label, method in with_seeds(name, requested_method(name, settings, store), job.seeds, store).items()
    }
    for name, method in methods.items():
        check_kind(name, method)
    is_text_store = store is not None and store.provenance["kind"] == "text"
    settings = job.text.completed_from(store.provenance) if store and is_text_store else job.text
    settings = replace(settings, keep=columns_to_keep(job.keep, store))
    base = base_of(store, list(methods), job.base, append=job.append)
    if job.corpus:
        own = job.model if store is None else job.model.of_store(str(store.provenance.get("model_path", "")))
        provider = corpus_provider(job.corpus, job.model.other(base) if base else own, settings)
    else:
        provider = stored_provider(store, job, base)
    fields = _stored_fields(job, provider, store, settings.keep)
    if job.corpus and (store is None or job.append):
        require_columns(provider.sources, settings.keep)
    for name, method in methods.items():
        check_method(name, method, provider)
    if store is None:
        _require_an_example(provider, settings)
    tokens, plan = choose_batch(provider, methods, run.budget, job.batch_tokens, fields)
    return PreparedIngest(job, provider, methods, plan, tokens, fields, bool(base))


def stored_provider(store: FeatureStore | None, job: IngestJob, base: str) -> StoredTexts:
    """The provider of a store's own examples, read by the store's model, or by the model `base` of members.

    Raises:
        SettingsError: the store keeps neither texts nor token ids. StoreMissing: it is not there, or lacks examples.
    """
    if store is None:
        raise StoreMissing(f"{job.store}: no store is there: headwater ingest CORPUS --store {job.store} makes one")
    if store.provenance["kind"] != "text":
        files = " ".join(str(source.get("path", "FILE")) for source in store.provenance["sources"][:3])
        raise SettingsError(
            f"{store.url} was made from arrays, which it does not keep: run headwater ingest {files} --store {store.url} "
            "with the method"
        )
    require_whole(store)
    own = job.model.other(base) if base else job.model.of_store(str(store.provenance.get("model_path", "")))
    return StoredTexts(store, load(own))


def _stored_fields(
    job: IngestJob, provider: Provider, store: FeatureStore | None, keep: tuple[str, ...]
) -> StoredFields:
    """The fields that the job asks for, with the columns that are kept; where it does not say, those of the existing store.

    By default a new store gets texts, and token ids with them unless the corpus is of arrays.

    Raises:
        SettingsError: the job asks for token ids or columns of arrays.
    """
    if keep and provider.provenance()["kind"] != "text":
        raise SettingsError(
            "--keep is of records, not of arrays", hint="give labels beside the examples with --columns FILE.npz"
        )
    if job.with_tokens and provider.provenance()["kind"] != "text":
        raise SettingsError("arrays have no token ids to store", hint="leave out with_tokens")
    text = job.with_text if job.with_text is not None else bool(store.provenance["text"]) if store else True
    default = bool(store.provenance.get("tokens")) if store else text and provider.provenance()["kind"] == "text"
    return StoredFields(text, default if job.with_tokens is None else job.with_tokens, keep)


def _require_an_example(provider: Provider, settings: TextSettings) -> None:
    """Raise CorpusError for a corpus without examples, before anything is written."""
    if next(iter(provider.examples(Place())), None) is None:
        raise CorpusError(f"no example in {', '.join(source.path for source in provider.sources)}")
    provider.record_errors = RecordErrors(settings.on_error)  # count from zero: the ingestion reads these records again
