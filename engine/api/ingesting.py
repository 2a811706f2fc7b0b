"""Making, opening and extending stores from Python. Knows nothing of how rows are made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypedDict, Unpack

from ...store.errors import ModelError, SettingsError
from ...store.feature_store import FeatureStore
from ...store.json_values import JsonObject
from ..data.python_data import data_of
from ..data.record_source import Data
from ..ingest.ingest_job import IngestJob
from ..ingest.member_model import fingerprints_of
from ..ingest.requested_methods import default_methods
from ..ingest.store_opening import require_same
from ..ingest.text_settings import Boundary, TextSettings
from ..models.language_model import ModelChoice
from ..models.loaded_model import from_objects
from ..runtime.memory import parse_bytes
from .adding import Making, Methods, divided, fit_all, ingested
from .arguments import PathLike, at_least, checked
from .model_holder import ModelHolder
from .opened_store import Store
from .opening import MethodChoice, method_choice, template_of


class ModelKeywords(TypedDict, total=False):
    """How a model is loaded, and what an operation may take."""

    tokenizer: object
    """The tokenizer of a model that is an object; default: the one in the folder that the model was loaded from."""
    device: str
    """"auto", "cpu", "cuda" or "cuda:i"."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"]
    trust_remote_code: bool
    """Whether Python code that ships with the model may run."""
    memory: int | str
    """Largest memory plan: bytes, or a text such as "2GB"."""
    progress: bool
    """Whether progress is shown, on stderr or in the notebook; default: True."""


class ReadingKeywords(ModelKeywords, total=False):
    """How a corpus is read and what is stored of it. Options that are left out are the store's own if it exists."""

    seeds: int
    """Number of seeds of each method: members NAME, NAME@1, …"""
    text_template: str
    prompt_template: str
    completion_template: str
    """Which fields of a record are read, such as "{question}"."""
    response: Literal["chosen", "rejected"]
    """Which answer of a preference pair is read."""
    turns: Literal["last", "all"]
    """Whether the last answer of a conversation is a target, or all of them."""
    max_length: int
    """Tokens of the longest example."""
    targets: Literal["completion", "all"]
    """Tokens whose loss counts, if an example has a prompt."""
    boundary: Boundary
    """Whether prompt and completion are tokenised "joined", "apart", or as the model's loss says ("auto")."""
    truncate: bool
    """Whether examples with a prompt that are too long are truncated."""
    lines: bool
    """Whether each line of plain text is a document."""
    keep_text: bool
    """Whether texts are stored."""
    keep_tokens: bool
    """Whether token ids are stored."""
    keep: Sequence[str]
    """Names of further fields of the records that are stored, for `where` and groups."""
    batch_tokens: int
    """Tokens per batch, padding included."""
    on_error: Literal["fail", "skip"]
    """Whether a bad record is an error, or is skipped."""


class IngestKeywords(ReadingKeywords, total=False):
    """Further options of an ingestion."""

    append: bool
    """Whether the documents of new data are appended to the store."""
    base: PathLike
    """Model of the members in `methods` (NAME@MEMBER), in place of the store's own."""


@checked
def ingest(
    data: object, store: PathLike, *, model: object = None, methods: Methods | None = None,
    **options: Unpack[IngestKeywords],
) -> Store:  # fmt: skip
    """Read a corpus once, store a small sketch of every example, and return the open store.

    Running it again continues where it stopped, adds a method, or with `append=True` adds documents.

    data: the path or URL of a corpus, a list of paths, or records: a list of texts or dicts, a generator, a data set, a table.
    store: the store's folder. model: a folder or hub id of a causal language model, or the model object itself. methods: names,
    or `hw.method(name, setting=…)`.

    Raises:
        HeadwaterError: the data, the model or a setting cannot be used, or the plan exceeds the memory budget.

    >>> import headwater as hw
    >>> store = hw.ingest("corpus.jsonl", "my-store", model="./my-model", methods=["rise", hw.method("grasp", m=512)])
    >>> store.methods
    ['rise', 'grasp']
    """
    at_least("ingest", seeds=(options.get("seeds"), 1), batch_tokens=(options.get("batch_tokens"), 1))
    corpus, path, base = data_of(data, texts=False), absolute(store), str(options.get("base", ""))
    stored, fitted = divided(default_methods(path) if methods is None else methods)
    if base and (unnamed := next((own.name for own in fitted if "@" not in own.name), "")):
        raise SettingsError(f"base is the model of a member: name it, such as {unnamed}@early")
    holder = ModelHolder(model_choice(model, options))
    making = Making(memory_of(options), options.get("progress", True), [])
    job = job_of(corpus, path, holder.choice, stored, options)
    ingested(replace(job, append=options.get("append", False), base=base), holder, making)
    fit_all(FeatureStore.open(path), holder, fitted, making, base)
    opened = Store(FeatureStore.open(path), holder.choice, making.memory, making.progress)
    opened.notes = making.notes
    return opened


def job_of(
    corpus: Sequence[Data], path: str, model: ModelChoice, methods: Mapping[str, JsonObject], options: ReadingKeywords
) -> IngestJob:
    """The ingestion of a corpus into a store."""
    return IngestJob(
        corpus, path, model, methods, text_settings(options), options.get("batch_tokens"), options.get("keep_text"),
        options.get("keep_tokens"), seeds=options.get("seeds", 1), keep=tuple(options.get("keep", ())),
    )  # fmt: skip


def absolute(store: PathLike) -> str:
    """A store's path that does not depend on the working directory; a URL as it is."""
    return str(store) if "://" in str(store) else str(Path(store).expanduser().resolve())


@checked
def open_store(store: PathLike, *, model: object = None, **options: Unpack[ModelKeywords]) -> Store:
    """Open a store for questions. The model is loaded at the first question that needs it, and kept.

    model: where the store's model is now, or the model object itself; default: the path at which it was ingested.

    Raises:
        StoreMissing: no store is there. StoreMismatch: the model object is another one than the store's.

    >>> store = hw.open("my-store")
    >>> len(store)
    24
    >>> print(store[3].id, store.complete)
    corpus.jsonl:4 True
    """
    opened, choice = FeatureStore.open(absolute(store)), model_choice(model, options)
    if choice.loaded is not None:
        require_same(opened.url, choice.loaded.fingerprint, fingerprints_of(opened.provenance))
    return Store(opened, choice, memory_of(options), options.get("progress", True))


open = open_store


def method(name: str = "", *wrong: object, **settings: object) -> MethodChoice:
    """An attribution method with settings, for `ingest` and `Store.add`: `method("grasp", m=2048)`.

    Raises:
        UnknownMethod: no such method is installed. SettingsError: a setting is unknown or of the wrong type.

    >>> hw.method("grasp", m=2048)
    method('grasp', m=2048)
    """
    if wrong or not (isinstance(name, str) and name):
        raise SettingsError('method: expected a name, then settings by their names, such as method("grasp", m=2048)')
    return method_choice(name, settings)  # type: ignore[arg-type]


def model_choice(model: object, options: ModelKeywords) -> ModelChoice:
    """How a model is loaded; None is the store's own.

    Raises:
        ModelError: the object is no model, or has no tokenizer.
    """
    device, dtype = options.get("device", "auto"), options.get("dtype", "auto")
    remote_code = options.get("trust_remote_code", False)
    if model is None or isinstance(model, PathLike):
        if "tokenizer" in options:
            raise ModelError("tokenizer belongs to a model that is an object; a folder has its own")
        return ModelChoice("" if model is None else str(model), device, dtype, remote_code)
    if isinstance(model, tuple) and len(model) == 2:
        loaded = from_objects(*model, device=device)
    else:
        loaded = from_objects(model, options.get("tokenizer"), device)
    return ModelChoice(loaded.path, device, dtype, remote_code, loaded)


def memory_of(options: ModelKeywords) -> int | None:
    """The memory budget in bytes; None for no bound."""
    memory = options.get("memory")
    return parse_bytes(memory) if isinstance(memory, str) else memory


def text_settings(options: ReadingKeywords) -> TextSettings:
    """How texts are read."""
    template = replace(template_of(options), response=options.get("response"), turns=options.get("turns"))
    return TextSettings(
        template, options.get("on_error", "fail"), options.get("max_length"), options.get("targets"),
        options.get("truncate"), options.get("lines"), options.get("boundary"),
    )  # fmt: skip
