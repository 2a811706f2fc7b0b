"""`evaluate retrieval`: whether the examples known to be relevant rank first. Knows labels; no method.

From answers (the best K examples of each query): precision and recall at k, reciprocal rank, average precision; examples
that are not among the K count as not retrieved. From all scores of all examples, in addition: the area under the ROC curve of
the full ranking, and RISE's protocol, which looks at the K best and K worst examples only (arXiv 2604.16197).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from ...store.errors import DataError
from ...store.json_values import ParsedJson
from ...store.layout import Array
from .labels import Labels
from .metrics import (
    Estimate,
    auc,
    average_precision,
    bootstrap,
    precision_at,
    ranked_precision,
    recall_at,
    reciprocal_rank,
    top_and_bottom,
)

CUTS = (1, 5, 10, 50)
"""Default values of k for precision, recall and RISE's protocol."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """The ranked examples of one query."""

    query: str
    """Id of the query."""
    examples: Sequence[str]
    """Ids of examples, best first."""
    texts: Sequence[str]
    """Texts of the examples; empty strings if they are not known."""
    scores: Array
    """(K,) scores of the examples, highest first."""

    def distinct(self) -> Ranking:
        """Each id once, at its best rank."""
        first_of_id: dict[str, int] = {}
        for at, name in enumerate(self.examples):
            first_of_id.setdefault(name, at)
        ranks = list(first_of_id.values())
        if len(ranks) == len(self.examples):
            return self
        return Ranking(self.query, list(first_of_id), [self.texts[at] for at in ranks], self.scores[ranks])


@dataclass(frozen=True, slots=True)
class Retrieval:
    """Metrics of each query, and their means."""

    queries: tuple[str, ...]
    """Ids of the queries that have relevant examples."""
    skipped: int
    """Number of queries without relevant examples."""
    examples: int
    """Largest number of examples ranked for a query."""
    relevant: float
    """Mean number of relevant examples of a query."""
    hits: tuple[Array, ...]
    """For each query (K,) bool: which ranked examples are relevant, best first."""
    scores: tuple[Array, ...]
    """For each query (K,) the scores, best first."""
    totals: tuple[int, ...]
    """For each query the number of relevant examples in all, as far as it is known."""
    figures: dict[str, Array]
    """Metric → (Q,) value of each query."""
    repeated: int = 0
    """Largest number of ranked examples of a query whose id another one has, too, and that are not counted a second time."""
    unranked: int = 0
    """Number of labelled examples that no query ranks."""
    unanswered: tuple[str, ...] = ()
    """Queries that the labels are of, and that have no ranking."""

    def means(self) -> dict[str, Estimate]:
        """Metric → mean over queries with its bootstrap interval."""
        return {name: bootstrap(values) for name, values in self.figures.items()}

    def facts(self) -> ParsedJson:
        """The metrics as JSON values; undefined values are null."""
        lines = {name: [None if np.isnan(x) else float(x) for x in values] for name, values in self.figures.items()}
        means = {name: asdict(mean) for name, mean in self.means().items() if mean.count}
        return {"measure": "retrieval", "queries": list(self.queries), "skipped": self.skipped, "examples": self.examples,
                "relevant": self.relevant, "repeated": self.repeated, "unranked": self.unranked,
                "unanswered": list(self.unanswered), "means": means, "each": lines}  # fmt: skip


def evaluate_retrieval(
    rankings: Iterable[Ranking], labels: Labels, cuts: Sequence[int] = CUTS, *, whole: bool
) -> Retrieval:
    """Metrics over all rankings; `whole`: every ranking holds all examples, so that metrics of the full ranking apply.

    Labels by id cannot tell examples of one id apart, so each id is counted once, at its best rank.

    Raises:
        DataError: there is no query, or none with a relevant example.
    """
    evaluated: list[tuple[str, Array, Array, int, dict[str, float]]] = []
    skipped = repeated = 0
    ranked_ids, answered = set[str](), set[str]()
    for all_ranked in rankings:
        ranked_ids.update(all_ranked.examples)
        answered.add(all_ranked.query)
        ranking = all_ranked.distinct() if labels.by_id else all_ranked
        repeated = max(repeated, len(all_ranked.examples) - len(ranking.examples))
        hits = labels.relevant(ranking.query, ranking.examples, ranking.texts)
        labelled_total = labels.total(ranking.query)
        total = int(hits.sum()) if whole or labelled_total is None else labelled_total
        known = whole or labelled_total is not None
        if known and not total:
            skipped += 1
            continue
        figures = _figures(ranking.scores, hits, total if known else None, cuts, whole)
        evaluated.append((ranking.query, hits, ranking.scores, total, figures))
    if not any(total for *_, total, _ in evaluated):
        query_count = skipped + len(evaluated)
        reason = f"none of {query_count} queries has a relevant example" if query_count else "no query was answered"
        raise DataError(f"{reason}: there is nothing to measure", hint="check the labels and the ids")
    names = dict.fromkeys(name for *_, figures in evaluated for name in figures)
    return Retrieval(
        tuple(query for query, *_ in evaluated), skipped, max(len(hits) for _, hits, *_ in evaluated),
        float(np.mean([total for *_, total, _ in evaluated])), tuple(hits for _, hits, *_ in evaluated),
        tuple(scores for _, _, scores, *_ in evaluated), tuple(total for *_, total, _ in evaluated),
        {name: np.array([figures.get(name, np.nan) for *_, figures in evaluated]) for name in names},
        repeated, len(labels.known - ranked_ids), tuple(sorted(labels.queries - answered)),
    )  # fmt: skip


def _figures(scores: Array, hits: Array, total: int | None, cuts: Sequence[int], whole: bool) -> dict[str, float]:
    """Metrics of one query. `total` None: the number of relevant examples is unknown; metrics that need it are left out."""
    row, count = hits[None], np.array([total or 0])
    figures = {f"precision@{k}": float(precision_at(row, k)[0]) for k in cuts if k <= len(hits)}
    figures["reciprocal rank"] = float(reciprocal_rank(row)[0])
    if total is not None:
        figures |= {f"recall@{k}": float(recall_at(row, k, count)[0]) for k in cuts if k <= len(hits)}
    if whole:
        figures["average precision"] = average_precision(scores, hits)
        figures["AUC"] = auc(scores, hits)
        for k in cuts:
            selected = top_and_bottom(scores, hits, k)
            figures[f"AP of top and bottom {k}"] = average_precision(*selected)
            figures[f"AUC of top and bottom {k}"] = auc(*selected)
    elif total is not None:
        figures["average precision"] = float(ranked_precision(row, count)[0])
    return figures


def precision_recall_curve(retrieval: Retrieval, points: int = 101) -> tuple[Array, Array]:
    """Mean precision-recall curve: (recall, precision), each (points,). Precision is the highest at this recall or beyond; 0 if a
    ranking does not reach this recall.
    """
    grid = np.linspace(0, 1, points)
    precisions = []
    for hits, total in zip(retrieval.hits, retrieval.totals, strict=True):
        hit_counts = np.cumsum(hits)
        precision = hit_counts / np.arange(1, len(hits) + 1)
        best = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
        precisions.append(best[np.searchsorted(hit_counts, grid * total - 1e-9, side="left")])
    return grid, np.mean(precisions, axis=0)
