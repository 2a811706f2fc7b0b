"""Where a fit reads its corpus: the store's own texts, the files it was made of, or arrays. Knows no method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ...store.errors import CorpusError, DataError, SettingsError, StoreMismatch
from ...store.feature_store import EXAMPLES, FeatureStore
from ...store.reader import open_column
from ..data.documents import RecordErrors
from ..ingest.array_provider import ArrayProvider
from ..ingest.examples import Place, windows
from ..ingest.open_provider import corpus_provider
from ..ingest.provider import Provider
from ..ingest.store_opening import require_same
from ..ingest.stored_texts import StoredTexts
from ..ingest.text_settings import text_settings_of
from ..interface.subset_method import SubsetMethod
from ..models.language_model import ModelChoice, load, pick_device


def base_provider(store: FeatureStore, base: str, choice: ModelChoice, corpus: Sequence[str]) -> Provider:
    """The store's examples as a base model sees them; "" is the store's own model.

    Raises:
        CorpusError: a file is gone. StoreMismatch: it is another one than the store was made of, or another model.
    """
    there = store.provenance
    if there["kind"] == "arrays":
        provider: Provider = ArrayProvider(
            [base] if base else _files(store, corpus), pick_device(choice.device), RecordErrors("fail")
        )
    elif there.get("text") or (there.get("tokens") and not base):
        provider = StoredTexts(store, load(replace(choice, path=base or choice.path or there["model_path"])))
    else:
        model = replace(choice, path=base or choice.path or there["model_path"])
        provider = corpus_provider(_files(store, corpus), model, text_settings_of(store.provenance))
    if not base:
        given = provider.provenance()
        require_same(store.url, {key: given[key] for key in ("model", "tokenizer") if key in given}, there)
    if not (base and there["kind"] == "arrays") and [one.digest for one in provider.sources] != [
        one["digest"] for one in there["sources"]
    ]:
        raise StoreMismatch(
            f"{store.url} was made of other files than {', '.join(one.path for one in provider.sources[:3])}"
        )
    return provider


def absolute(base: str) -> str:
    """A folder or file as whoever asks a query elsewhere finds it; a hub id as it is."""
    return str(Path(base).resolve()) if base and Path(base).exists() else base


def made_of(provider: Provider) -> dict[str, Any]:
    """What a base's queries must agree with."""
    found = provider.provenance()
    return {key: found[key] for key in ("model", "tokenizer") if key in found}


def require_source(store: FeatureStore, name: str, method: SubsetMethod) -> None:
    """Raise SettingsError where a method reads rows in any order, and a store neither keeps texts nor is of arrays."""
    if method.states_from == "forward" and not (
        store.provenance["kind"] == "arrays" or store.provenance.get("text") or store.provenance.get("tokens")
    ):
        raise SettingsError(
            f"{store.url} keeps no texts, and {name} with these settings reads them at every step: ingest without --no-text"
        )


def _files(store: FeatureStore, corpus: Sequence[str]) -> list[str]:
    """As named, or where they were."""
    found = list(corpus) or [one["path"] for one in store.provenance["sources"]]
    gone = [path for path in found if not corpus and not Path(path).exists()]
    if gone:
        raise CorpusError(f"{gone[0]} is no longer there: --corpus FILE says where {store.url}'s files are now")
    return found


def require_rows(store: FeatureStore, provider: Provider) -> None:
    """See that a base model's examples are the store's, one for one: of arrays; texts are the store's own, or known by digest.

    Raises:
        DataError: there are more or fewer, one has another name, or another number of positions.
    """
    path, rows, seen = provider.sources[0].path, store.rows(EXAMPLES), 0
    if store.provenance["kind"] != "arrays":
        return
    columns = {name: open_column(store, EXAMPLES, name) for name in ("id", "source", "counted")}
    for part in windows(provider.examples(Place())):
        numbers, seen = np.arange(seen, min(rows, seen + len(part))), seen + len(part)
        if seen > rows:
            break
        held = {name: column.gather(numbers) for name, column in columns.items()}
        for at, example in enumerate(part):
            own = str(held["id"][at]).removeprefix(str(held["source"][at]))
            if example.id.removeprefix(example.source) != own or example.target_count != int(held["counted"][at]):
                raise DataError(f"{path}: example {example.id} stands where the store has {held['id'][at]}")
    if seen != rows:
        raise DataError(f"{path} has {'more' if seen > rows else seen} examples, the store {rows:,}")
