"""Members of a method with stored rows, whose scores are read side by side. Knows no method by name and no rule."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from ...store.completeness import finishing_command
from ...store.errors import StoreMissing
from ...store.feature_store import FeatureStore
from ...store.json_values import JsonFields
from ...store.layout import Array
from ..arrays.scan.scan_loop import ScanShape
from ..arrays.scan.stored_rows import first_plan_within_budget
from ..data.record_source import Data
from ..ingest.member_model import MemberModel
from ..interface.method import QueryMatrix
from ..results.example_table import PartSize
from ..results.table_plan import PartsPlan, with_output
from ..runtime.memory import Plan
from ..runtime.run import Run
from .member_queries import MemberQueries, options_of, release_others
from .members import same_but_seed
from .queries import batch_tokens
from .query_options import QueryOptions, SearchOptions
from .query_session import Capability, MemberBlocks, ScoreBlocks
from .stored_scores import StoredScores


class StoredMembers:
    """The scores of members with stored rows for the same queries."""

    capabilities: frozenset[Capability] = frozenset({"cache"})
    """Rows of all members can be cached in memory."""
    further_columns: tuple[str, ...] = ()
    scale = "their root mean square over all examples"

    def __init__(
        self, store: FeatureStore, names: Sequence[str], queries: Data, options: QueryOptions, run: Run
    ) -> None:
        """Read the queries, by one model after the other, and make the candidate plans.

        Raises:
            StoreMissing: a member lacks rows, or has fewer than another. DataError: another model reads other queries.
        """
        self.store, self.names, self._run = store, list(names), run
        search = SearchOptions(all_scores=True, partial=options.search.partial)
        self._stored = {name: StoredScores(store, name, run.budget, search) for name in names}
        self.rows = self._same_rows()
        self._matrices: dict[str, QueryMatrix] = {}
        self._queries: dict[str, MemberQueries] = {}
        models = {name: MemberModel.of_rows(store, name) for name in names}
        self._model_of = {name: str(model.fingerprints["model"]) for name, model in models.items()}
        settings = [stored.method.settings() for stored in self._stored.values()]
        self.alike = same_but_seed(zip(settings, (model.fingerprints for model in models.values()), strict=True))
        self._shapes = list[ScanShape]()
        self._scales: Array | None = None
        own, model_plans = Plan(()), list[Plan]()
        for name, model in models.items():
            if self._model_of[name] not in self._queries:
                release_others(self._queries.values())
                reader = MemberQueries(queries, store, model, options_of(model, options))
                self._queries[self._model_of[name]] = reader
                self.queries.require_same(reader)
                model_plans.append(reader.provider().memory(batch_tokens(reader.examples)))
            reader = self._queries[self._model_of[name]]
            release_others(self._queries.values(), reader)
            own += self._stored[name].query_parts(reader.provider(), reader.examples)
        self._others = own + max(model_plans, key=lambda plan: plan.total)

    def _same_rows(self) -> int:
        rows = [stored.rows for stored in self._stored.values()]
        if len(set(rows)) > 1:
            counts = f"the members {', '.join(self.names)} have {min(rows):,} to {max(rows):,} rows"
            raise StoreMissing(counts, hint=f"run {finishing_command(self.store)} to continue")
        return rows[0]

    @property
    def queries(self) -> MemberQueries:
        """The queries, as the first member's model reads them."""
        return next(iter(self._queries.values()))

    @property
    def notes(self) -> list[str]:
        """How the queries were read, and how many rows of how many there are if some are missing."""
        reading = [line for reader in self._queries.values() for line in reader.notes]
        missing = [line for stored in self._stored.values() for line in stored.notes]
        return list(dict.fromkeys([*reading, *missing]))

    @property
    def block_rows(self) -> int:
        """Most rows whose scores are returned together."""
        return max(stored.block_rows(len(self.queries.examples)) for stored in self._stored.values())

    def planned(self, further: Plan, output: PartsPlan) -> tuple[Plan, PartSize]:
        """The first plan that fits the budget together with `further` and with the output, and the size of its parts.

        Raises:
            BudgetError: none fits.
        """
        plans = with_output(self._plans(), output)
        plan, (self._shapes, parts) = first_plan_within_budget(plans, further, self._run.budget)
        return plan, parts

    def _plans(self) -> Iterator[tuple[Plan, list[ScanShape]]]:
        """Candidate plans of scans side by side, fastest first, with the shape of each member's scan."""
        count = len(self.queries.examples)
        candidates = [stored.scan_plans(count, 1) for stored in self._stored.values()]
        for step in range(max(map(len, candidates))):
            plans, shapes = zip(*(plans[min(step, len(plans) - 1)] for plans in candidates), strict=True)
            yield sum(plans, self._others), list(shapes)

    @property
    def shape(self) -> ScanShape:
        """Shape of the first member's scan."""
        return self._shapes[0]

    def cache(self) -> int:
        """Keep the rows of all members in memory from now on; returns their size in bytes."""
        return sum(stored.cache() for stored in self._stored.values())

    def blocks(self, *, scaled: bool) -> MemberBlocks:
        """(first row, (members, rows, Q) float64 scores), over all examples in order; `scaled`: divided by `scale`."""
        if scaled and self._scales is None:
            self._scales = self._root_mean_squares()
        for first, scores in self._scores():
            yield (
                first,
                np.divide(scores, self._scales[:, None], out=scores) if scaled and self._scales is not None else scores,
            )

    def values(self, *, scaled: bool) -> MemberBlocks:
        """(first row, (members, rows) float64 mean scores over queries), over all examples in order."""
        return ((first, scores.mean(2)) for first, scores in self.blocks(scaled=scaled))

    def further(self, scores: Array, *, scaled: bool, together: bool) -> dict[str, Array]:
        """No further columns."""
        return {}

    def facts(self) -> JsonFields:
        """No further facts."""
        return {}

    def _scores(self) -> MemberBlocks:
        """(first row, (members, rows, Q) float64 scores as they are). The first member's scan reports progress."""
        self._prepare()
        runs = itertools.chain([self._run], itertools.repeat(self._run.silenced()))
        scans = [
            stored.all_scores(self._matrices[name], shape, run)
            for (name, stored), shape, run in zip(self._stored.items(), self._shapes, runs, strict=False)
        ]
        for first, parts in aligned(scans):
            yield first, np.stack([part.astype(np.float64) for part in parts])

    def _root_mean_squares(self) -> Array:
        """(members, Q): of each member's scores of a query over all examples; 1 where all are 0."""
        squares = np.zeros((len(self.names), len(self.queries.examples)))
        for _, scores in self._scores():
            squares += np.square(scores).sum(1)
        return np.sqrt(np.where(squares > 0, squares / self.rows, 1.0))

    def _prepare(self) -> None:
        """Compute the queries' rows of all members, by one model after the other."""
        for model, reader in self._queries.items():
            release_others(self._queries.values(), reader)
            for name in self.names:
                if self._model_of[name] == model and name not in self._matrices:
                    self._matrices[name] = self._stored[name].prepare(reader.provider(), reader.examples)
            reader.release()


def aligned(scans: Sequence[ScoreBlocks]) -> Iterator[tuple[int, list[Array]]]:
    """(first row, scores of the same rows by each scan), from scans whose blocks may end at different rows."""
    parts: list[Array] = [np.zeros((0, 0), np.float32) for _ in scans]
    first = 0
    while True:
        for at, scan in enumerate(scans):
            if not len(parts[at]):
                parts[at] = next(scan, (0, parts[at]))[1]
        rows = min(map(len, parts))
        if not rows:
            return
        yield first, [part[:rows] for part in parts]
        first, parts = first + rows, [part[rows:] for part in parts]
