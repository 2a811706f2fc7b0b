"""Query session of methods with stored rows: planned, then answered in one pass. Knows no method by name."""

from __future__ import annotations

from ...store.feature_store import FeatureStore
from ..arrays.scan.forecast import Forecast
from ..arrays.scan.scan_loop import Shape
from ..ingest.provider import Provider
from ..interface.method import QueryMatrix
from ..results.results import Results
from ..runtime.memory import Plan
from ..runtime.run import SILENT, Run
from .queries import read_queries
from .query_session import Capability, ScoreBlocks, export_session, missing
from .stored_scores import StoredScores


class StoredSession:
    """Queries to a store's rows: a :class:`QuerySession`."""

    def __init__(self, stored: StoredScores, provider: Provider, top: int, run: Run = SILENT) -> None:
        """Read the queries, make the plan. `top`: k, examples of a query.

        Raises:
            CorpusError: no query, or one that cannot be asked. BudgetError: the plan does not fit.
        """
        self._stored, self._provider, self._top, self._run = stored, provider, top, run
        self._queries = read_queries(provider)
        self.plan: Plan
        self.shape: Shape
        self.plan, self.shape = stored.plan(provider, self._queries, top)

    @property
    def store(self) -> FeatureStore:
        """The store that is asked."""
        return self._stored.store

    @property
    def name(self) -> str:
        """The method."""
        return self._stored.name

    @property
    def rows(self) -> int:
        """Stored examples that are asked."""
        return self._stored.rows

    @property
    def query_ids(self) -> list[str]:
        """(Q,) ids, in the file's order."""
        return [query.id for query in self._queries]

    @property
    def queries(self) -> dict[str, str]:
        """Query id → its text, prompt first."""
        return {query.id: query.prompt + query.text for query in self._queries}

    @property
    def notes(self) -> list[str]:
        """None: scores are what they are."""
        return []

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Rows can be kept in memory; a scan of inner products can be forecast."""
        return frozenset({"forecast", "cache"} if self._stored.by_products else {"cache"})

    def forecast(self) -> Forecast:
        """What the search will read and take, measured on its first rows."""
        if not self._stored.by_products:
            raise missing(self.name, "forecast")
        return self._stored.forecast(len(self._queries), self._top, self.shape)

    def cache(self) -> int:
        """Keep the rows that are scanned in memory, from now on; the bytes that they take, which are in no plan."""
        return self._stored.cache()

    def attribute(self) -> Results:
        """The best examples of each query."""
        return self._stored.attribute(self._prepared(), self.query_ids, self._top, self.shape, self._run)

    def most_valuable(self) -> Results:
        """The best examples for all queries together."""
        return self._stored.most_valuable(self._prepared(), self._top, self.shape, self._run)

    def scores(self) -> ScoreBlocks:
        """(first row, (rows, Q) scores) of every example, in order."""
        return self._stored.every_score(self._prepared(), self.shape, self._run)

    def value(self) -> ScoreBlocks:
        """(first row, (rows,) scores) of every example against all queries together, in order."""
        return self._stored.value(self._prepared(), self.shape, self._run)

    def export(self, path: str) -> None:
        """Every example's score for every query, to a .zarr group that is not there yet."""
        export_session(self, path)

    def _prepared(self) -> QueryMatrix:
        return self._stored.prepare(self._provider, self._queries)
