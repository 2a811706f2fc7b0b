"""Attribution as one call: what the command line and the Python API ask. Knows no method by name.

question = ask("store", "rise", "questions.jsonl", top=10)
results = question.attribute()          # results.rows, results.scores: (queries, 10)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from ...store.errors import SettingsError, UnknownMethod
from ...store.feature_store import FeatureStore
from ...store.layout import Array
from ..arrays.forecast import Forecast
from ..intake.corpus import Template
from ..intake.model import ModelChoice, pick_device
from ..intake.provider import Provider
from ..intake.providers import query_provider
from ..memory import Plan
from ..method import QueryMatrix, TextSimilarity
from ..registry import load
from .attribution import Attribution, Results, Search
from .export import export
from .queries import read_queries
from .texts import TextQuestion

STORED_MODEL = ModelChoice("")
"""The model that the store was made with, where it was then."""
DETECTED = Template()
"""Fields found by their usual names."""
SCAN = Search()
"""One scan of the rows as they are stored."""
Tell = Callable[[int], None]


def _silent(rows: int) -> None:
    """Progress that nobody wants to hear of."""


class Question:
    """Queries to a store, planned, with nothing computed yet."""

    def __init__(self, attribution: Attribution, provider: Provider, top: int) -> None:
        """See :func:`ask`."""
        self._attribution, self._provider, self._top = attribution, provider, top
        self._queries = read_queries(provider)
        self.plan: Plan
        self.plan, self.shape = attribution.plan(provider, self._queries, top)

    @property
    def store(self) -> FeatureStore:
        """The store that is asked."""
        return self._attribution.store

    @property
    def rows(self) -> int:
        """Stored examples that are asked."""
        return self._attribution.rows

    @property
    def queries(self) -> dict[str, str]:
        """Query id → its text, prompt first."""
        return {query.id: query.prompt + query.text for query in self._queries}

    def forecast(self) -> Forecast | None:
        """What the search will read and take, measured on its first rows; None where a method scores rows itself."""
        return self._attribution.forecast(len(self._queries), self._top, self.shape)

    def hold(self) -> int:
        """Keep the rows that are scanned in memory, from now on; the bytes that they take, which are in no plan."""
        return self._attribution.hold()

    def attribute(self, tell: Tell = _silent) -> Results:
        """The best examples of each query."""
        ids = [query.id for query in self._queries]
        return self._attribution.attribute(self._prepared(), ids, self._top, self.shape, tell)

    def export(self, path: str, tell: Tell = _silent) -> None:
        """Every example's score for every query, to a .zarr group that is not there yet."""
        ids = [query.id for query in self._queries]
        export(path, self.scores(tell), self.rows, ids, self._attribution.name)

    def scores(self, tell: Tell = _silent) -> Iterator[tuple[int, Array]]:
        """(first row, (rows, Q) scores) of every example, in order; an array holds until the next is asked for."""
        return self._attribution.every_score(self._prepared(), self.shape, tell)

    def value(self, tell: Tell = _silent) -> Iterator[tuple[int, Array]]:
        """(first row, scores) of every example against all queries together, in order."""
        return self._attribution.value(self._prepared(), self.shape, tell)

    def most_valuable(self, tell: Tell = _silent) -> Results:
        """The best examples for all queries together."""
        return self._attribution.most_valuable(self._prepared(), self._top, self.shape, tell)

    def _prepared(self) -> QueryMatrix:
        return self._attribution.prepare(self._provider, self._queries)


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
) -> Question | TextQuestion:
    """Open the store, load its model (where the method needs one), read the queries, make the plan.

    Raises:
        HeadwaterError: whatever of these is not as it should be.
    """
    if choice.device.startswith("cuda"):  # asked for in so many words; auto leaves the scan to the processor
        search = replace(search, device=pick_device(choice.device).index or 0)
    opened = FeatureStore.open(store)
    text_method = text_similarity(method, opened)
    if text_method:
        if replace(search, every=False) != SCAN:
            raise SettingsError(f"method {method} stores no rows: leave --scan, --candidates, --certify and --device")
        return TextQuestion(opened, method, text_method, queries, template, top, memory)
    attribution = Attribution(opened, method, memory, search)
    return Question(attribution, query_provider(queries, opened, choice, template), top)
