"""A query session whose scores are computed from another session's: of some examples only, minus the scores of contrasting
queries, or with the lowest scores first. Knows no method and no kind of session.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from ...store.errors import DataError
from ...store.feature_store import FeatureStore
from ...store.json_values import JsonFields
from ...store.layout import Array
from ..arrays.kernels.heaps import heap_bytes
from ..arrays.scan.forecast import Forecast
from ..arrays.scan.scan_loop import ScanShape
from ..results.answers_origin import Origin
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
    not_a_number,
)
from .stored_members import aligned

_READING = ("activations", "hidden states", "logits tile", "texts being tokenised")
"""Parts of a plan that are in memory only while a model reads queries."""


@dataclass(frozen=True, slots=True)
class Derivation:
    """How scores are derived from those of a session."""

    minus: QuerySession | None = None
    """The session of the contrasting queries: as many as there are queries, or one for all. A score is then the difference."""
    lowest: bool = False
    """Whether the examples with the lowest scores are returned, lowest first, instead of the highest."""
    one_model: bool = False
    """Whether the queries and the contrasting ones are read by the same model in memory."""
    conditions: tuple[str, ...] = ()
    """What eligible examples meet, such as `source=a.jsonl`."""
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
    def title(self) -> str:
        """The method as results name it."""
        return self._session.title

    @property
    def origin(self) -> Origin:
        """That of the session, and how scores are derived from its scores."""
        derivation, minus = self._derivation, self._derivation.minus
        contrast = tuple(minus.queries) if minus else ()
        return replace(
            self._session.origin, contrast=contrast, conditions=derivation.conditions, lowest=derivation.lowest
        )

    @property
    def further_columns(self) -> tuple[str, ...]:
        """Those of the session; none of a contrast, as they are of single queries."""
        return () if self._derivation.minus else self._session.further_columns

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
        """Remarks of both sessions, and what a contrast does not say."""
        minus, missing_columns = self._derivation.minus, ", ".join(self._session.further_columns)
        lacks = (
            [f"a contrast has no {missing_columns}: these are of single queries"] if minus and missing_columns else []
        )
        return list(dict.fromkeys([*self._session.notes, *(minus.notes if minus else ()), *lacks]))

    @property
    def estimated(self) -> bool:
        """Whether scores are estimates, as those of sign bits are."""
        return self._session.estimated

    @property
    def plan(self) -> Plan:
        """The memory of both sessions, and of the best examples and the filter. The queries of both are read one after the other,
        and a model that reads both is in memory once.
        """
        minus, eligible = self._derivation.minus, self._derivation.eligible
        own = Plan.of(
            Part("results", 6 * heap_bytes(len(self.query_ids), min(self._top, self.rows))),
            Part("filter of examples", 0 if eligible is None else 8 * len(eligible)),
        )
        own += self._derivation.filtering
        if minus is None:
            return self._session.plan + own
        once = (*_READING, "model weights") if self._derivation.one_model else _READING
        return _joined(self._session.plan, minus.plan, once) + own

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
        return self._best(self.scores(), together=False)

    def most_valuable(self) -> Results:
        """The best, or the lowest, eligible examples for all queries together."""
        return self._best(((first, part[:, None]) for first, part in self.value()), together=True)

    def chosen(self, rows: Array, scores: Array, *, together: bool = False, lowest: bool = False) -> Results:
        """Results of chosen examples, as the session describes them; of a contrast, their scores alone."""
        if self._derivation.minus is None:
            return self._session.chosen(rows, scores, together=together, lowest=lowest)
        exact, ids = not self.estimated, [TOGETHER] if together else self.query_ids
        return Results(self.title, ids, rows, scores, exact, 1.0 if exact else math.nan)

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

    def facts(self) -> JsonFields:
        """Those of the session; those of the contrasting one are in `minus`."""
        minus = self._derivation.minus
        of_minus = minus.facts() if minus else {}
        return {**self._session.facts(), **({"minus": of_minus} if of_minus else {})}

    def export(self, path: str) -> None:
        """Write the scores of all examples for all queries to a new .zarr group."""
        export_session(self, path)

    def _masked(self, blocks: ScoreBlocks) -> ScoreBlocks:
        eligible = self._derivation.eligible
        if eligible is None:
            return blocks
        return ((first, _with_nan(part, eligible[first : first + len(part)])) for first, part in blocks)

    def _best(self, scores: ScoreBlocks, *, together: bool) -> Results:
        """The k best of the eligible examples; with `lowest`, of the negated scores."""
        eligible, lowest = self._derivation.eligible, self._derivation.lowest
        numbers = None if eligible is None else np.flatnonzero(eligible)
        k = min(self._top, self.rows if numbers is None else len(numbers))
        count = 1 if together else len(self.query_ids)
        best, rows = best_examples(_compressed(scores, eligible, negated=lowest), count, k)
        ranked = rows if numbers is None else numbers[rows]
        return self.chosen(ranked, np.negative(best) if lowest else best, together=together, lowest=lowest)


def _joined(first: Plan, second: Plan, once: Iterable[str]) -> Plan:
    """The plan of both, in which parts of these names are there once, as large as in either."""
    sizes = [{part.name: part.bytes for part in plan.parts} for plan in (first, second)]
    most = {name: max(own.get(name, 0) for own in sizes) for name in once}
    return Plan.of(*(Part(part.name, most.get(part.name, part.bytes)) for part in (first + second).parts))


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
    """Scores of eligible rows alone, which are numbered from 0 in order; negated if the lowest ones are to come first.

    Raises:
        DataError: one is NaN.
    """
    count = 0
    for first, part in scores:
        own = part if eligible is None else part[eligible[first : first + len(part)]]
        if np.isnan(own).any():  # the rows as the store numbers them
            raise not_a_number(first, len(part))
        yield count, np.negative(own) if negated else own
        count += len(own)
