"""`calibrate`: chooses λ by subsets that were really trained on, with a lower confidence bound.

The candidates are declared before anything is measured. The incumbent λ = 1 is replaced only by a candidate whose rank
correlation with the outcomes, mean over tasks, is higher with confidence: the lower bound of the difference by a paired bootstrap
over subsets, at level 0.1 over the number of challengers (a union bound), must be above 0; of several the one with the highest
bound. What was chosen is kept beside the rows; outcomes that were held out are scored with it once. Knows no store.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ...store.errors import DataError, SettingsError, StoreError
from ...store.files import JsonObject
from ...store.layout import Array
from ...store.state import read_state, write_state
from ..arrays.ranks import spearman
from .surrogate import GRID, INCUMBENT, utilities

FEW = 48
"""Subsets below which the incumbent will usually stay."""
_LEVEL = 0.1
_RESAMPLES = 2000
STATE = "calibration"


@dataclass(frozen=True, slots=True)
class Candidate:
    """One λ."""

    penalty: float
    correlation: float
    """Spearman's, mean over tasks."""
    ahead: float
    """Of the incumbent."""
    bound: float
    """What it is ahead by at least, with confidence; minus infinity's stand-in, NaN, for the incumbent itself."""
    chosen: bool


@dataclass(frozen=True, slots=True)
class Calibration:
    """A frozen choice."""

    penalty: float
    candidates: tuple[Candidate, ...]
    subsets: int
    tasks: tuple[str, ...]
    outcomes: str
    """Digest of what it was chosen by."""
    held_out: float | None = None
    """Correlation on subsets that were held out, once they were scored."""

    def facts(self) -> JsonObject:
        """JSON values; what is not defined is null."""
        found = asdict(self)
        for one in found["candidates"]:
            one["bound"] = None if np.isnan(one["bound"]) else one["bound"]
        return found


def calibrated(
    means: Array, vectors: Array, gains: Array, tasks: Sequence[str], grid: Sequence[float] = GRID, seed: int = 0
) -> Calibration:
    """The choice. means (S, D), vectors (T, D); gains (S, T): what training on each subset gained each task.

    Raises:
        SettingsError: no candidate, or a negative one. DataError: shapes that disagree, or an outcome that is constant.
    """
    declared = sorted({float(one) for one in grid} | {INCUMBENT})
    if not grid or not all(0 <= one < math.inf for one in declared):
        raise SettingsError("candidates for λ are numbers of at least 0, and there is one at least")
    require_outcomes(means, vectors, gains, tasks)
    predicted = {penalty: utilities(means, vectors, penalty) for penalty in declared}
    whole = {penalty: mean_correlation(one, gains) for penalty, one in predicted.items()}
    bounds = _bounds(predicted, gains, seed)
    best = max((penalty for penalty in bounds if bounds[penalty] > 0), key=bounds.__getitem__, default=INCUMBENT)
    candidates = tuple(
        Candidate(
            penalty, whole[penalty], whole[penalty] - whole[INCUMBENT], bounds.get(penalty, np.nan), penalty == best
        )
        for penalty in declared
    )
    digest = hashlib.sha256(np.ascontiguousarray(gains).tobytes() + np.ascontiguousarray(means).tobytes()).hexdigest()[
        :24
    ]
    return Calibration(best, candidates, len(means), tuple(tasks), digest)


def require_outcomes(means: Array, vectors: Array, gains: Array, tasks: Sequence[str]) -> None:
    """Raise DataError where outcomes are not (S, T), not finite, or the same for every subset."""
    if gains.shape != (len(means), len(vectors)):
        raise DataError(f"outcomes are {gains.shape}; there are {len(means)} subsets and {len(vectors)} tasks")
    if not np.isfinite(gains).all():
        raise DataError(f"the outcomes of subset {int(np.flatnonzero(~np.isfinite(gains).all(1))[0])} are not finite")
    constant = [task for task, column in zip(tasks, gains.T, strict=True) if np.ptp(column) == 0]
    if constant:
        raise DataError(f"all subsets have one outcome for task {constant[0]}: nothing can be learnt from it")


def mean_correlation(predicted: Array, gains: Array) -> float:
    """Spearman's correlation over subsets, mean over tasks; a constant prediction counts as 0."""
    return float(np.nan_to_num(spearman(predicted, gains)).mean())


def _bounds(predicted: dict[float, Array], gains: Array, seed: int) -> dict[float, float]:
    """Challenger → lower bound of what it is ahead by."""
    chance, challengers = np.random.default_rng(seed), [one for one in predicted if one != INCUMBENT]
    if not challengers:
        return {}
    every = np.concatenate([predicted[one] for one in (INCUMBENT, *challengers)], 1)  # (S, candidates · T), in one go
    repeated = np.tile(gains, (1, len(challengers) + 1))
    ahead = np.zeros((_RESAMPLES, len(challengers)))
    for draw in range(_RESAMPLES):
        rows = chance.integers(0, len(gains), len(gains))
        each = np.nan_to_num(spearman(every[rows], repeated[rows])).reshape(len(challengers) + 1, -1).mean(1)
        ahead[draw] = each[1:] - each[0]
    lows = np.quantile(ahead, _LEVEL / len(challengers), axis=0)
    return dict(zip(challengers, lows.tolist(), strict=True))


def keep(found: Calibration, state: Path) -> None:
    """Write it beside the rows, whole or not at all.

    Raises:
        StoreError: it cannot be written there.
    """
    try:
        write_state(state / STATE, found.facts())
    except StoreError as error:
        raise SettingsError(f"the calibration cannot be kept: {error}") from None


def kept(state: Path | None) -> Calibration | None:
    """What was chosen before.

    Raises:
        StoreDamaged: it is not what was written. DataError: it is no calibration.
    """
    found = read_state(state / STATE) if state is not None else None
    if found is None:
        return None
    try:
        candidates = tuple(
            Candidate(**{**each, "bound": np.nan if each["bound"] is None else each["bound"]})
            for each in found.values["candidates"]
        )
        return Calibration(**{**found.values, "candidates": candidates, "tasks": tuple(found.values["tasks"])})
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{state}/{STATE} is not what headwater wrote: {error}") from None
