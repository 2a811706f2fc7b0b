"""Opens the corpus of a fit: the store's own texts, the files that it was made from, or arrays. Knows no method."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...store.errors import CorpusError, DataError, SettingsError, StoreMismatch
from ...store.feature_store import EXAMPLES, FeatureStore
from ...store.reader import open_column
from ..data.documents import RecordErrors
from ..data.hub_datasets import is_hub_dataset
from ..data.urls import is_url
from ..ingest.array_provider import ArrayProvider
from ..ingest.examples import Place, example_windows
from ..ingest.member_model import fingerprints_of
from ..ingest.open_provider import corpus_provider
from ..ingest.provider import Provider
from ..ingest.store_opening import require_same
from ..ingest.stored_texts import StoredTexts
from ..ingest.text_settings import text_settings_of
from ..interface.subset_method import SubsetMethod
from ..models.language_model import ModelChoice, load, pick_device


def base_provider(store: FeatureStore, base: str, choice: ModelChoice, corpus: Sequence[str]) -> Provider:
    """The provider of the store's examples, read by a base model; "" is the store's own model.

    Raises:
        CorpusError: a file is missing. StoreMismatch: a file or the model differs from those of the store.
    """
    provenance = store.provenance
    model = choice.other(base) if base else choice.of_store(str(provenance.get("model_path", "")))
    if provenance["kind"] == "arrays":
        provider: Provider = ArrayProvider(
            [base] if base else _files(store, corpus), pick_device(choice.device), RecordErrors("fail")
        )
    elif provenance.get("text") or (provenance.get("tokens") and not base):
        provider = StoredTexts(store, load(model))
    else:
        provider = corpus_provider(_files(store, corpus), model, text_settings_of(provenance))
    if not base:
        require_same(store.url, fingerprints_of(provider.provenance()), provenance)
    digests = [source.digest for source in provider.sources]
    stored_digests = [source["digest"] for source in provenance["sources"]]
    if not (base and provenance["kind"] == "arrays") and digests != stored_digests:
        paths = ", ".join(source.path for source in provider.sources[:3])
        raise StoreMismatch(
            f"{store.url} was made from other files than {paths}", hint="give its own files with --corpus"
        )
    return provider


def absolute(base: str) -> str:
    """The absolute path of a folder or file, so that queries in another working directory find it; a hub id unchanged."""
    return str(Path(base).resolve()) if base and Path(base).exists() else base


def require_source(store: FeatureStore, name: str, method: SubsetMethod) -> None:
    """Raise SettingsError if a method runs the model at each step, and a store has neither texts, token ids nor arrays."""
    if method.states_from == "forward" and not (
        store.provenance["kind"] == "arrays" or store.provenance.get("text") or store.provenance.get("tokens")
    ):
        raise SettingsError(
            f"{store.url} keeps no texts, and {name} with these settings reads them at each step",
            hint="ingest without --no-text",
        )


def _files(store: FeatureStore, corpus: Sequence[str]) -> list[str]:
    """The corpus's files at the paths that the user gives, or at their paths at the ingestion."""
    paths = list(corpus) or [source["path"] for source in store.provenance["sources"]]
    local = [path for path in paths if not (is_url(path) or is_hub_dataset(path))]
    missing = [path for path in local if not corpus and (not path or not Path(path).exists())]
    if missing:
        gone = f"{missing[0]} no longer exists" if missing[0] else "records that lay in no file are needed again"
        raise CorpusError(gone, hint=f"give the files of {store.url} with --corpus FILE")
    return paths


def require_rows(store: FeatureStore, provider: Provider) -> None:
    """Check that the examples of a base model's arrays are the store's, one by one. (Texts are the store's own, or their digests
    are compared.)

    Raises:
        DataError: there are more or fewer, or an example has another id or another number of target positions.
    """
    path, rows, count = provider.sources[0].path, store.rows(EXAMPLES), 0
    if store.provenance["kind"] != "arrays":
        return
    columns = {name: open_column(store, EXAMPLES, name) for name in ("id", "source", "counted")}
    for part in example_windows(provider.examples(Place())):
        row_numbers, count = np.arange(count, min(rows, count + len(part))), count + len(part)
        if count > rows:
            break
        stored = {name: column.gather(row_numbers) for name, column in columns.items()}
        for at, example in enumerate(part):
            stored_id = str(stored["id"][at]).removeprefix(str(stored["source"][at]))
            same_targets = example.target_count == int(stored["counted"][at])
            if example.id.removeprefix(example.source) != stored_id or not same_targets:
                raise DataError(
                    f"{path}: example {example.id} differs from the store's {stored['id'][at]} at the same row"
                )
    if count != rows:
        shown_count = f"more than {rows:,}" if count > rows else f"{count:,}"
        raise DataError(f"{path} has {shown_count} examples, but the store has {rows:,}")
