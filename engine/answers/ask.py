"""Attribution as one call: what the command line and the Python API ask. Knows no method by name.

question = ask("store", "rise", "questions.jsonl", top=10)
results = question.attribute()          # results.rows, results.scores: (queries, 10)
"""

from __future__ import annotations

from dataclasses import replace

from ...store.errors import SettingsError, UnknownMethod
from ...store.feature_store import FeatureStore
from ..intake.corpus import Template
from ..intake.model import ModelChoice, pick_device
from ..intake.providers import query_provider
from ..method import Measured, TextSimilarity
from ..registry import load
from .attribution import Attribution, Search
from .question import Question
from .recovery import RecoveryQuestion
from .seeds import SeededQuestion, seeds_of
from .texts import TextQuestion

STORED_MODEL = ModelChoice("")
"""The model that the store was made with, where it was then."""
DETECTED = Template()
"""Fields found by their usual names."""
SCAN = Search()
"""One scan of the rows as they are stored."""


def is_fitted(name: str, store: FeatureStore) -> bool:
    """Whether the method is one of those that are fitted, and store no rows."""
    if name in store.methods:
        return False
    try:
        return issubclass(load(name), Measured)
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
    search: Search = SCAN,
) -> Question | TextQuestion | SeededQuestion | RecoveryQuestion:
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
        provider, every = query_provider(queries, opened, choice, template), Search(every=True)
        each = [Question(Attribution(opened, name, memory, every), provider, top) for name in names]
        return SeededQuestion(method, each, top, memory)
    text_method = text_similarity(method, opened)
    if text_method:
        if replace(search, every=False) != SCAN:
            raise SettingsError(f"method {method} stores no rows: leave --scan, --candidates, --certify and --device")
        return TextQuestion(opened, method, text_method, queries, template, top, memory)
    if is_fitted(method, opened):
        if replace(search, every=False, device=None) != SCAN:
            raise SettingsError(f"method {method} stores no rows: leave --scan, --candidates and --certify")
        return RecoveryQuestion(opened, method, queries, choice, template, top, memory)
    attribution = Attribution(opened, method, memory, search)
    return Question(attribution, query_provider(queries, opened, choice, template), top)
