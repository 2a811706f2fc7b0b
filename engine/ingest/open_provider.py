"""From what a user names, files and a model, to a provider: for a new corpus, and for queries to a store that exists.
Knows no method.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from ...store.errors import CorpusError, ModelError
from ...store.feature_store import FeatureStore
from ..data.array_files import is_array_path
from ..data.documents import RecordErrors, Template
from ..data.sources import find_sources
from ..models.language_model import ModelChoice, load, pick_device
from .array_provider import ArrayProvider
from .provider import Provider
from .store_opening import refuse_differences
from .text_provider import TextProvider
from .text_settings import text_settings


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How files are to be read; what is None follows the store, or else the default."""

    template: Template
    """Which fields are text."""
    on_error: Literal["fail", "skip"] = "fail"
    """What a bad record does."""
    max_length: int | None = None
    """Tokens of the longest example."""
    attribute: str | None = None
    """`completion` or `all`."""
    truncate: bool | None = None
    """Whether prompted rows that are too long are cut."""
    lines: bool | None = None
    """Whether plain text has a document a line instead of a paragraph."""


def following(reading: ReadOptions, store: FeatureStore) -> ReadOptions:
    """What was left open, as the store's rows were read."""
    there = store.provenance
    if there["kind"] == "arrays":
        return reading
    given = reading.template
    template = given if given != Template() else Template(**there["template"])
    open_ones = {
        name: there[name] for name in ("max_length", "attribute", "truncate", "lines") if getattr(reading, name) is None
    }
    return replace(reading, template=template, **open_ones)


def corpus_provider(paths: Sequence[str], choice: ModelChoice, reading: ReadOptions) -> Provider:
    """The provider of a corpus: arrays if the files hold arrays, else text with a model.

    Raises:
        CorpusError: no such file; ModelError: no such model, or none named; SettingsError: a length out of range.
    """
    if any(is_array_path(path) for path in paths):
        if not all(is_array_path(path) for path in paths):
            raise CorpusError("arrays and text cannot be one corpus")
        return ArrayProvider(list(paths), pick_device(choice.device), RecordErrors(reading.on_error))
    sources = find_sources(paths, lines=bool(reading.lines))
    if not choice.path:
        raise ModelError("text needs a model to read it: --model FOLDER_OR_HUB_ID")
    model = load(choice)
    settings = text_settings(
        model.head.model_shape,
        reading.max_length,
        reading.attribute or "completion",
        reading.template,
        bool(reading.truncate),
        bool(reading.lines),
    )
    return TextProvider(model, sources, settings, RecordErrors(reading.on_error))


def query_provider(
    path: str, store: FeatureStore, choice: ModelChoice, template: Template, made: Mapping[str, Any] | None = None
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
    settings = text_settings(model.head.model_shape, model.head.model_shape.max_length, "completion", template)
    return TextProvider(model, sources, settings, RecordErrors("fail"))
