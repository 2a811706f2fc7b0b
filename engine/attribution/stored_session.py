"""Query session of methods with stored rows: one pass over the rows per call. Knows no method by name."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from ...store.feature_store import FeatureStore
from ...store.json_values import JsonFields
from ...store.layout import Array
from ..arrays.scan.forecast import Forecast
from ..arrays.scan.scan_loop import ScanShape
from ..ingest.provider import Provider
from ..interface.method import QueryMatrix
from ..results.answers_origin import Origin, origin_of
from ..results.example_table import PartSize
from ..results.results import QueryText, Results
from ..runtime.memory import Plan
from ..runtime.run import SILENT, Run
from .queries import read_queries
from .query_options import QueryOptions
from .query_session import TOGETHER, Capability, ScoreBlocks, export_session, missing
from .stored_scores import StoredScores


class StoredSession:
    """A :class:`QuerySession` of a method with stored rows."""

    def __init__(self, stored: StoredScores, provider: Provider, options: QueryOptions, run: Run = SILENT) -> None:
        """Read the queries, make the memory plan. With `options.lowest`, the best examples are those with the lowest scores: the
        best of the negated queries, whose scores are the negated scores to the last bit.

        Raises:
            CorpusError: a query cannot be used, or there is none. BudgetError: the plan exceeds the budget.
        """
        self._stored, self._provider, self._top, self._run = stored, provider, options.top, run
        self._lowest = options.lowest
        self._queries = read_queries(provider)
        self.plan: Plan
        self.shape: ScanShape
        self.parts: PartSize
        self.plan, (self.shape, self.parts) = stored.plan(provider, self._queries, options)

    @property
    def store(self) -> FeatureStore:
        """The store that is searched."""
        return self._stored.store

    @property
    def name(self) -> str:
        """The method's name."""
        return self._stored.name

    @property
    def title(self) -> str:
        """The method's name."""
        return self.name

    @property
    def origin(self) -> Origin:
        """What the scores are computed from."""
        return replace(
            origin_of(self.store, self.name, self.rows), lowest=self._lowest, precision=self._stored.copy_precision
        )

    @property
    def further_columns(self) -> tuple[str, ...]:
        """None."""
        return ()

    @property
    def rows(self) -> int:
        """N: number of stored examples."""
        return self._stored.rows

    @property
    def block_rows(self) -> int:
        """Most rows whose scores are returned together."""
        return self._stored.block_rows(len(self._queries))

    @property
    def query_ids(self) -> list[str]:
        """(Q,) ids, in the file's order."""
        return [query.id for query in self._queries]

    @property
    def queries(self) -> list[QueryText]:
        """(Q,) texts, in the file's order."""
        return [QueryText(query.prompt, query.text) for query in self._queries]

    @property
    def notes(self) -> list[str]:
        """How the queries were read, and how many rows of how many there are if some are missing."""
        return [*self._provider.notes, *self._stored.notes]

    @property
    def estimated(self) -> bool:
        """Whether scores are estimates, because the rows are sign bits."""
        return self._stored.estimated

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Rows can be cached in memory; a scan of inner products can be forecast."""
        return frozenset({"forecast", "cache"} if self._stored.by_inner_product else {"cache"})

    def forecast(self) -> Forecast:
        """Bytes and time of the search, measured on its first rows."""
        if not self._stored.by_inner_product:
            raise missing(self.name, "forecast")
        return self._stored.forecast(len(self._queries), self._top, self.shape)

    def cache(self) -> int:
        """Keep the scanned rows in memory from now on; returns their size in bytes, which no memory plan includes."""
        return self._stored.cache()

    def attribute(self) -> Results:
        """The best examples of each query."""
        return self._signed(self._stored.attribute(self._ranking(), self.query_ids, self._top, self.shape, self._run))

    def most_valuable(self) -> Results:
        """The best examples for all queries together."""
        return self._signed(self._stored.most_valuable(self._ranking(), self._top, self.shape, self._run))

    def chosen(self, rows: Array, scores: Array, *, together: bool = False, lowest: bool = False) -> Results:
        """Results of examples that were chosen by these scores."""
        exact, ids = not self.estimated, [TOGETHER] if together else self.query_ids
        return Results(self.name, ids, rows, scores, exact, 1.0 if exact else math.nan)

    def scores(self) -> ScoreBlocks:
        """(first row, (rows, Q) scores), over all examples in order."""
        return self._stored.all_scores(self._prepared(), self.shape, self._run)

    def value(self) -> ScoreBlocks:
        """(first row, (rows,) mean scores over the queries), over all examples in order."""
        return self._stored.value(self._prepared(), self.shape, self._run)

    def facts(self) -> JsonFields:
        """None."""
        return {}

    def export(self, path: str) -> None:
        """Write the scores of all examples for all queries to a new .zarr group."""
        export_session(self, path)

    def _ranking(self) -> QueryMatrix:
        """The queries by which examples are ranked: negated if the lowest scores rank first."""
        matrix = self._prepared()
        return replace(matrix, matrix=np.negative(matrix.matrix)) if self._lowest else matrix

    def _signed(self, results: Results) -> Results:
        """Results with the scores of the queries as they are."""
        return replace(results, scores=np.negative(results.scores)) if self._lowest else results

    def _prepared(self) -> QueryMatrix:
        return self._stored.prepare(self._provider, self._queries)
