"""Query session of a subset method: weights of all examples, recovered from measurements by the fitted operators.

A positive weight means that the example lowered the query's loss. Most weights of a sparse answer are zero. Examples of weight
zero rank below positive and above negative weights, in the order of their back-projection Mᵀ(y − ȳ), and are marked as ties.
Knows no method by name.
"""

from __future__ import annotations

import numpy as np

from ...store.feature_store import FeatureStore
from ...store.json_values import JsonFields
from ...store.layout import Array
from ..arrays.scan.forecast import Forecast
from ..data.record_source import Data
from ..results.answers_origin import Origin, origin_of
from ..results.results import Results
from ..results.table_plan import Scored
from ..runtime.memory import Plan
from ..runtime.run import SILENT, Run
from .fitted_members import FittedMembers
from .query_options import QueryOptions
from .query_session import TOGETHER, Capability, ScoreBlocks, best_examples, best_values, export_session, missing


class RecoveredSession:
    """A :class:`QuerySession` of a subset method that was fitted to the store: of one member."""

    def __init__(self, store: FeatureStore, name: str, queries: Data, options: QueryOptions, run: Run = SILENT) -> None:
        """Read the queries, make the memory plan.

        Raises:
            StoreMissing: there is no complete fit. StoreMismatch: the fit is of other examples, or the model differs.
            BudgetError: the plan exceeds the budget.
        """
        self.store, self.name, self._top = store, name, options.top
        self._member = member = FittedMembers(store, [name], queries, options, run)
        self.rows, self.shape, self.query_ids, self.queries = (
            member.rows,
            member.shape,
            member.queries.ids,
            member.queries.texts,
        )
        output = options.output(Scored(store, self.rows, len(self.query_ids), member.block_rows, run.budget))
        self.plan, self.parts = member.planned(Plan(()), output)

    @property
    def notes(self) -> list[str]:
        """How the queries were read, how many examples of how many there are if some are missing; and remarks on the results,
        once there are results.
        """
        return self._member.notes

    @property
    def title(self) -> str:
        """The method's name."""
        return self.name

    @property
    def origin(self) -> Origin:
        """What the scores are computed from."""
        return origin_of(self.store, self.name, self.rows)

    @property
    def further_columns(self) -> tuple[str, ...]:
        """Whether an example is a tie, and the diagnostics of its query."""
        return self._member.further_columns

    @property
    def estimated(self) -> bool:
        """False."""
        return False

    @property
    def capabilities(self) -> frozenset[Capability]:
        """No capabilities: there are no stored rows, and the time depends on how sparse the weights are."""
        return self._member.capabilities

    def forecast(self) -> Forecast:
        """Raise SettingsError: the time depends on how sparse the weights are."""
        raise missing(self.name, "forecast")

    def cache(self) -> int:
        """Raise SettingsError: no rows are stored."""
        raise missing(self.name, "cache")

    def attribute(self) -> Results:
        """The best examples of each query."""
        scores, rows = best_examples(self.scores(), len(self.query_ids), min(self._top, self.rows))
        return self.chosen(rows, scores)

    def most_valuable(self) -> Results:
        """The best examples for all queries together."""
        scores, rows = best_values(self.value(), min(self._top, self.rows))
        return self.chosen(rows, scores, together=True)

    def chosen(self, rows: Array, scores: Array, *, together: bool = False, lowest: bool = False) -> Results:
        """Results with their diagnostics, of examples that were chosen by these scores; ties have score 0."""
        columns = self._member.further(scores, scaled=False, together=together)
        scores = np.where(columns["tie"], np.float32(0), scores)
        return Results(self.name, [TOGETHER] if together else self.query_ids, rows, scores, further_columns=columns)

    def scores(self) -> ScoreBlocks:
        """(first row, (rows, Q) weights), over all examples in order; zeros are replaced by scores of ties."""
        for first, weights in self._member.blocks(scaled=False):
            yield first, np.ascontiguousarray(weights[0])

    def value(self) -> ScoreBlocks:
        """(first row, (rows,) mean weights), over all examples in order; zeros are replaced by scores of ties."""
        for first, means in self._member.values(scaled=False):
            yield first, means[0].astype(np.float32)

    def facts(self) -> JsonFields:
        """The diagnostics, once the weights are recovered."""
        return self._member.facts()

    def export(self, path: str) -> None:
        """Write the weights of all examples for all queries to a new .zarr group, with the diagnostics among its attributes."""
        export_session(self, path)
