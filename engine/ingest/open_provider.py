"""Opens the provider for what a user names: a corpus with a model, arrays, or queries to an existing store. Knows no method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ...store.errors import CorpusError, ModelError
from ...store.feature_store import FeatureStore
from ...store.files import JsonFacts
from ..data.array_files import is_array_path
from ..data.documents import RecordErrors, Template
from ..data.sources import find_sources
from ..models.language_model import ModelChoice, load, pick_device
from .array_provider import ArrayProvider
from .provider import Provider
from .store_opening import refuse_differences
from .text_provider import TextProvider
from .text_settings import TextSettings


def corpus_provider(paths: Sequence[str], choice: ModelChoice, settings: TextSettings) -> Provider:
    """The provider of a corpus: arrays if the files hold arrays, else text with a model.

    Raises:
        CorpusError: no such file; ModelError: no such model, or none named; SettingsError: a length out of range.
    """
    if any(is_array_path(path) for path in paths):
        if not all(is_array_path(path) for path in paths):
            raise CorpusError("arrays and text cannot be one corpus")
        return ArrayProvider(list(paths), pick_device(choice.device), RecordErrors(settings.on_error))
    sources = find_sources(paths, lines=bool(settings.lines))
    if not choice.path:
        raise ModelError("text needs a model to read it: --model FOLDER_OR_HUB_ID")
    model = load(choice)
    resolved = settings.resolved(model.head.model_shape)
    return TextProvider(model, sources, resolved, RecordErrors(settings.on_error))


def query_provider(
    path: str, store: FeatureStore, choice: ModelChoice, template: Template, made: JsonFacts | None = None
) -> Provider:
    """The provider of queries to a store: by the store's own model, up to the model's context, completions alone counted.

    `made` stands for the store's provenance where queries are read by another model than the store's, which `choice` names.

    Raises:
        StoreMismatch: the model or the tokenizer is not the store's.
    """
    there = store.provenance if made is None else made
    if store.provenance["kind"] == "arrays":
        if Path(path).exists() and not is_array_path(path):
            raise CorpusError(
                f"{path} is no file of arrays; {store.url} was made from arrays, so its queries are .npz or Zarr too"
            )
        provider: Provider = ArrayProvider([path], pick_device(choice.device), RecordErrors("fail"))
        refuse_differences(store.url, provider.provenance(), there)
        return provider
    sources = find_sources([path])
    model = load(replace(choice, path=choice.path or store.provenance["model_path"]))
    refuse_differences(store.url, model.fingerprint, there)
    shape = model.head.model_shape
    settings = TextSettings(template, max_length=shape.max_length).resolved(shape)
    return TextProvider(model, sources, settings, RecordErrors("fail"))
