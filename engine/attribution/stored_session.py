"""Query session of methods with stored rows: planned, then answered in one pass. Knows no method by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ...store.feature_store import FeatureStore
from ...store.layout import Array
from ..arrays.scan.forecast import Forecast
from ..ingest.provider import Provider
from ..interface.method import QueryMatrix
from ..results.results import Results
from ..results.score_export import export
from ..runtime.memory import Plan
from .queries import read_queries
from .stored_scores import StoredScores

OnProgress = Callable[[int], None]


def _silent(rows: int) -> None:
    """Progress that nobody wants to hear of."""


class StoredSession:
    """Queries to a store, planned, with nothing computed yet."""

    def __init__(self, attribution: StoredScores, provider: Provider, top: int) -> None:
        """See :func:`.ask.ask`."""
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

    @property
    def notes(self) -> list[str]:
        """Nothing: scores are what they are."""
        return []

    def attribute(self, on_progress: OnProgress = _silent) -> Results:
        """The best examples of each query."""
        ids = [query.id for query in self._queries]
        return self._attribution.attribute(self._prepared(), ids, self._top, self.shape, on_progress)

    def export(self, path: str, on_progress: OnProgress = _silent) -> None:
        """Every example's score for every query, to a .zarr group that is not there yet."""
        ids = [query.id for query in self._queries]
        export(path, self.scores(on_progress), self.rows, ids, self._attribution.name)

    def scores(self, on_progress: OnProgress = _silent) -> Iterator[tuple[int, Array]]:
        """(first row, (rows, Q) scores) of every example, in order; an array holds until the next is asked for."""
        return self._attribution.every_score(self._prepared(), self.shape, on_progress)

    def value(self, on_progress: OnProgress = _silent) -> Iterator[tuple[int, Array]]:
        """(first row, scores) of every example against all queries together, in order."""
        return self._attribution.value(self._prepared(), self.shape, on_progress)

    def most_valuable(self, on_progress: OnProgress = _silent) -> Results:
        """The best examples for all queries together."""
        return self._attribution.most_valuable(self._prepared(), self._top, self.shape, on_progress)

    def _prepared(self) -> QueryMatrix:
        return self._attribution.prepare(self._provider, self._queries)
