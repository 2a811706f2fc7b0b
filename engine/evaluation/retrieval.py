"""`evaluate retrieval`: whether the examples known to be relevant rank first. Knows labels; no method.

From answers (the best K of each query): precision and recall at k, reciprocal rank, average precision, where what is not
among the K counts as never found. From all scores of all examples besides: areas under the curve of the full ranking, and
RISE's protocol, which looks at the K best and K worst examples alone (arXiv 2604.16197).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from ...store.errors import DataError
from ...store.files import JsonObject
from ...store.layout import Array
from .labels import Labels
from .metrics import (
    Estimate,
    auc,
    average_precision,
    bootstrap,
    extremes,
    precision_at,
    ranked_precision,
    recall_at,
    reciprocal_rank,
)

CUTS = (1, 5, 10, 50)
"""The k of precision, recall and the protocol, where nobody says."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """What one query was answered."""

    query: str
    """Its id."""
    examples: Sequence[str]
    """Ids of examples, best first."""
    texts: Sequence[str]
    """Their texts; empty strings where they are not known."""
    scores: Array
    """(K,) their scores."""


@dataclass(frozen=True, slots=True)
class Retrieval:
    """Figures of each query, and their means."""

    queries: tuple[str, ...]
    """Ids of those that have relevant examples."""
    skipped: int
    """Queries for which no example is relevant."""
    examples: int
    """Examples that were ranked, at most, for a query."""
    relevant: float
    """Mean number of relevant examples of a query."""
    hits: tuple[Array, ...]
    """Of each query's ranking, best first, which are relevant."""
    scores: tuple[Array, ...]
    """Of each query's ranking, the scores."""
    totals: tuple[int, ...]
    """Of each query, how many are relevant in all, as far as is known."""
    figures: dict[str, Array]
    """Name → (Q,) figure of each query."""

    def means(self) -> dict[str, Estimate]:
        """Name → mean over queries, with its bootstrap interval."""
        return {name: bootstrap(values) for name, values in self.figures.items()}

    def facts(self) -> JsonObject:
        """JSON values."""
        lines = {name: [None if np.isnan(x) else float(x) for x in values] for name, values in self.figures.items()}
        means = {name: asdict(one) for name, one in self.means().items() if one.count}
        return {"measure": "retrieval", "queries": list(self.queries), "skipped": self.skipped, "examples": self.examples,
                "relevant": self.relevant, "means": means, "each": lines}  # fmt: skip


def evaluate_retrieval(
    rankings: Iterable[Ranking], labels: Labels, cuts: Sequence[int] = CUTS, *, whole: bool
) -> Retrieval:
    """Figures over all rankings; `whole`: they hold every example, so that all of the ranking can be judged.

    Raises:
        DataError: no query, or none with a relevant example.
    """
    kept: list[tuple[str, Array, Array, int, dict[str, float]]] = []
    skipped = 0
    for ranking in rankings:
        hits = labels.relevant(ranking.query, ranking.examples, ranking.texts)
        all_of_them = labels.total(ranking.query)
        total = int(hits.sum()) if whole or all_of_them is None else all_of_them
        known = whole or all_of_them is not None
        if known and not total:
            skipped += 1
            continue
        figures = _figures(ranking.scores, hits, total if known else None, cuts, whole)
        kept.append((ranking.query, hits, ranking.scores, total, figures))
    if not any(total for *_, total, _ in kept):
        asked = skipped + len(kept)
        told = f"none of {asked} queries has a relevant example" if asked else "no query was answered"
        raise DataError(f"{told}: there is nothing to measure")
    names = dict.fromkeys(name for *_, figures in kept for name in figures)
    return Retrieval(
        tuple(query for query, *_ in kept), skipped, max(len(hits) for _, hits, *_ in kept),
        float(np.mean([total for *_, total, _ in kept])), tuple(hits for _, hits, *_ in kept),
        tuple(scores for _, _, scores, *_ in kept), tuple(total for *_, total, _ in kept),
        {name: np.array([figures.get(name, np.nan) for *_, figures in kept]) for name in names},
    )  # fmt: skip


def _figures(scores: Array, hits: Array, total: int | None, cuts: Sequence[int], whole: bool) -> dict[str, float]:
    """One query's figures. `total` None: nobody knows how many are relevant, so nothing that depends on it is told."""
    line, count = hits[None], np.array([total or 0])
    found = {f"precision@{k}": float(precision_at(line, k)[0]) for k in cuts if k <= len(hits)}
    found["reciprocal rank"] = float(reciprocal_rank(line)[0])
    if total is not None:
        found |= {f"recall@{k}": float(recall_at(line, k, count)[0]) for k in cuts if k <= len(hits)}
    if whole:
        found["average precision"] = average_precision(scores, hits)
        found["AUC"] = auc(scores, hits)
        for k in cuts:
            chosen = extremes(scores, hits, k)
            found[f"AP of top and bottom {k}"] = average_precision(*chosen)
            found[f"AUC of top and bottom {k}"] = auc(*chosen)
    elif total is not None:
        found["average precision"] = float(ranked_precision(line, count)[0])
    return found


def curve(found: Retrieval, points: int = 101) -> tuple[Array, Array]:
    """(recall, precision), each (points,): the mean curve, precision being the best at this recall or beyond; 0 where no
    ranking got so far.
    """
    grid = np.linspace(0, 1, points)
    lines = []
    for hits, total in zip(found.hits, found.totals, strict=True):
        got = np.cumsum(hits)
        precision = got / np.arange(1, len(hits) + 1)
        best = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
        lines.append(best[np.searchsorted(got, grid * total - 1e-9, side="left")])
    return grid, np.mean(lines, axis=0)
