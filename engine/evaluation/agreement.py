"""`evaluate lds` and `evaluate subsets`: predicted against real effects of training on subsets. Knows no store.

Outcomes are losses unless said otherwise: training on a subset that helps lowers them, so a positive score predicts a fall,
and correlations are taken with their negatives.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ...store.errors import DataError, SettingsError
from ...store.files import JsonObject
from ...store.layout import Array
from .metrics import Estimate, bootstrap_subsets, lds, noise_ceiling, subset_sums

OUTCOMES = ("loss", "gain")
MIXED = 100


@dataclass(frozen=True, slots=True)
class Agreement:
    """How predictions agree with outcomes over subsets."""

    measure: str
    """lds, or subsets."""
    mean: Estimate
    """Spearman's correlation over subsets, mean over queries, with an interval over subsets and queries."""
    each: Array
    """(Q,) of every query."""
    shuffled: Estimate
    """The same against outcomes whose subsets are mixed up, over `MIXED` ways to mix them: what no knowledge gives."""
    subsets: int
    """S."""
    seeds: int
    """Retrainings of each subset that were averaged."""
    between: float
    """Mean correlation of two retrainings; NaN where there is one."""
    ceiling: float
    """What a perfect prediction would reach against these outcomes; NaN where there is one retraining."""

    def facts(self) -> JsonObject:
        """JSON values; what is not defined is null."""
        found = asdict(self) | {"each": self.each.tolist()}
        return {key: _json(value) for key, value in found.items()}


def _json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_json(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def evaluate_lds(scores: Array, masks: Array, outcomes: Array, kind: str = "loss", resamples: int = 1000) -> Agreement:
    """The linear datamodelling score of `scores` (Q, N) on `masks` (S, N) and `outcomes` (S, Q) or (seeds, S, Q).

    Raises:
        DataError: shapes that disagree, both named; fewer than three subsets.
    """
    if scores.ndim != 2:
        raise DataError(f"scores are (queries, examples), not {scores.shape}")
    by_seed = per_seed(outcomes, len(masks))
    if by_seed.shape[2] != len(scores):
        raise DataError(
            f"scores {scores.shape} are of {len(scores)} queries, outcomes {outcomes.shape} of {by_seed.shape[2]}"
        )
    return agreement("lds", subset_sums(scores, masks), by_seed, kind, resamples)


def evaluate_subsets(predicted: Array, outcomes: Array, kind: str = "loss", resamples: int = 1000) -> Agreement:
    """Predicted utilities (S,) or (S, tasks) beside outcomes (S,), (S, tasks) or (seeds, S, tasks).

    Raises:
        DataError: shapes that disagree, both named; fewer than three subsets.
    """
    predicted = predicted[:, None] if predicted.ndim == 1 else predicted
    by_seed = per_seed(outcomes[:, None] if outcomes.ndim == 1 else outcomes, len(predicted))
    if by_seed.shape[1:] != predicted.shape:
        raise DataError(f"predictions {predicted.shape} are (subsets, tasks), outcomes {outcomes.shape}: they differ")
    return agreement("subsets", predicted, by_seed, kind, resamples)


def per_seed(outcomes: Array, subsets: int) -> Array:
    """(seeds, S, Q) float64 of outcomes with or without the axis of seeds.

    Raises:
        DataError: another number of subsets than the masks have.
    """
    found: Array = np.asarray(outcomes, np.float64)
    found = found[None] if found.ndim == 2 else found
    if found.ndim != 3 or found.shape[1] != subsets:
        raise DataError(f"outcomes {outcomes.shape} are (subsets, queries) or (seeds, subsets, queries), "
                        f"and masks or predictions have {subsets} subsets")  # fmt: skip
    return found


def agreement(measure: str, predicted: Array, by_seed: Array, kind: str, resamples: int) -> Agreement:
    """Predictions (S, Q) beside outcomes (seeds, S, Q)."""
    if kind not in OUTCOMES:
        raise SettingsError(f"outcomes are {' or '.join(OUTCOMES)}, not {kind!r}")
    subsets, sign = len(predicted), -1.0 if kind == "loss" else 1.0
    if subsets < 3:
        raise DataError(f"{subsets} subsets have no rank correlation worth the name: give three or more")
    outcomes = sign * by_seed.mean(0)
    between, ceiling = noise_ceiling(by_seed)
    return Agreement(
        measure, bootstrap_subsets(predicted, outcomes, resamples=resamples), lds(predicted, outcomes),
        _mixed(predicted, outcomes), subsets, len(by_seed), between, ceiling,
    )  # fmt: skip


def _mixed(predicted: Array, outcomes: Array) -> Estimate:
    """Mean and 95 % range of the mean correlation with outcomes of mixed-up subsets."""
    random, defined = np.random.default_rng(0), np.isfinite(lds(predicted, outcomes))
    if not defined.any():
        return Estimate(float("nan"), float("nan"), float("nan"), 0)
    told, real = predicted[:, defined], outcomes[:, defined]
    found = np.array([lds(told, real[random.permutation(len(real))]).mean() for _ in range(MIXED)])
    low, high = np.quantile(found, [0.025, 0.975])
    return Estimate(float(found.mean()), float(low), float(high), told.shape[1])
