"""Query session over several seeds of one method: mean scores, standard errors, rank intervals.

A sketched score is an unbiased estimate; sketches under different seeds have independent errors. So the mean over seeds has a
smaller error, its standard error is known, and the order of two examples whose scores differ by less means nothing. Knows no
method by name.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from ...store.errors import SettingsError, StoreMissing
from ...store.feature_store import FeatureStore, method_group
from ...store.layout import Array
from ..arrays.scan.forecast import Forecast
from ..arrays.scan.stored_rows import first_plan_within_budget
from ..results.example_table import PartSize
from ..results.results import Results
from ..results.table_plan import Scored, with_output
from ..runtime.memory import Part, Plan
from ..runtime.run import SILENT, Run
from .query_options import QueryOptions
from .query_session import TOGETHER, Capability, ScoreBlocks, export_session, missing
from .stored_session import StoredSession

CONFIDENCE = 0.95


def seeds_of(store: FeatureStore, name: str) -> list[str]:
    """Names of the method's members in the store that differ by their seeds alone; `name` is the first.

    Raises:
        SettingsError: there are fewer than two.
    """
    all_settings = {member: store.groups[method_group(member)].settings for member in store.methods}
    own = {key: value for key, value in all_settings.get(name, {}).items() if key != "seed"}
    by_seed: dict[int, str] = {}
    for member, settings in all_settings.items():
        seed = settings.pop("seed", None)
        if seed is not None and settings == own and member.partition("@")[0] == name.partition("@")[0]:
            by_seed.setdefault(seed, member)
    others = [member for member in by_seed.values() if member != name]
    names = [name, *others] if name in by_seed.values() else []
    if len(names) < 2:
        raise SettingsError(
            f"{store.url} has rows of {name} under fewer than two seeds: headwater ingest --method {name} --seeds 5 adds more"
        )
    return names


class SeededSession:
    """A :class:`QuerySession` of several seeds of one method: scores are means over them."""

    def __init__(self, name: str, sessions: Sequence[StoredSession], options: QueryOptions, run: Run = SILENT) -> None:
        """`sessions`: one per seed, of one store; the first of them reports progress.

        Raises:
            BudgetError: the sessions together exceed the budget. StoreMissing: one has fewer rows than another.
        """
        self.name, self._sessions, self._top = name, sessions, options.top
        rows = [session.rows for session in sessions]
        if len(set(rows)) > 1:
            counts = f"seeds of {name} have {min(rows):,} to {max(rows):,} rows"
            raise StoreMissing(f"{counts}: run ingest --method {name} --seeds {len(rows)} to continue")
        self.store, self.rows, self.queries = sessions[0].store, sessions[0].rows, sessions[0].queries
        self.shape, self.query_ids = sessions[0].shape, sessions[0].query_ids
        count, k = len(self.query_ids), min(self._top, self.rows)
        tile = 4 * max(session.shape.block_rows for session in sessions) * count * (len(sessions) + 4)
        best = 24 * count * k * (len(sessions) + 2)
        plan = sum((session.plan for session in sessions), Plan(())) + Plan.of(
            Part("scores of all seeds", tile), Part("results of all seeds", best)
        )
        output = options.output(Scored(self.store, self.rows, count, sessions[0].block_rows, run.budget))
        self.parts: PartSize
        self.plan, (_, self.parts) = first_plan_within_budget(with_output([(plan, None)], output), Plan(()), run.budget)

    @property
    def notes(self) -> list[str]:
        """How the queries were read, and how many rows of how many there are if some are missing."""
        return self._sessions[0].notes

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Rows of all seeds can be cached in memory."""
        return frozenset({"cache"})

    def forecast(self) -> Forecast:
        """Raise SettingsError: a scan of several seeds has no forecast."""
        raise missing(self.name, "forecast")

    def cache(self) -> int:
        """Keep the rows of all seeds in memory from now on; returns their size in bytes, which no memory plan includes."""
        return sum(session.cache() for session in self._sessions)

    def attribute(self) -> Results:
        """The best examples of each query, by their mean scores."""
        return self._best(self.query_ids, self._seed_scores())

    def most_valuable(self) -> Results:
        """The best examples for all queries together."""
        means = ((first, scores.mean(2, keepdims=True)) for first, scores in self._seed_scores())
        return self._best([TOGETHER], means)

    def value(self) -> ScoreBlocks:
        """(first row, (rows,) mean score over queries and seeds), over all examples in order."""
        for first, scores in self._seed_scores():
            yield first, scores.mean((0, 2)).astype(np.float32)

    def scores(self) -> ScoreBlocks:
        """(first row, (rows, Q) mean score over seeds), over all examples in order."""
        for first, scores in self._seed_scores():
            yield first, scores.mean(0).astype(np.float32)

    def export(self, path: str) -> None:
        """Write the mean scores of all examples for all queries to a new .zarr group."""
        export_session(self, path)

    def _seed_scores(self) -> ScoreBlocks:
        """(first row, (seeds, rows, Q) float64), in order; the seeds are scanned side by side."""
        scans = [session.scores() for session in self._sessions]
        for parts in zip(*scans, strict=True):
            yield parts[0][0], np.stack([scores for _, scores in parts]).astype(np.float64)

    def _best(self, queries: list[str], blocks: Iterator[tuple[int, Array]]) -> Results:
        """The best examples by mean scores, from (first row, (seeds, rows, Q))."""
        seeds, k = len(self._sessions), min(self._top, self.rows)
        best = np.zeros((seeds, len(queries), 0))
        rows = np.zeros((len(queries), 0), np.int64)
        for first, part in blocks:
            numbers = np.broadcast_to(np.arange(first, first + part.shape[1]), (len(queries), part.shape[1]))
            best = np.concatenate([best, part.transpose(0, 2, 1)], 2)
            rows = np.concatenate([rows, numbers], 1)
            order = np.argsort(-best.mean(0), 1, kind="stable")[:, :k]  # stable: ties go to the lower row
            best, rows = np.take_along_axis(best, order[None], 2), np.take_along_axis(rows, order, 1)
        ranges = [rank_range(scores) for scores in best.transpose(1, 0, 2)]
        return Results(
            f"{self.name}, {seeds} seeds", queries, rows, best.mean(0).astype(np.float32),
            error=(best.std(0, ddof=1) / math.sqrt(seeds)).astype(np.float32),
            rank_low=np.array([low for low, _ in ranges]), rank_high=np.array([high for _, high in ranges]),
        )  # fmt: skip


def rank_range(scores: Array) -> tuple[Array, Array]:
    """(seeds, k) scores of k examples → lowest and highest rank (k,), (k,) of each among them.

    Two examples are ordered if the mean of their paired differences differs from 0 by a two-sided t-test at 95 % with seeds − 1
    degrees of freedom; there is no correction for multiple comparisons.
    """
    from scipy.stats import t

    seeds, k = scores.shape
    factor = float(t.ppf(0.5 + CONFIDENCE / 2, seeds - 1)) / math.sqrt(seeds)
    low, high = np.ones(k, np.int64), np.full(k, k, np.int64)
    for at in range(k):
        differences = scores - scores[:, at : at + 1]  # (seeds, k)
        mean, bound = differences.mean(0), factor * differences.std(0, ddof=1)
        low[at] += int((mean > bound).sum())
        high[at] -= int((mean < -bound).sum())
    return low, high
