"""Metrics: rank correlations, LDS, precision and recall, areas under curves, bootstrap intervals.

Pure functions of float64 arrays. Tied scores get the mean rank of their group in correlations, count half in AUC, and enter
together in average precision. An undefined metric (no relevant row, a constant column) is NaN and is left out of means.
Knows no file, no store and no method.
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
    """A mean with its bootstrap confidence interval."""

    value: float
    """Mean over the defined values."""
    low: float
    """Lower bound of the interval."""
    high: float
    """Upper bound of the interval."""
    count: int
    """Number of queries (or tasks) for which the metric is defined."""


def subset_sums(scores: Array, masks: Array) -> Array:
    """(S, Q): each query's scores summed over each subset. scores (Q, N); masks (S, N), boolean or 0/1.

    The additive prediction of a subset's effect (Ilyas et al. 2022, Park et al. 2023, equation 4).
    """
    if scores.ndim != 2 or masks.ndim != 2 or scores.shape[1] != masks.shape[1]:
        raise DataError(f"scores {scores.shape} are (queries, examples), masks {masks.shape} (subsets, examples): "
                        "the numbers of examples differ")  # fmt: skip
    sums: Array = masks.astype(np.float64) @ scores.T.astype(np.float64)
    return sums


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
    """(mean correlation of two seeds, correlation that a perfect predictor of the expected outcome would reach).

    outcomes (R, S, Q): R retrainings of each subset. With r the mean Spearman correlation of two retrainings, over pairs and
    queries, the mean of R has reliability R r / (1 + (R-1) r) (Spearman-Brown), and the correlation of anything with it is
    at most the root of that (attenuation). NaN for one seed; 0 where r ≤ 0.
    """
    seeds = len(outcomes)
    if seeds < 2:
        return float("nan"), float("nan")
    correlations = [spearman(outcomes[i], outcomes[j]) for i in range(seeds) for j in range(i)]
    r = float(np.nanmean(correlations)) if np.isfinite(correlations).any() else float("nan")
    if not r > 0:
        return r, 0.0 if np.isfinite(r) else float("nan")
    return r, float(np.sqrt(seeds * r / (1 + (seeds - 1) * r)))


def bootstrap(values: Array, resamples: int = RESAMPLES, seed: int = 0) -> Estimate:
    """The mean of (n,) values with its bootstrap percentile interval (Efron 1979); NaN are left out."""
    defined = values[np.isfinite(values)]
    if not len(defined):
        return Estimate(float("nan"), float("nan"), float("nan"), 0)
    draws = np.random.default_rng(seed).integers(len(defined), size=(resamples, len(defined)))
    low, high = np.quantile(defined[draws].mean(1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(defined.mean()), float(low), float(high), len(defined))


def bootstrap_subsets(
    predicted: Array,
    outcomes: Array,
    measure: Callable[[Array, Array], Array] = lds,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """The mean over queries of `measure`, with an interval that resamples both subsets and queries: subsets are few, and all
    queries share them. predicted, outcomes (S, Q).
    """
    generator, (subsets, queries) = np.random.default_rng(seed), predicted.shape
    values, means = measure(predicted, outcomes), []
    for _ in range(resamples):
        rows, columns = generator.integers(subsets, size=subsets), generator.integers(queries, size=queries)
        resampled = measure(predicted[np.ix_(rows, columns)], outcomes[np.ix_(rows, columns)])
        if np.isfinite(resampled).any():
            means.append(np.nanmean(resampled))
    defined = values[np.isfinite(values)]
    if not len(defined) or not means:
        return Estimate(float("nan"), float("nan"), float("nan"), 0)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(defined.mean()), float(low), float(high), len(defined))


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


def top_and_bottom(scores: Array, relevant: Array, k: int) -> tuple[Array, Array]:
    """The k highest and k lowest of (N,) scores and their relevance, as in RISE's evaluation protocol."""
    order = np.argsort(-scores, kind="stable")
    rows = order if 2 * k >= len(order) else np.concatenate([order[:k], order[-k:]])
    return scores[rows], relevant[rows]


def precision_at(relevant: Array, k: int) -> Array:
    """(Q,) fraction of relevant rows among the first k of each ranking; relevant (Q, ≥ 1) bool, best first.

    Rankings shorter than k are evaluated at their full length.
    """
    return np.asarray(relevant[:, :k].mean(1, dtype=np.float64))


def recall_at(relevant: Array, k: int, totals: Array) -> Array:
    """(Q,) fraction of all relevant rows (`totals`, (Q,)) that are among the first k; NaN if there are none."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(totals > 0, relevant[:, :k].sum(1) / totals, np.nan))


def reciprocal_rank(relevant: Array) -> Array:
    """(Q,) 1 / rank of the first relevant row of rankings (Q, K), best first; 0 if there is none. Its mean is the MRR."""
    has_relevant = relevant.any(1)
    return np.asarray(np.where(has_relevant, 1.0 / (relevant.argmax(1) + 1), 0.0))


def ranked_precision(relevant: Array, totals: Array) -> Array:
    """(Q,) average precision of rankings cut after K rows: Σ precision at each relevant row / total relevant rows.

    relevant (Q, K) bool, best first; totals (Q,): relevant rows that were not ranked contribute 0.
    """
    hits = np.cumsum(relevant, 1) / np.arange(1, relevant.shape[1] + 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(totals > 0, (hits * relevant).sum(1) / totals, np.nan))
