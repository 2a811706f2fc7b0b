"""Opens the query session that fits a method: the entry point of attribution for commands and Python. Knows no method by name.

question = ask("store", "rise", "questions.jsonl", top=10)
results = question.attribute()          # results.rows, results.scores: (queries, 10)
"""

from __future__ import annotations

from dataclasses import replace

from ...store.errors import SettingsError, UnknownMethod
from ...store.feature_store import FeatureStore
from ..data.documents import Template
from ..ingest.open_provider import query_provider
from ..interface.method import TextSimilarity
from ..interface.registry import load
from ..interface.subset_method import SubsetMethod
from ..models.language_model import ModelChoice, pick_device
from .recovered_session import RecoveredSession
from .seeded_session import SeededSession, seeds_of
from .stored_scores import SearchOptions, StoredScores
from .stored_session import StoredSession
from .text_session import TextSession

STORED_MODEL = ModelChoice("")
"""The model that the store was made with, where it was then."""
DETECTED = Template()
"""Fields found by their usual names."""
SCAN = SearchOptions()
"""One scan of the rows as they are stored."""


def is_fitted(name: str, store: FeatureStore) -> bool:
    """Whether the method is one of those that are fitted, and store no rows."""
    if name in store.methods:
        return False
    try:
        return issubclass(load(name), SubsetMethod)
    except UnknownMethod:
        return False  # whoever asks for its rows says that there are none


def text_similarity(name: str, store: FeatureStore) -> TextSimilarity | None:
    """The method, if it is one that compares texts; None for any other, and for rows that the store holds under the name."""
    if name in store.methods:
        return None
    try:
        kind = load(name)
    except UnknownMethod:
        return None  # whoever asks for its rows says that there are none
    return kind() if issubclass(kind, TextSimilarity) else None


def ask(
    store: str,
    method: str,
    queries: str,
    *,
    choice: ModelChoice = STORED_MODEL,
    template: Template = DETECTED,
    top: int = 10,
    memory: int | None = None,
    search: SearchOptions = SCAN,
) -> StoredSession | TextSession | SeededSession | RecoveredSession:
    """Open the store, load its model (where the method needs one), read the queries, make the plan.

    Raises:
        HeadwaterError: whatever of these is not as it should be.
    """
    if choice.device.startswith("cuda"):  # asked for in so many words; auto leaves the scan to the processor
        search = replace(search, device=pick_device(choice.device).index or 0)
    opened = FeatureStore.open(store)
    if search.seeds:
        if replace(search, every=False, seeds=False, device=None) != SCAN:
            raise SettingsError("--seeds scans the rows as they are stored: leave --scan, --candidates and --certify")
        names = seeds_of(opened, method)
        provider, every = query_provider(queries, opened, choice, template), SearchOptions(every=True)
        each = [StoredSession(StoredScores(opened, name, memory, every), provider, top) for name in names]
        return SeededSession(method, each, top, memory)
    text_method = text_similarity(method, opened)
    if text_method:
        if replace(search, every=False) != SCAN:
            raise SettingsError(f"method {method} stores no rows: leave --scan, --candidates, --certify and --device")
        return TextSession(opened, method, text_method, queries, template, top, memory)
    if is_fitted(method, opened):
        if replace(search, every=False, device=None) != SCAN:
            raise SettingsError(f"method {method} stores no rows: leave --scan, --candidates and --certify")
        return RecoveredSession(opened, method, queries, choice, template, top, memory)
    attribution = StoredScores(opened, method, memory, search)
    return StoredSession(attribution, query_provider(queries, opened, choice, template), top)
