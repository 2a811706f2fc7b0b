"""`calibrate` as a call: reads subsets and their outcomes, chooses λ and stores it. Knows no method by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from ...store.errors import DataError, SettingsError
from ...store.layout import Array
from ..evaluation.matrices import array_file_bytes, read_array
from ..runtime.memory import Part, Plan
from .calibration import (
    STATE,
    Calibration,
    SubsetOutcomes,
    choose_penalty,
    mean_correlation,
    read_calibration,
    resampling_bytes,
    write_calibration,
)
from .linear_features import LinearFeatures
from .subsets import SubsetSource
from .surrogate import GRID, utilities
from .targets import Targets


@dataclass(frozen=True, slots=True)
class Outcomes:
    """A file of the outcomes of training on each subset."""

    path: str
    """File of (S,), (S, T) or (seeds, S, T) numbers."""
    kind: Literal["loss", "gain"] = "loss"
    """A loss falls where training helps; a gain rises."""
    first: int | None = None
    """Number of subsets that λ is chosen by, the others are held out; None for all."""
    grid: Sequence[float] = ()
    """Candidates for λ; empty for `GRID`."""


class CalibrationRun:
    """A choice of λ with its memory plan, before it is computed."""

    def __init__(self, features: LinearFeatures, source: SubsetSource, tasks: int, outcomes: Outcomes) -> None:
        """`tasks`: their largest number.

        Raises:
            BudgetError: not even the smallest blocks fit the budget. SettingsError: the store cannot be written.
            DataError: held-out outcomes were scored before.
        """
        if features.state is None:
            raise SettingsError(
                f"{features.store.url} is remote and cannot be written: calibrate a local copy of the store"
            )
        _require_unscored(read_calibration(features.state), features.state)
        self._features, self._source, self._outcomes, self._state = features, source, outcomes, features.state
        subsets, self.count = source.plan()
        """Upper bound of the number of subsets."""
        self._others = subsets + Plan.of(
            Part("task vectors", 8 * tasks * features.depth),
            Part("outcomes", 3 * array_file_bytes(outcomes.path, "outcomes")),
            Part("resampled outcomes", resampling_bytes(self.count, tasks, max(len(GRID), len(outcomes.grid)))),
        )
        self.plan, _ = features.means_plan(self.count, self._others)

    def run(self, targets: Targets) -> Calibration:
        """Choose λ by the first subsets, store it, and score the held-out subsets with it once.

        Raises:
            SettingsError: no candidates, or a store that cannot be written. DataError: shapes that disagree, or constant
                outcomes.
        """
        outcomes, subsets = self._outcomes, self._source.read()
        gains = read_gains(outcomes.path, outcomes.kind, len(subsets.names), targets)
        number = len(gains) if outcomes.first is None else outcomes.first
        if not 2 <= number <= len(gains):
            raise SettingsError(f"--calibrate {number}: λ is chosen by 2 to {len(gains)} subsets")
        means = self._features.means(subsets.counts, self._others)
        trained = SubsetOutcomes(means, targets.vectors, gains, targets.names)
        calibration = choose_penalty(trained.part(slice(number)), outcomes.grid or GRID)
        write_calibration(calibration, self._state)
        if number < len(gains):
            held_out = trained.part(slice(number, None))
            held_out.check()
            predicted = utilities(held_out.means, held_out.vectors, calibration.penalty)
            calibration = replace(calibration, held_out=mean_correlation(predicted, held_out.gains))
            write_calibration(calibration, self._state)
        return calibration


def _require_unscored(calibration: Calibration | None, folder: Path) -> None:
    """Raise DataError if held-out outcomes were scored before: another choice of λ would depend on them."""
    if calibration is not None and calibration.held_out is not None:
        figures = f"λ = {calibration.penalty:g} ({calibration.held_out:.3f})"
        raise DataError(
            f"held-out outcomes were scored with {figures}, and another choice would depend on them; "
            f"{folder}/{STATE} holds that choice",
            hint="remove it to choose again",
        )


def read_gains(path: str, kind: str, subsets: int, targets: Targets) -> Array:
    """(S, T) float64: how much training on each subset improved each task, mean over seeds and over the task's queries.

    From (S,), (S, T) or (seeds, S, T) of tasks, or from (S, Q) or (seeds, S, Q) of single queries, as `ground-truth` writes them.

    Raises:
        DataError: another shape.
    """
    values, tasks = read_array(path, "outcomes").astype(np.float64), len(targets.names)
    shape = values.shape
    if values.ndim == 3:
        values = values.mean(0)
    if values.ndim == 1:
        values = values[:, None]
    if values.ndim == 2 and values.shape[1] == len(targets.task_ids) != tasks:
        values = np.stack([values[:, targets.task_ids == task].mean(1) for task in range(tasks)], 1)
    if values.shape != (subsets, tasks):
        raise DataError(
            f"{path}: outcomes are {shape}; there are {subsets} subsets, {tasks} tasks and {len(targets.task_ids)} queries"
        )
    return -values if kind == "loss" else values
