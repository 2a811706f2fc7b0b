"""The protocol of a query session, and what all sessions share: best examples, means over queries, export. Knows no
method by name.

A capability that only some kinds of methods have (a forecast, rows cached in memory, scores of single tokens) is declared in
`capabilities`. Using one that a session lacks raises a SettingsError, which names the method and the capability.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal, Protocol

import numpy as np

from ...store.errors import DataError, SettingsError
from ...store.feature_store import FeatureStore
from ...store.json_values import JsonFields
from ...store.layout import Array
from ..arrays.kernels.heaps import Heaps, merged
from ..arrays.scan.forecast import Forecast
from ..arrays.scan.scan_loop import ScanShape
from ..results.answers_origin import KEY, Origin
from ..results.example_table import PartSize
from ..results.results import QueryText, Results
from ..results.score_export import export
from ..runtime.memory import Plan
from ..runtime.run import Stage

Capability = Literal["forecast", "cache", "tokens"]
"""An ability that only some kinds of sessions have."""
ScoreBlocks = Iterator[tuple[int, Array]]
"""(first row, scores of the rows from this one on), in the store's order; an array is valid until the next iteration."""
MemberBlocks = Iterator[tuple[int, Array]]
"""(first row, (members, rows, …) scores of the rows from this one on by each of several members), in the store's order."""
TOGETHER = "all queries"
"""The query id of results for all queries together."""
_MISSING: dict[Capability, str] = {
    "forecast": "no forecast of the bytes and time of a search",
    "cache": "no stored rows that could be cached in memory",
    "tokens": "no scores of single tokens",
}


class QuerySession(Protocol):
    """Queries to one method in one store. Opening a session makes the memory plan; each method call computes."""

    @property
    def store(self) -> FeatureStore:
        """The store that is searched."""

    @property
    def name(self) -> str:
        """The method's name."""

    @property
    def title(self) -> str:
        """The method as results name it: of several members, with their rule and number."""

    @property
    def further_columns(self) -> tuple[str, ...]:
        """Names of what results say besides scores, such as `tie` or `standard_error`."""

    @property
    def origin(self) -> Origin:
        """What the scores are computed from, and how."""

    @property
    def rows(self) -> int:
        """N: number of scored examples."""

    @property
    def queries(self) -> list[QueryText]:
        """(Q,) texts, in the order of `query_ids`."""

    @property
    def query_ids(self) -> list[str]:
        """(Q,) ids, in the order of the scores' columns; ids may repeat."""

    @property
    def notes(self) -> list[str]:
        """Remarks on the results for the user, one line each; complete once results were computed."""

    @property
    def estimated(self) -> bool:
        """Whether scores are estimates, as those of sign bits are."""

    @property
    def plan(self) -> Plan:
        """Upper bound of the memory of any of the computations."""

    @property
    def shape(self) -> ScanShape:
        """Rows per block and number of workers of the scan."""

    @property
    def parts(self) -> PartSize:
        """Size of the parts in which results become tables."""

    @property
    def capabilities(self) -> frozenset[Capability]:
        """The abilities of this session that some other sessions lack."""

    def attribute(self) -> Results:
        """The best examples of each query: (Q, k)."""

    def most_valuable(self) -> Results:
        """The best examples for all queries together: (1, k)."""

    def chosen(self, rows: Array, scores: Array, *, together: bool = False, lowest: bool = False) -> Results:
        """Results of examples that were chosen by the session's own scores: `rows` (Q, k), `scores` (Q, k), first rank first.

        `together`: for all queries together, Q = 1; `lowest`: the lowest score has rank 1.
        """

    def scores(self) -> ScoreBlocks:
        """(first row, (rows, Q) float32), over all examples in the store's order."""

    def value(self) -> ScoreBlocks:
        """(first row, (rows,) float32): each example's mean score over the queries."""

    def export(self, path: str) -> None:
        """Write the scores of all examples for all queries to a new .zarr group."""

    def facts(self) -> JsonFields:
        """Further attributes of an export, which may take as long as its scores."""

    def forecast(self) -> Forecast:
        """Bytes and time of the search. Raises SettingsError without the capability `forecast`."""

    def cache(self) -> int:
        """Keep the scanned rows in memory from now on; returns their size in bytes, which no memory plan includes. Raises
        SettingsError without the capability `cache`.
        """


def missing(name: str, capability: Capability) -> SettingsError:
    """The error for a missing capability."""
    return SettingsError(f"method {name} has {_MISSING[capability]}")


def require(session: QuerySession, capability: Capability) -> None:
    """Raise SettingsError, which names the method, unless a session has a capability."""
    if capability not in session.capabilities:
        raise missing(session.name, capability)


def best_examples(scores: Iterable[tuple[int, Array]], queries: int, k: int) -> tuple[Array, Array]:
    """(Q, k) float32 scores and (Q, k) int64 row numbers of the best examples, from (first row, (rows, Q) scores).

    Of equal scores, the smaller row number ranks first. Fewer than k rows are all there are.

    Raises:
        DataError: a score is NaN.
    """
    heaps, count = Heaps(queries, k), 0
    for first, part in scores:
        if heaps.push(np.ascontiguousarray(part.T), len(part), first):
            raise not_a_number(first, len(part))
        count += len(part)
    best, rows = merged([heaps])
    return best[:, :count], rows[:, :count]


def not_a_number(first: int, count: int) -> DataError:
    """The error for a score of NaN of one of `count` rows from `first` on."""
    return DataError(f"the score of one of the rows {first} to {first + count - 1} is not a number")


def best_values(values: Iterable[tuple[int, Array]], k: int) -> tuple[Array, Array]:
    """(1, k) scores and rows of the best examples, from (first, (rows,))."""
    return best_examples(((first, part[:, None]) for first, part in values), 1, k)


def mean_scores(scores: ScoreBlocks) -> ScoreBlocks:
    """(first, (rows, Q)) → (first, (rows,) float32): means over the queries, summed in float64."""
    for first, part in scores:
        yield first, part.mean(1, dtype=np.float64).astype(np.float32)


def export_session(session: QuerySession, path: str) -> None:
    """Write all scores of a session, with its origin and its facts as attributes of the group."""
    attributes = {"method": session.name, KEY: session.origin.to_json(), **session.facts()}
    export(path, session.scores(), session.rows, session.query_ids, attributes)


def with_progress(blocks: ScoreBlocks, stage: Stage) -> ScoreBlocks:
    """The same blocks; after each, the number of processed rows is reported."""
    for first, part in blocks:
        yield first, part
        stage.report(first + len(part))
