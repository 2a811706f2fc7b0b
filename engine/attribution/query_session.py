"""The protocol of a query session, and what all sessions share: best examples, means over queries, export. Knows no
method by name.

A capability that not every kind of method has (a forecast, rows kept in memory, scores of single tokens) is declared in
`capabilities`; asking for one that is missing is one error that names the method and the capability.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Literal, Protocol

import numpy as np

from ...store.errors import SettingsError
from ...store.feature_store import FeatureStore
from ...store.files import JsonFacts
from ...store.layout import Array
from ..arrays.kernels.heaps import Heaps, merged
from ..arrays.scan.forecast import Forecast
from ..arrays.scan.scan_loop import Shape
from ..results.results import Results
from ..results.score_export import export
from ..runtime.memory import Plan

Capability = Literal["forecast", "cache", "tokens"]
"""What a kind of session may or may not be able to do."""
ScoreBlocks = Iterator[tuple[int, Array]]
"""(first row, scores of the rows from there on), in the store's order; an array holds until the next is asked for."""
TOGETHER = "all queries"
"""What stands for a query's id where all queries are asked together."""
_WHY: dict[Capability, str] = {
    "forecast": "no forecast of what a search reads and takes",
    "cache": "no stored rows that could be kept in memory",
    "tokens": "no scores of single tokens",
}


class QuerySession(Protocol):
    """Queries to one method in one store: planned when it is opened, computed when it is asked."""

    @property
    def store(self) -> FeatureStore:
        """The store that is asked."""

    @property
    def name(self) -> str:
        """The method."""

    @property
    def rows(self) -> int:
        """N: examples that are scored."""

    @property
    def queries(self) -> dict[str, str]:
        """Query id → its text, prompt first; of queries with one id the last one's."""

    @property
    def query_ids(self) -> list[str]:
        """(Q,) ids, in the order of the scores' columns; two queries may have one id."""

    @property
    def notes(self) -> list[str]:
        """What a reader of the answers should know, a line each; complete once there are answers."""

    @property
    def plan(self) -> Plan:
        """The memory that any of the questions takes at most."""

    @property
    def shape(self) -> Shape:
        """How the pass over the rows is cut."""

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What it can do beyond what every session can."""

    def attribute(self) -> Results:
        """The best examples of each query: (Q, k)."""

    def most_valuable(self) -> Results:
        """The best examples for all queries together: (1, k)."""

    def scores(self) -> ScoreBlocks:
        """(first row, (rows, Q) float32) of every example."""

    def value(self) -> ScoreBlocks:
        """(first row, (rows,) float32): every example's mean score over the queries."""

    def export(self, path: str) -> None:
        """Write every example's score for every query to a .zarr group that is not there yet."""

    def forecast(self) -> Forecast:
        """What the search will read and take. Raises SettingsError without the capability `forecast`."""

    def cache(self) -> int:
        """Keep the rows that are scanned in memory, from now on; the bytes that they take, which are in no plan. Raises
        SettingsError without the capability `cache`.
        """


def missing(name: str, capability: Capability) -> SettingsError:
    """The error for a capability that a method's sessions lack."""
    return SettingsError(f"method {name} has {_WHY[capability]}")


def require(session: QuerySession, capability: Capability) -> None:
    """Raise SettingsError, which names the method, unless a session has a capability."""
    if capability not in session.capabilities:
        raise missing(session.name, capability)


def best_examples(scores: Iterable[tuple[int, Array]], queries: int, k: int) -> tuple[Array, Array]:
    """(Q, k) float32 scores and (Q, k) int64 rows of the best examples, ties to the lower row, from (first, (rows, Q))."""
    heaps = Heaps(queries, k)
    for first, part in scores:
        heaps.push(np.ascontiguousarray(part.T), len(part), first)
    found: tuple[Array, Array] = merged([heaps])
    return found


def best_values(values: Iterable[tuple[int, Array]], k: int) -> tuple[Array, Array]:
    """(1, k) scores and rows of the best examples, from (first, (rows,))."""
    return best_examples(((first, part[:, None]) for first, part in values), 1, k)


def mean_scores(scores: ScoreBlocks) -> ScoreBlocks:
    """(first, (rows, Q)) → (first, (rows,) float32): means over the queries, summed in float64."""
    for first, part in scores:
        yield first, part.mean(1, dtype=np.float64).astype(np.float32)


def export_session(session: QuerySession, path: str, facts: JsonFacts | None = None) -> None:
    """Write all scores of a session; `facts` (JSON values) go among the group's attributes."""
    export(path, session.scores(), session.rows, session.query_ids, session.name, facts or {})


def advancing(blocks: ScoreBlocks, report: Callable[[int], None]) -> ScoreBlocks:
    """The same blocks; `report` is called with the number of rows that are done after each."""
    for first, part in blocks:
        yield first, part
        report(first + len(part))
