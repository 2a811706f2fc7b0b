"""Query session over several seeds of one method: mean scores, standard errors, rank intervals.

A sketch's score is right on average and wrong by chance; sketches of other seeds are wrong independently. So their mean is
closer to what none of them sees, the standard error of that mean is known, and two examples whose difference is within it
are not in an order that anyone should read. Knows no method by name.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from ...store.errors import SettingsError, StoreMissing
from ...store.feature_store import FeatureStore, method_group
from ...store.layout import Array
from ..arrays.scan.forecast import Forecast
from ..results.results import Results
from ..runtime.memory import Part, Plan
from ..runtime.run import SILENT, Run
from .query_session import TOGETHER, Capability, ScoreBlocks, export_session, missing
from .stored_session import StoredSession

CONFIDENCE = 0.95


def seeds_of(store: FeatureStore, name: str) -> list[str]:
    """Names of a method's rows in the store that differ by their seeds alone, the method's own first.

    Raises:
        SettingsError: there are fewer than two.
    """
    there = {one: store.groups[method_group(one)].settings for one in store.methods}
    own = {key: value for key, value in there.get(name, {}).items() if key != "seed"}
    found: dict[int, str] = {}
    for one, settings in there.items():
        seed = settings.pop("seed", None)
        if seed is not None and settings == own and one.partition("@")[0] == name.partition("@")[0]:
            found.setdefault(seed, one)
    names = [name, *(one for one in found.values() if one != name)] if name in found.values() else []
    if len(names) < 2:
        raise SettingsError(
            f"{store.url} holds {name} under one seed or none; headwater ingest --method {name} --seeds 5 adds more"
        )
    return names


class SeededSession:
    """The same queries to each of several sketches, planned, with nothing computed yet: a :class:`QuerySession`."""

    def __init__(self, name: str, sessions: Sequence[StoredSession], top: int, run: Run = SILENT) -> None:
        """`sessions`: one a seed, of one store; the first of them reports progress.

        Raises:
            BudgetError: they do not fit together. StoreMissing: one has fewer rows than another.
        """
        self.name, self._each, self._top = name, sessions, top
        rows = [session.rows for session in sessions]
        if len(set(rows)) > 1:
            counts = f"seeds of {name} have {min(rows):,} to {max(rows):,} rows"
            raise StoreMissing(f"{counts}: ingest --method {name} --seeds {len(rows)} goes on")
        self.store, self.rows, self.queries = sessions[0].store, sessions[0].rows, sessions[0].queries
        self.shape, self.query_ids = sessions[0].shape, sessions[0].query_ids
        count, k = len(self.query_ids), min(top, self.rows)
        tile = 4 * max(session.shape.block_rows for session in sessions) * count * (len(sessions) + 4)
        best = 24 * count * k * (len(sessions) + 2)
        self.plan = sum((session.plan for session in sessions), Plan(())) + Plan.of(
            Part("scores of all seeds", tile), Part("results of all seeds", best)
        )
        self.plan.check(run.budget, self.plan.total)

    @property
    def notes(self) -> list[str]:
        """None: scores are what they are."""
        return []

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Rows of all seeds can be kept in memory."""
        return frozenset({"cache"})

    def forecast(self) -> Forecast:
        """Raise SettingsError: several scans side by side are not forecast."""
        raise missing(self.name, "forecast")

    def cache(self) -> int:
        """Keep the rows of all seeds in memory, from now on; the bytes that they take, which are in no plan."""
        return sum(session.cache() for session in self._each)

    def attribute(self) -> Results:
        """The best examples of each query, by their mean scores."""
        return self._best(self.query_ids, self._each_score())

    def most_valuable(self) -> Results:
        """The best examples for all queries together."""
        means = ((first, scores.mean(2, keepdims=True)) for first, scores in self._each_score())
        return self._best([TOGETHER], means)

    def value(self) -> ScoreBlocks:
        """(first row, (rows,) mean score over queries and seeds) of every example, in order."""
        for first, scores in self._each_score():
            yield first, scores.mean((0, 2)).astype(np.float32)

    def scores(self) -> ScoreBlocks:
        """(first row, (rows, Q) mean scores) of every example, in order."""
        for first, scores in self._each_score():
            yield first, scores.mean(0).astype(np.float32)

    def export(self, path: str) -> None:
        """Every example's mean score for every query, to a .zarr group that is not there yet."""
        export_session(self, path)

    def _each_score(self) -> ScoreBlocks:
        """(first row, (seeds, rows, Q) float64), in order: the sketches are scanned side by side."""
        scans = [session.scores() for session in self._each]
        for parts in zip(*scans, strict=True):
            yield parts[0][0], np.stack([scores for _, scores in parts]).astype(np.float64)

    def _best(self, queries: list[str], scores: Iterator[tuple[int, Array]]) -> Results:
        seeds, k = len(self._each), min(self._top, self.rows)
        kept = np.zeros((seeds, len(queries), 0))
        rows = np.zeros((len(queries), 0), np.int64)
        for first, part in scores:
            numbers = np.broadcast_to(np.arange(first, first + part.shape[1]), (len(queries), part.shape[1]))
            kept = np.concatenate([kept, part.transpose(0, 2, 1)], 2)
            rows = np.concatenate([rows, numbers], 1)
            order = np.argsort(-kept.mean(0), 1, kind="stable")[:, :k]  # of equal ones the lower row was there before
            kept, rows = np.take_along_axis(kept, order[None], 2), np.take_along_axis(rows, order, 1)
        ranges = [rank_range(one) for one in kept.transpose(1, 0, 2)]
        return Results(
            f"{self.name}, {seeds} seeds", queries, rows, kept.mean(0).astype(np.float32),
            error=(kept.std(0, ddof=1) / math.sqrt(seeds)).astype(np.float32),
            rank_low=np.array([low for low, _ in ranges]), rank_high=np.array([high for _, high in ranges]),
        )  # fmt: skip


def rank_range(scores: Array) -> tuple[Array, Array]:
    """(seeds, k) scores of k examples → the first and the last rank (k,), (k,) that each may have among them.

    Two are in an order if the mean of their paired differences lies outside its 95 % interval by Student's t with
    seeds − 1 degrees of freedom, two-sided, each pair for itself.
    """
    from scipy.stats import t

    seeds, k = scores.shape
    far = float(t.ppf(0.5 + CONFIDENCE / 2, seeds - 1)) / math.sqrt(seeds)
    low, high = np.ones(k, np.int64), np.full(k, k, np.int64)
    for at in range(k):
        apart = scores - scores[:, at : at + 1]  # (seeds, k)
        mean, room = apart.mean(0), far * apart.std(0, ddof=1)
        low[at] += int((mean > room).sum())
        high[at] -= int((mean < -room).sum())
    return low, high
