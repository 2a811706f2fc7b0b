"""Opens the provider of a corpus (of texts with a model, or of arrays) or of the queries to an existing store. Knows no
method.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from ...store.errors import CorpusError, ModelError
from ...store.feature_store import FeatureStore
from ...store.json_values import JsonObject
from ..data.array_files import is_array_path
from ..data.documents import RecordErrors, Template, suits
from ..data.record_source import Data, RecordSource, name_of_data
from ..data.sources import find_sources
from ..models.language_model import LanguageModel, ModelChoice, load, pick_device
from .array_provider import ArrayProvider
from .member_model import MemberModel
from .provider import Provider
from .store_opening import require_same
from .text_provider import TextProvider
from .text_settings import TextSettings

_CHOICES = ("response", "turns")  # fields of a template that are no templates themselves


def corpus_provider(data: Sequence[Data], choice: ModelChoice, settings: TextSettings) -> Provider:
    """The provider of a corpus: arrays if the files hold arrays, else text with a model.

    Raises:
        CorpusError: a file does not exist. ModelError: the model does not exist, or none is named. SettingsError: a length is
            out of range.
    """
    arrays = [item for item in data if isinstance(item, str) and is_array_path(item)]
    if arrays:
        if len(arrays) < len(data):
            raise CorpusError("one corpus cannot hold both arrays and texts", hint="ingest them into two stores")
        return ArrayProvider(arrays, pick_device(choice.device), RecordErrors(settings.on_error))
    sources = find_sources(data, lines=bool(settings.lines))
    if not choice.path and choice.loaded is None:
        raise ModelError("a corpus of texts needs a model: --model FOLDER_OR_HUB_ID")
    model = load(choice)
    resolved = settings.resolved(model.head.model_shape)
    return TextProvider(model, sources, resolved, RecordErrors(settings.on_error))


def query_provider(
    data: Data, store: FeatureStore, choice: ModelChoice, asked: TextSettings, member: MemberModel | None = None
) -> Provider:
    """The provider of queries to a store: read by a member's model (None: the store's own), as :func:`query_settings` says.

    `choice`: with the model's path, if it moved.

    Raises:
        StoreMismatch: the model or the tokenizer is another one. ModelError: the model is not there.
    """
    own = member or MemberModel.of_store(store)
    if store.provenance["kind"] == "arrays":
        if isinstance(data, RecordSource) or (Path(data).exists() and not is_array_path(data)):
            raise CorpusError(
                f"{name_of_data(data)} is not a file of arrays, but {store.url} was made from arrays",
                hint="give the queries as .npz or Zarr",
            )
        provider: Provider = ArrayProvider([data], pick_device(choice.device), RecordErrors(asked.on_error))
        require_same(_subject(store, own), provider.provenance(), {**store.provenance, **own.fingerprints})
        return provider
    settings = query_settings(data, store.provenance, asked)
    sources = find_sources([data], lines=bool(settings.lines))  # before the model is loaded: a wrong path fails at once
    model = _load_own(own.chosen(choice), own)
    require_same(_subject(store, own), model.fingerprint, own.fingerprints)
    context = model.head.model_shape.max_length
    length = min(settings.max_length or context, context) if settings.truncate else context  # a query is never split
    shorter = replace(settings, max_length=length)
    queries = TextProvider(model, sources, shorter.resolved(model.head.model_shape), RecordErrors(asked.on_error))
    stored = TextSettings.from_provenance(store.provenance).template
    if stored.names_fields and not asked.template.names_fields and not is_plain(data):
        taken = settings.template == stored
        queries.notes.append(
            f"queries are read with the store's template: {_show(stored)}" if taken else
            f"{name_of_data(data)} lacks the fields of the store's template ({_show(stored)}): queries are read by their field "
            "names"
        )  # fmt: skip
    return queries


def _subject(store: FeatureStore, own: MemberModel) -> str:
    """What a model is compared with, for errors."""
    return f"{store.url}, member {own.member}," if own.member else store.url


def _load_own(choice: ModelChoice, own: MemberModel) -> LanguageModel:
    """Load a model; the error names the member whose model it is."""
    try:
        return load(choice)
    except ModelError as error:
        if not own.member:
            raise
        if not own.path:
            raise ModelError(f"the model of {own.member} was an object in memory: give it again") from None
        again = f"ingest or fit with --method {own.member} --base PATH records its new place"
        raise ModelError(f"the model of {own.member}: {error}; if it moved, {again}") from None


def _show(template: Template) -> str:
    """The options that give a template."""
    chosen = {name: value for name, value in asdict(template).items() if value}
    return ", ".join(f"--{name}{'' if name in _CHOICES else '-template'} {value!r}" for name, value in chosen.items())


def is_plain(data: Data) -> bool:
    """Whether data are texts that stand for themselves, which no template reads."""
    return isinstance(data, RecordSource) and data.plain


def query_settings(data: Data, provenance: JsonObject, asked: TextSettings) -> TextSettings:
    """How queries are read: as the store's examples were (template, length, truncation, token boundary, date), except that of a
    query with a prompt only the completion's tokens are targets.

    Without a template of their own in `asked`, queries that lack the fields of the store's template are read by their field
    names, and plain texts by no template.

    Raises:
        CorpusError: the file does not exist or cannot be read.
    """
    settings = replace(asked, attribute="completion").completed_from(provenance)
    stored = settings.template
    if stored.names_fields and not asked.template.names_fields:
        sources = find_sources([data], lines=bool(settings.lines))
        if is_plain(data) or not all(suits(stored, source) for source in sources):
            return replace(settings, template=Template(response=stored.response, turns=stored.turns))
    return settings
