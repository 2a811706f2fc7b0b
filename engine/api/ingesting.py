"""Making, opening and extending stores from Python. Knows nothing of how rows are made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, TypedDict, Unpack

from ...store.errors import ModelError
from ...store.feature_store import FeatureStore
from ..data.python_data import data_of
from ..ingest.ingest_job import IngestJob
from ..ingest.member_model import fingerprints_of
from ..ingest.store_opening import require_same
from ..ingest.text_settings import Boundary, TextSettings
from ..models.language_model import ModelChoice
from ..models.loaded_model import from_objects
from ..runtime.memory import parse_bytes
from .adding import Methods, divided, fit_all, ingested
from .arguments import PathLike, checked
from .opened_store import Store
from .opening import MethodChoice, ModelHolder, method_choice, template_of

if TYPE_CHECKING:
    pass


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


class IngestKeywords(ModelKeywords, total=False):
    """Further options of an ingestion. Those left out are the store's own if it exists."""

    append: bool
    """Whether the documents of new data are appended to the store."""
    seeds: int
    """Number of seeds of each method: members NAME, NAME@1, …"""
    base: PathLike
    """Model of the members in `methods` (NAME@MEMBER), in place of the store's own."""
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


@checked
def ingest(
    data: object, store: PathLike, *, model: object = None, methods: Methods = "rise",
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
    holder = ModelHolder(model_choice(model, options))
    memory, progress = memory_of(options), options.get("progress", True)
    stored, fitted = divided(methods)
    job = IngestJob(
        data_of(data, texts=False), str(store), holder.choice, stored, text_settings(options), options.get("batch_tokens"),
        options.get("keep_text"), options.get("keep_tokens"), options.get("append", False), options.get("seeds", 1),
        str(options.get("base", "")), keep=tuple(options.get("keep", ())),
    )  # fmt: skip
    notes = ingested(job, holder, memory, progress=progress)
    notes += fit_all(FeatureStore.open(str(store)), holder, fitted, memory, progress=progress)
    opened = Store(FeatureStore.open(str(store)), holder.choice, memory, progress)
    opened.notes += notes
    return opened


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
    opened, choice = FeatureStore.open(str(store)), model_choice(model, options)
    if choice.loaded is not None:
        require_same(opened.url, choice.loaded.fingerprint, fingerprints_of(opened.provenance))
    return Store(opened, choice, memory_of(options), options.get("progress", True))


open = open_store


def method(name: str, **settings: object) -> MethodChoice:
    """An attribution method with settings, for `ingest` and `Store.add`: `method("grasp", m=2048)`.

    Raises:
        UnknownMethod: no such method is installed. SettingsError: a setting is unknown or of the wrong type.

    >>> hw.method("grasp", m=2048)
    method('grasp', m=2048)
    """
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


def text_settings(options: IngestKeywords) -> TextSettings:
    """How texts are read."""
    template = replace(template_of(options), response=options.get("response"), turns=options.get("turns"))
    return TextSettings(
        template, options.get("on_error", "fail"), options.get("max_length"), options.get("targets"),
        options.get("truncate"), options.get("lines"), options.get("boundary"),
    )  # fmt: skip
