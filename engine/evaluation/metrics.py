"""Metrics: rank correlations, LDS, precision and recall, areas under curves, bootstrap intervals.

Pure functions of arrays in float64. Scores with ties have the mean rank of their group in correlations, count half in AUC, and
enter together in average precision; a figure that is not defined (no relevant row, a constant column) is NaN, and means leave
it out. Knows no file, no store and no method.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from ...store.errors import DataError
from ...store.layout import Array
from ..arrays.ranks import spearman

RESAMPLES = 1000
LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its bootstrap interval."""

    value: float
    """Mean over what is defined."""
    low: float
    """Lower end of the interval."""
    high: float
    """Upper end."""
    count: int
    """Queries (or tasks) with a defined figure."""


def subset_sums(scores: Array, masks: Array) -> Array:
    """(S, Q): each query's scores summed over each subset. scores (Q, N); masks (S, N), boolean or 0/1.

    The additive prediction of a subset's effect (Ilyas et al. 2022, Park et al. 2023, equation 4).
    """
    if scores.ndim != 2 or masks.ndim != 2 or scores.shape[1] != masks.shape[1]:
        raise DataError(f"scores {scores.shape} are (queries, examples), masks {masks.shape} (subsets, examples): "
                        "the numbers of examples differ")  # fmt: skip
    found: Array = masks.astype(np.float64) @ scores.T.astype(np.float64)
    return found


def lds(predicted: Array, outcomes: Array) -> Array:
    """(Q,) linear datamodelling score: over subsets, Spearman's correlation of predictions and outcomes, both (S, Q).

    Park et al. 2023 (TRAK), definition 2.3, whose score is the mean over queries.
    """
    if predicted.shape != outcomes.shape:
        raise DataError(
            f"predictions {predicted.shape} and outcomes {outcomes.shape} are (subsets, queries): they differ"
        )
    return spearman(predicted, outcomes)


def noise_ceiling(outcomes: Array) -> tuple[float, float]:
    """(mean correlation of two seeds, what a perfect predictor of the expected outcome would reach).

    outcomes (R, S, Q): R retrainings of each subset. With r the mean Spearman correlation of two retrainings, over pairs and
    queries, the mean of R has reliability R r / (1 + (R-1) r) (Spearman-Brown), and the correlation of anything with it is
    at most the root of that (attenuation). NaN for one seed; 0 where r ≤ 0.
    """
    seeds = len(outcomes)
    if seeds < 2:
        return float("nan"), float("nan")
    found = [spearman(outcomes[i], outcomes[j]) for i in range(seeds) for j in range(i)]
    r = float(np.nanmean(found)) if np.isfinite(found).any() else float("nan")
    if not r > 0:
        return r, 0.0 if np.isfinite(r) else float("nan")
    return r, float(np.sqrt(seeds * r / (1 + (seeds - 1) * r)))


def bootstrap(values: Array, resamples: int = RESAMPLES, seed: int = 0) -> Estimate:
    """The mean of (n,) figures, with the percentile interval of its bootstrap (Efron 1979) over them; NaN are left out."""
    kept = values[np.isfinite(values)]
    if not len(kept):
        return Estimate(float("nan"), float("nan"), float("nan"), 0)
    draws = np.random.default_rng(seed).integers(len(kept), size=(resamples, len(kept)))
    low, high = np.quantile(kept[draws].mean(1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(kept.mean()), float(low), float(high), len(kept))


def bootstrap_subsets(
    predicted: Array,
    outcomes: Array,
    measure: Callable[[Array, Array], Array] = lds,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """The mean over queries of `measure`, with an interval that resamples subsets and queries both: subsets are few, and all
    queries share them. predicted, outcomes (S, Q).
    """
    random, (subsets, queries) = np.random.default_rng(seed), predicted.shape
    figures, means = measure(predicted, outcomes), []
    for _ in range(resamples):
        rows, columns = random.integers(subsets, size=subsets), random.integers(queries, size=queries)
        drawn = measure(predicted[np.ix_(rows, columns)], outcomes[np.ix_(rows, columns)])
        if np.isfinite(drawn).any():
            means.append(np.nanmean(drawn))
    kept = figures[np.isfinite(figures)]
    if not len(kept) or not means:
        return Estimate(float("nan"), float("nan"), float("nan"), 0)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(kept.mean()), float(low), float(high), len(kept))


def task_correlation(predicted: Array, outcomes: Array) -> float:
    """Spearman's correlation over subsets of predicted and measured utility of one task, both (S,)."""
    return float(spearman(predicted[:, None], outcomes[:, None])[0])


def auc(scores: Array, relevant: Array) -> float:
    """Probability that a relevant row scores above an irrelevant one, ties counting half (Mann-Whitney): both (N,)."""
    positives = int(relevant.sum())
    negatives = len(relevant) - positives
    if not positives or not negatives:
        return float("nan")
    ranks = rankdata(scores)
    return float((ranks[relevant].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def average_precision(scores: Array, relevant: Array) -> float:
    """Σ (recall_n - recall_{n-1}) precision_n over thresholds, tied rows entering together, as scikit-learn has it; (N,) each."""
    positives = int(relevant.sum())
    if not positives:
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)  # the last row of each tied group
    hits = np.cumsum(relevant[order])[ends]
    gained = np.diff(hits, prepend=0) / positives
    return float((gained * hits / (ends + 1)).sum())


def extremes(scores: Array, relevant: Array, k: int) -> tuple[Array, Array]:
    """The k best and k worst rows of (N,) scores, and their relevance: what RISE's protocol looks at."""
    order = np.argsort(-scores, kind="stable")
    chosen = order if 2 * k >= len(order) else np.concatenate([order[:k], order[-k:]])
    return scores[chosen], relevant[chosen]


def precision_at(relevant: Array, k: int) -> Array:
    """(Q,) share of relevant ones among the first k of rankings; relevant (Q, ≥ 1) boolean, best first.

    Rankings shorter than k are judged as they are long.
    """
    return np.asarray(relevant[:, :k].mean(1, dtype=np.float64))


def recall_at(relevant: Array, k: int, totals: Array) -> Array:
    """(Q,) share of all relevant rows (`totals`, (Q,)) among the first k; NaN where there is none."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(totals > 0, relevant[:, :k].sum(1) / totals, np.nan))


def reciprocal_rank(relevant: Array) -> Array:
    """(Q,) 1 / rank of the first relevant row of rankings (Q, K), best first; 0 where none is among them. Its mean is MRR."""
    found = relevant.any(1)
    return np.asarray(np.where(found, 1.0 / (relevant.argmax(1) + 1), 0.0))


def ranked_precision(relevant: Array, totals: Array) -> Array:
    """(Q,) average precision of rankings that end after K rows: Σ precision at each relevant row / relevant rows in all.

    relevant (Q, K) boolean, best first; totals (Q,): what was not ranked counts as never found.
    """
    hits = np.cumsum(relevant, 1) / np.arange(1, relevant.shape[1] + 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(totals > 0, (hits * relevant).sum(1) / totals, np.nan))
