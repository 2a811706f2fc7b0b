"""Query session over several members of one method: combined scores, standard errors, rank intervals. Knows no method by name.

Members are seeds, settings, or models such as checkpoints. The rule `mean` counts all members equally: if they differ by
more than their seed, a member's scores of a query are first divided by their root mean square over all examples. Members
that differ by their seed alone estimate the same number, and are not scaled. The rule `sum` adds up the scores as they are,
as TracInCP does over checkpoints (Pruthi et al. 2020, arXiv 2002.08484).

The spread of the members says how far an order can be trusted: the standard error of the combined score, and for each example the
ranks that are consistent with the paired differences between members.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Protocol

import numpy as np

from ...store.feature_store import FeatureStore
from ...store.json_values import JsonFields
from ...store.layout import Array
from ..arrays.scan.forecast import Forecast
from ..arrays.scan.scan_loop import ScanShape
from ..results.answers_origin import Origin, origin_of
from ..results.example_table import PartSize
from ..results.result_tables import SPREAD_FIELDS
from ..results.results import Results
from ..results.table_plan import PartsPlan, Scored
from ..runtime.memory import Part, Plan
from ..runtime.run import SILENT, Run
from .member_queries import MemberQueries
from .query_options import QueryOptions
from .query_session import (
    TOGETHER,
    Capability,
    MemberBlocks,
    ScoreBlocks,
    export_session,
    missing,
    not_a_number,
    require,
)

CONFIDENCE = 0.95


class MemberScores(Protocol):
    """The scores of several members for the same queries: `StoredMembers`, `FittedMembers`."""

    store: FeatureStore
    names: list[str]
    rows: int
    alike: bool
    """Whether the members differ by their seed alone."""
    capabilities: frozenset[Capability]
    further_columns: tuple[str, ...]
    """Names of the columns of :meth:`further`."""
    scale: str
    """What scaled scores of a query are divided by, in words."""

    @property
    def block_rows(self) -> int:
        """Most rows whose scores are returned together."""

    @property
    def queries(self) -> MemberQueries:
        """The queries, as the first member's model reads them."""

    @property
    def notes(self) -> list[str]:
        """Remarks for the user, one line each."""

    @property
    def shape(self) -> ScanShape:
        """Rows per block and number of workers; after :meth:`planned`."""

    def planned(self, further: Plan, output: PartsPlan) -> tuple[Plan, PartSize]:
        """Choose the first plan that fits the budget together with `further` and the output; also the size of its parts."""

    def cache(self) -> int:
        """Keep the rows of all members in memory from now on; returns their size in bytes."""

    def blocks(self, *, scaled: bool) -> MemberBlocks:
        """(first row, (members, rows, Q)), over all examples in order."""

    def values(self, *, scaled: bool) -> MemberBlocks:
        """(first row, (members, rows) means over queries), over all examples in order."""

    def further(self, scores: Array, *, scaled: bool, together: bool) -> dict[str, Array]:
        """Further columns (Q, k) of results, from their means over members; those marked in `tie` have no score."""

    def facts(self) -> JsonFields:
        """Further attributes of an export, once there are scores."""


class MembersSession:
    """A :class:`QuerySession` of several members of one method."""

    def __init__(self, name: str, members: MemberScores, options: QueryOptions, run: Run = SILENT) -> None:
        """`name`: the method.

        Raises:
            BudgetError: the members together exceed the budget.
        """
        self.name, self._members, self._top, self._rule = name, members, options.top, options.search.members.rule
        self.store, self.rows = members.store, members.rows
        self.queries, self.query_ids = members.queries.texts, members.queries.ids
        count, block = len(self.query_ids), members.block_rows
        output = options.output(Scored(self.store, self.rows, count, block, run.budget))
        self.plan, self.parts = members.planned(self._further(count, block), output)
        self.shape = members.shape
        self._scaled = self._rule == "mean" and not members.alike

    def _further(self, queries: int, block: int) -> Plan:
        """Memory of the combination: a block's scores, and the best examples, of all members."""
        members, best = len(self._members.names), min(self._top, self.rows)
        return Plan.of(
            Part("scores of all members", 4 * queries * block * (7 * members + 12)),
            Part("results of all members", 24 * queries * best * (members + 2)),
        )

    @property
    def title(self) -> str:
        """The method's name, with the rule and the number of members."""
        return f"{self.name}, {self._rule} of {len(self._members.names)} members"

    @property
    def origin(self) -> Origin:
        """What the scores are computed from."""
        return replace(origin_of(self.store, self.name, self.rows, self._members.names), combination=self._rule)

    @property
    def further_columns(self) -> tuple[str, ...]:
        """The spread of the members, and what they say besides."""
        return (*self._members.further_columns, *SPREAD_FIELDS)

    @property
    def notes(self) -> list[str]:
        """How the queries were read, how many rows of how many there are if some are missing, and whether scores are scaled."""
        scaled = (
            f"the members of {self.name} differ by more than their seed: before the mean, each member's scores of a query are "
            f"divided by {self._members.scale}"
        )
        return [*self._members.notes, *([scaled] if self._scaled else [])]

    @property
    def estimated(self) -> bool:
        """Whether scores are estimates; members with sign bits are not distinguished."""
        return False

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Whether rows of all members can be cached in memory."""
        return self._members.capabilities

    def forecast(self) -> Forecast:
        """Raise SettingsError: a scan of several members has no forecast."""
        raise missing(self.name, "forecast")

    def cache(self) -> int:
        """Keep the rows of all members in memory from now on; returns their size in bytes, which no memory plan includes."""
        require(self, "cache")
        return self._members.cache()

    def attribute(self) -> Results:
        """The best examples of each query, by their combined scores."""
        return self._best(len(self.query_ids))

    def most_valuable(self) -> Results:
        """The best examples for all queries together."""
        return self._best(1, together=True)

    def chosen(self, rows: Array, scores: Array, *, together: bool = False, lowest: bool = False) -> Results:
        """Results of chosen examples with the spread of the members, whose scores are computed once more for it."""
        best = np.zeros((len(self._members.names), *rows.shape))
        for first, part in self._blocks(together=together):
            query, rank = np.nonzero((rows >= first) & (rows < first + part.shape[1]))
            best[:, query, rank] = part[:, rows[query, rank] - first, query]
        return self._results(rows, best, together=together, lowest=lowest)

    def _blocks(self, *, together: bool) -> MemberBlocks:
        """(first row, (members, rows, Q)) scores; (members, rows, 1) values for all queries together."""
        if not together:
            return self._members.blocks(scaled=self._scaled)
        return ((first, values[:, :, None]) for first, values in self._members.values(scaled=self._scaled))

    def value(self) -> ScoreBlocks:
        """(first row, (rows,) combined score, mean over queries), over all examples in order."""
        return self._combined(self._members.values(scaled=self._scaled))

    def scores(self) -> ScoreBlocks:
        """(first row, (rows, Q) combined score), over all examples in order."""
        return self._combined(self._members.blocks(scaled=self._scaled))

    def _combined(self, blocks: MemberBlocks) -> ScoreBlocks:
        for first, scores in blocks:
            yield first, combined(scores, self._rule).astype(np.float32)

    def facts(self) -> JsonFields:
        """The members' names and their rule, and what they say besides."""
        return {"members": list(self._members.names), "combine": self._rule, **self._members.facts()}

    def export(self, path: str) -> None:
        """Write the combined scores of all examples for all queries to a new .zarr group, with the members' names."""
        export_session(self, path)

    def _best(self, queries: int, *, together: bool = False) -> Results:
        """The best examples of so many queries by combined scores.

        Raises:
            DataError: a score is NaN.
        """
        k = min(self._top, self.rows)
        best = np.zeros((len(self._members.names), queries, 0))
        rows = np.zeros((queries, 0), np.int64)
        for first, part in self._blocks(together=together):
            if np.isnan(part).any():
                raise not_a_number(first, part.shape[1])
            numbers = np.broadcast_to(np.arange(first, first + part.shape[1]), (queries, part.shape[1]))
            best = np.concatenate([best, part.transpose(0, 2, 1)], 2)
            rows = np.concatenate([rows, numbers], 1)
            order = np.argsort(-combined(best, self._rule), 1, kind="stable")[:, :k]  # stable: ties go to the lower row
            best, rows = np.take_along_axis(best, order[None], 2), np.take_along_axis(rows, order, 1)
        return self._results(rows, best, together=together)

    def _results(self, rows: Array, best: Array, *, together: bool, lowest: bool = False) -> Results:
        """Results with their spread, from the members' scores (members, Q, k) of these rows (Q, k); ties have score 0."""
        further = self._members.further(best.mean(0), scaled=self._scaled, together=together)
        members, scores = len(best), combined(best, self._rule).astype(np.float32)
        ranges = [rank_range(np.negative(each) if lowest else each) for each in best.transpose(1, 0, 2)]
        error = best.std(0, ddof=1) * (math.sqrt(members) if self._rule == "sum" else 1 / math.sqrt(members))
        return Results(
            self.title, [TOGETHER] if together else list(self.query_ids), rows,
            np.where(further["tie"], np.float32(0), scores) if "tie" in further else scores, further_columns=further,
            standard_error=error.astype(np.float32),
            rank_low=np.array([low for low, _ in ranges]), rank_high=np.array([high for _, high in ranges]),
        )  # fmt: skip


def combined(scores: Array, rule: str) -> Array:
    """(members, …) → (…) float64: their mean or sum."""
    return np.asarray(scores.sum(0, dtype=np.float64) if rule == "sum" else scores.mean(0, dtype=np.float64))


def rank_range(scores: Array) -> tuple[Array, Array]:
    """(members, k) scores of k examples → lowest and highest rank (k,), (k,) of each among them.

    Two examples are ordered if the mean of their paired differences differs from 0 by a two-sided t-test at 95 % with members − 1
    degrees of freedom; there is no correction for multiple comparisons.
    """
    from scipy.stats import t

    members, k = scores.shape
    factor = float(t.ppf(0.5 + CONFIDENCE / 2, members - 1)) / math.sqrt(members)
    low, high = np.ones(k, np.int64), np.full(k, k, np.int64)
    for at in range(k):
        differences = scores - scores[:, at : at + 1]  # (members, k)
        mean, bound = differences.mean(0), factor * differences.std(0, ddof=1)
        low[at] += int((mean > bound).sum())
        high[at] -= int((mean < -bound).sum())
    return low, high
