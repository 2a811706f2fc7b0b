"""`calibrate`: chooses λ by the outcomes of training on subsets, with a lower confidence bound.

The candidates are declared before anything is measured. The default λ = 1 is replaced only by a candidate whose rank correlation
with the outcomes, mean over tasks, is higher with confidence: the lower bound of the difference, by a paired bootstrap over
subsets at level 0.1 over the number of other candidates (a union bound), must be above 0. Of several candidates the one with the
highest bound is chosen. The choice is stored beside the rows; held-out outcomes are scored with it once. Knows no store.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from ...store.errors import DataError, SettingsError, StoreError
from ...store.json_values import ParsedJson
from ...store.layout import Array
from ...store.state import read_state, write_state
from ..arrays.ranks import spearman
from .surrogate import DEFAULT_PENALTY, GRID, utilities

FEW = 48
"""With fewer subsets the default λ usually stays."""
_LEVEL = 0.1
_RESAMPLES = 2000
STATE = "calibration"


@dataclass(frozen=True, slots=True)
class Candidate:
    """One candidate for λ."""

    penalty: float
    correlation: float
    """Spearman's correlation with the outcomes, mean over tasks."""
    ahead: float
    """Its difference from the correlation of the default λ."""
    bound: float
    """Lower confidence bound of this difference; NaN for the default λ itself."""
    chosen: bool


@dataclass(frozen=True, slots=True)
class Calibration:
    """The chosen λ, and how it was chosen."""

    penalty: float
    candidates: tuple[Candidate, ...]
    subsets: int
    tasks: tuple[str, ...]
    outcomes: str
    """Digest of the outcomes that it was chosen by."""
    held_out: float | None = None
    """Correlation on held-out subsets, once they are scored."""

    def facts(self) -> ParsedJson:
        """The fields as JSON values; undefined figures are null."""
        fields = asdict(self)
        for candidate in fields["candidates"]:
            candidate["bound"] = None if np.isnan(candidate["bound"]) else candidate["bound"]
        return fields


@dataclass(frozen=True, slots=True)
class SubsetOutcomes:
    """Subsets with the outcomes of training on them."""

    means: Array
    """(S, D): mean vector of each subset."""
    vectors: Array
    """(T, D): vector of each task."""
    gains: Array
    """(S, T): how much training on each subset improved each task."""
    tasks: tuple[str, ...]
    """Names of the tasks."""

    def part(self, subsets: slice) -> SubsetOutcomes:
        """A range of the subsets."""
        return replace(self, means=self.means[subsets], gains=self.gains[subsets])

    def check(self) -> None:
        """Raise DataError if outcomes are not (S, T), not finite, or the same for all subsets."""
        gains = self.gains
        if gains.shape != (len(self.means), len(self.vectors)):
            shapes = f"there are {len(self.means)} subsets and {len(self.vectors)} tasks"
            raise DataError(f"outcomes are {gains.shape}; {shapes}")
        if not np.isfinite(gains).all():
            subset = int(np.flatnonzero(~np.isfinite(gains).all(1))[0])
            raise DataError(f"the outcomes of subset {subset} are not finite")
        constant = [task for task, column in zip(self.tasks, gains.T, strict=True) if np.ptp(column) == 0]
        if constant:
            raise DataError(f"all subsets have the same outcome for task {constant[0]}: λ cannot be chosen by it")


def choose_penalty(outcomes: SubsetOutcomes, grid: Sequence[float] = GRID, seed: int = 0) -> Calibration:
    """Choose λ among the candidates `grid`; `seed`: of the bootstrap.

    Raises:
        SettingsError: no candidate, or a negative one. DataError: see :meth:`SubsetOutcomes.check`.
    """
    penalties = sorted({float(penalty) for penalty in grid} | {DEFAULT_PENALTY})
    if not grid or not all(0 <= penalty < math.inf for penalty in penalties):
        raise SettingsError("give at least one candidate for λ; each is a number of at least 0")
    outcomes.check()
    means, gains = outcomes.means, outcomes.gains
    predicted = {penalty: utilities(means, outcomes.vectors, penalty) for penalty in penalties}
    correlations = {penalty: mean_correlation(values, gains) for penalty, values in predicted.items()}
    bounds = _bounds(predicted, gains, seed)
    best = max((penalty for penalty in bounds if bounds[penalty] > 0), key=bounds.__getitem__, default=DEFAULT_PENALTY)
    candidates = tuple(
        Candidate(
            penalty, correlation, correlation - correlations[DEFAULT_PENALTY],
            bounds.get(penalty, np.nan), penalty == best,
        )
        for penalty, correlation in correlations.items()
    )  # fmt: skip
    content = np.ascontiguousarray(gains).tobytes() + np.ascontiguousarray(means).tobytes()
    digest = hashlib.sha256(content).hexdigest()[:24]
    return Calibration(best, candidates, len(means), outcomes.tasks, digest)


def mean_correlation(predicted: Array, gains: Array) -> float:
    """Spearman's correlation over subsets, mean over tasks; a constant prediction counts as 0."""
    return float(np.nan_to_num(spearman(predicted, gains)).mean())


def _bounds(predicted: dict[float, Array], gains: Array, seed: int) -> dict[float, float]:
    """Candidate → lower confidence bound of its lead over the default λ, which is not among them."""
    generator, others = np.random.default_rng(seed), [penalty for penalty in predicted if penalty != DEFAULT_PENALTY]
    if not others:
        return {}
    stacked = np.concatenate([predicted[penalty] for penalty in (DEFAULT_PENALTY, *others)], 1)  # (S, candidates · T)
    repeated = np.tile(gains, (1, len(others) + 1))
    leads = np.zeros((_RESAMPLES, len(others)))
    for draw in range(_RESAMPLES):
        rows = generator.integers(0, len(gains), len(gains))
        means = np.nan_to_num(spearman(stacked[rows], repeated[rows])).reshape(len(others) + 1, -1).mean(1)
        leads[draw] = means[1:] - means[0]
    lows = np.quantile(leads, _LEVEL / len(others), axis=0)
    return dict(zip(others, lows.tolist(), strict=True))


def resampling_bytes(subsets: int, tasks: int, candidates: int) -> int:
    """Memory of :func:`choose_penalty`, without its arguments: predictions of all candidates, resampled and ranked."""
    return 24 * 8 * subsets * tasks * (candidates + 2) + 3 * 8 * _RESAMPLES * candidates


def write_calibration(calibration: Calibration, folder: Path) -> None:
    """Write a calibration into a state folder, whole or not at all.

    Raises:
        SettingsError: it cannot be written there.
    """
    try:
        write_state(folder / STATE, calibration.facts())
    except StoreError as error:
        raise SettingsError(f"the calibration cannot be stored: {error}") from None


def read_calibration(folder: Path | None) -> Calibration | None:
    """The calibration in a state folder; None if there is none.

    Raises:
        StoreDamaged: it was changed after it was written. DataError: it is not a calibration.
    """
    state = read_state(folder / STATE) if folder is not None else None
    if state is None:
        return None
    try:
        candidates = tuple(
            Candidate(**{**fields, "bound": np.nan if fields["bound"] is None else fields["bound"]})
            for fields in state.values["candidates"]
        )
        return Calibration(**{**state.values, "candidates": candidates, "tasks": tuple(state.values["tasks"])})
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder}/{STATE} is not a calibration: {error}") from None
