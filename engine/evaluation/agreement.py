"""`evaluate lds` and `evaluate subsets`: predicted against real effects of training on subsets.

Outcomes are losses by default. Training on a helpful subset lowers the loss, so that a positive score predicts a lower loss and
outcomes enter the correlations with their sign changed. Knows no store.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

import numpy as np

from ...store.errors import DataError, SettingsError
from ...store.json_values import JsonValue, ParsedJson
from ...store.layout import Array
from .metrics import Estimate, bootstrap_subsets, lds, noise_ceiling, subset_sums

OUTCOMES = ("loss", "gain")
SHUFFLES = 100
"""Random permutations of the subsets for the chance level."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """Rank correlation of predictions and outcomes over subsets."""

    measure: str
    """"lds" or "subsets"."""
    mean: Estimate
    """Spearman's correlation over subsets, mean over queries, with an interval over subsets and queries."""
    each: Array
    """(Q,) the correlation of each query."""
    shuffled: Estimate
    """The same with the subsets of the outcomes shuffled, over `SHUFFLES` permutations: the chance level."""
    subsets: int
    """Number of subsets S."""
    seeds: int
    """Number of retrainings of each subset, whose outcomes are averaged."""
    between: float
    """Mean correlation of two retrainings; NaN if there is only one."""
    ceiling: float
    """Noise ceiling: the correlation that a perfect prediction would reach; NaN if there is only one retraining."""
    outcome: str
    """What outcomes were taken for: "loss" or "gain"."""
    averaged: int = 0
    """Number of queries whose outcomes were averaged into those of the one task that was predicted; 0: none."""

    def facts(self) -> ParsedJson:
        """The fields and the notes as JSON values; undefined figures are null."""
        fields = asdict(self) | {"each": self.each.tolist(), "notes": self.notes}
        return {key: _json(value) for key, value in fields.items()}

    @property
    def notes(self) -> list[str]:
        """What the user should know of the figures, one per line."""
        lines = []
        if self.averaged:
            lines.append(
                f"predictions are of one task: its outcome is the mean of the {self.averaged} queries' outcomes"
            )
        if self.mean.count and self.mean.high < 0:
            (other,) = set(OUTCOMES) - {self.outcome}
            lines.append(
                f"the correlation is below 0 (95 %: {self.mean.low:.4f} to {self.mean.high:.4f}), with outcomes read as "
                f"--outcome {self.outcome}: did you mean --outcome {other}?"
            )
        return lines


def _json(value: JsonValue) -> JsonValue:
    """A JSON value with null in place of undefined numbers."""
    if isinstance(value, Mapping):
        return {key: _json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_json(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def evaluate_lds(scores: Array, masks: Array, outcomes: Array, kind: str = "loss", resamples: int = 1000) -> Agreement:
    """The linear datamodelling score of `scores` (Q, N) on `masks` (S, N) and `outcomes` (S, Q) or (seeds, S, Q).

    Raises:
        DataError: shapes do not match, or there are fewer than three subsets.
    """
    if scores.ndim != 2:
        raise DataError(f"scores are (queries, examples), not {scores.shape}")
    by_seed = outcomes_by_seed(outcomes, len(masks))
    if by_seed.shape[2] != len(scores):
        raise DataError(
            f"scores {scores.shape} are of {len(scores)} queries, outcomes {outcomes.shape} of {by_seed.shape[2]}"
        )
    return agreement("lds", subset_sums(scores, masks), by_seed, kind, resamples)


def evaluate_subsets(predicted: Array, outcomes: Array, kind: str = "loss", resamples: int = 1000) -> Agreement:
    """Rank correlation of predicted utilities (S,) or (S, tasks) and outcomes (S,), (S, tasks) or (seeds, S, tasks).

    The utility of a task is how much its queries' mean loss falls, so that predictions of one task are compared with the mean of
    outcomes (S, Q) or (seeds, S, Q) of single queries, as `ground-truth` writes them.

    Raises:
        DataError: shapes do not match, or there are fewer than three subsets.
    """
    matrix = predicted[:, None] if predicted.ndim == 1 else predicted
    by_seed = outcomes_by_seed(outcomes[:, None] if outcomes.ndim == 1 else outcomes, len(predicted))
    queries = by_seed.shape[2]
    if matrix.ndim == 2 and matrix.shape[1] == 1 < queries:
        averaged = agreement("subsets", matrix, by_seed.mean(2, keepdims=True), kind, resamples)
        return replace(averaged, averaged=queries)
    if by_seed.shape[1:] != matrix.shape:
        raise DataError(
            f"predictions {predicted.shape} are (subsets, tasks), and outcomes {outcomes.shape} are not of these tasks: expected "
            "(subsets, tasks) or (seeds, subsets, tasks), for each task the mean over its queries"
        )
    return agreement("subsets", matrix, by_seed, kind, resamples)


def outcomes_by_seed(outcomes: Array, subsets: int) -> Array:
    """Outcomes as (seeds, S, Q) float64, whether or not they have the axis of seeds.

    Raises:
        DataError: the number of subsets differs from that of the masks or predictions.
    """
    by_seed: Array = np.asarray(outcomes, np.float64)
    by_seed = by_seed[None] if by_seed.ndim == 2 else by_seed
    if by_seed.ndim != 3 or by_seed.shape[1] != subsets:
        raise DataError(f"outcomes {outcomes.shape} are (subsets, queries) or (seeds, subsets, queries), "
                        f"and masks or predictions have {subsets} subsets")  # fmt: skip
    return by_seed


def agreement(measure: str, predicted: Array, by_seed: Array, kind: str, resamples: int) -> Agreement:
    """Rank correlation of predictions (S, Q) and outcomes (seeds, S, Q) over subsets.

    Raises:
        SettingsError: `kind` is unknown.
        DataError: fewer than three subsets.
    """
    if kind not in OUTCOMES:
        raise SettingsError(f"outcomes are {' or '.join(OUTCOMES)}, not {kind!r}")
    subsets, sign = len(predicted), -1.0 if kind == "loss" else 1.0
    if subsets < 3:
        raise DataError(f"{subsets} subsets are too few for a rank correlation", hint="give three or more")
    outcomes = sign * by_seed.mean(0)
    between, ceiling = noise_ceiling(by_seed)
    return Agreement(
        measure, bootstrap_subsets(predicted, outcomes, resamples=resamples), lds(predicted, outcomes),
        _shuffled_correlation(predicted, outcomes), subsets, len(by_seed), between, ceiling, kind,
    )  # fmt: skip


def _shuffled_correlation(predicted: Array, outcomes: Array) -> Estimate:
    """Mean and 95 % range of the mean correlation when the subsets of the outcomes are shuffled."""
    generator, defined = np.random.default_rng(0), np.isfinite(lds(predicted, outcomes))
    if not defined.any():
        return Estimate(float("nan"), float("nan"), float("nan"), 0)
    defined_predictions, defined_outcomes = predicted[:, defined], outcomes[:, defined]
    means = np.array(
        [
            lds(defined_predictions, defined_outcomes[generator.permutation(len(defined_outcomes))]).mean()
            for _ in range(SHUFFLES)
        ]
    )
    low, high = np.quantile(means, [0.025, 0.975])
    return Estimate(float(means.mean()), float(low), float(high), defined_predictions.shape[1])
