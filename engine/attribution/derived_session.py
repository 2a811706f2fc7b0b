"""A query session whose scores are computed from another session's: of some examples only, minus the scores of contrasting
queries, or with the lowest scores first. Knows no method and no kind of session.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from ...store.errors import DataError
from ...store.feature_store import FeatureStore
from ...store.layout import Array
from ..arrays.kernels.heaps import heap_bytes
from ..arrays.scan.forecast import Forecast
from ..arrays.scan.scan_loop import ScanShape
from ..results.example_table import PartSize
from ..results.results import QueryText, Results
from ..runtime.memory import Part, Plan
from .query_session import (
    TOGETHER,
    Capability,
    QuerySession,
    ScoreBlocks,
    best_examples,
    export_session,
    mean_scores,
    missing,
)
from .stored_members import aligned


@dataclass(frozen=True, slots=True)
class Derivation:
    """How scores are derived from those of a session."""

    minus: QuerySession | None = None
    """The session of the contrasting queries: as many as there are queries, or one for all. A score is then the difference."""
    lowest: bool = False
    """Whether the examples with the lowest scores are returned, lowest first, instead of the highest."""
    eligible: Array | None = None
    """(N,) bool: the examples that are ranked; the scores of others are NaN. None: all."""
    filtering: Plan = field(default_factory=lambda: Plan(()))
    """The memory of reading the labels that `eligible` is made of, and of the array."""


class DerivedSession:
    """A :class:`QuerySession` over another one."""

    def __init__(self, session: QuerySession, derivation: Derivation, top: int) -> None:
        """`top`: k, number of examples per query.

        Raises:
            DataError: there are several contrasting queries, and not as many as queries.
        """
        self._session, self._derivation, self._top = session, derivation, top
        minus = derivation.minus
        if minus is not None and len(minus.query_ids) not in (1, len(session.query_ids)):
            raise DataError(
                f"{len(minus.query_ids)} contrasting queries for {len(session.query_ids)} queries: expected as many, or one"
            )

    @property
    def store(self) -> FeatureStore:
        """The store that is searched."""
        return self._session.store

    @property
    def name(self) -> str:
        """The method's name."""
        return self._session.name

    @property
    def rows(self) -> int:
        """N: number of scored examples."""
        return self._session.rows

    @property
    def queries(self) -> list[QueryText]:
        """(Q,) texts of the queries."""
        return self._session.queries

    @property
    def query_ids(self) -> list[str]:
        """(Q,) ids, in the order of the scores' columns."""
        return self._session.query_ids

    @property
    def notes(self) -> list[str]:
        """Remarks of both sessions."""
        minus = self._derivation.minus
        return list(dict.fromkeys([*self._session.notes, *(minus.notes if minus else ())]))

    @property
    def estimated(self) -> bool:
        """Whether scores are estimates, as those of sign bits are."""
        return self._session.estimated

    @property
    def plan(self) -> Plan:
        """The memory of both sessions, and of the best examples and the filter."""
        minus, eligible = self._derivation.minus, self._derivation.eligible
        own = Plan.of(
            Part("results", 6 * heap_bytes(len(self.query_ids), min(self._top, self.rows))),
            Part("filter of examples", 0 if eligible is None else 8 * len(eligible)),
        )
        return self._session.plan + own + self._derivation.filtering + (minus.plan if minus else Plan(()))

    @property
    def shape(self) -> ScanShape:
        """Rows per block and number of workers of the scan."""
        return self._session.shape

    @property
    def parts(self) -> PartSize:
        """Size of the parts in which results become tables."""
        return self._session.parts

    @property
    def capabilities(self) -> frozenset[Capability]:
        """The rows of the session can be cached if those of the contrasting one can."""
        minus = self._derivation.minus
        shared = self._session.capabilities & (minus.capabilities if minus else self._session.capabilities)
        return frozenset(shared & {"cache"})

    def forecast(self) -> Forecast:
        """Raise SettingsError: the time of a derived search is not known beforehand."""
        raise missing(self.name, "forecast")

    def cache(self) -> int:
        """Keep the scanned rows in memory from now on; returns their size in bytes."""
        minus = self._derivation.minus
        return self._session.cache() + (minus.cache() if minus else 0)

    def attribute(self) -> Results:
        """The best, or the lowest, eligible examples of each query."""
        return self._best(self.scores(), self.query_ids)

    def most_valuable(self) -> Results:
        """The best, or the lowest, eligible examples for all queries together."""
        return self._best(((first, part[:, None]) for first, part in self.value()), [TOGETHER])

    def scores(self) -> ScoreBlocks:
        """(first row, (rows, Q) float32), over all examples in the store's order; NaN for examples that are not eligible."""
        minus = self._derivation.minus
        blocks = self._session.scores() if minus is None else _differences(self._session.scores(), minus.scores())
        return self._masked(blocks)

    def value(self) -> ScoreBlocks:
        """(first row, (rows,) float32): each example's mean score over the queries; NaN for examples that are not eligible."""
        if self._derivation.minus is None:
            return self._masked(self._session.value())
        return mean_scores(self.scores())

    def export(self, path: str) -> None:
        """Write the scores of all examples for all queries to a new .zarr group."""
        export_session(self, path)

    def _masked(self, blocks: ScoreBlocks) -> ScoreBlocks:
        eligible = self._derivation.eligible
        if eligible is None:
            return blocks
        return ((first, _with_nan(part, eligible[first : first + len(part)])) for first, part in blocks)

    def _best(self, scores: ScoreBlocks, ids: list[str]) -> Results:
        """The k best of the eligible examples; with `lowest`, of the negated scores."""
        eligible, lowest = self._derivation.eligible, self._derivation.lowest
        numbers = None if eligible is None else np.flatnonzero(eligible)
        k = min(self._top, self.rows if numbers is None else len(numbers))
        best, rows = best_examples(_compressed(scores, eligible, negated=lowest), len(ids), k)
        scored = np.negative(best) if lowest else best
        exact = not self.estimated
        return Results(
            self.name, ids, rows if numbers is None else numbers[rows], scored, exact, 1.0 if exact else math.nan
        )


def _differences(scores: ScoreBlocks, minus: ScoreBlocks) -> ScoreBlocks:
    """(first, (rows, Q)) of one session minus (first, (rows, Q or 1)) of another, whose blocks may end at other rows."""
    for first, (part, other) in aligned([_copied(scores), _copied(minus)]):
        yield first, np.subtract(part, other, dtype=np.float32)


def _copied(scores: ScoreBlocks) -> Iterator[tuple[int, Array]]:
    """The same blocks, which stay valid: two scans do not advance together."""
    return ((first, part.copy()) for first, part in scores)


def _with_nan(part: Array, eligible: Array) -> Array:
    """Scores (rows,) or (rows, Q), with NaN where a row is not eligible."""
    return np.where(eligible.reshape(-1, *[1] * (part.ndim - 1)), part, np.float32(np.nan))


def _compressed(scores: Iterable[tuple[int, Array]], eligible: Array | None, *, negated: bool) -> ScoreBlocks:
    """Scores of eligible rows alone, which are numbered from 0 in order; negated if the lowest ones are to come first."""
    count = 0
    for first, part in scores:
        own = part if eligible is None else part[eligible[first : first + len(part)]]
        yield count, np.negative(own) if negated else own
        count += len(own)
