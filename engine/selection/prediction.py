"""`predict` and `calibrate` as calls: utilities of subsets for tasks, in one pass over the store. Knows no method by name."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa

from ...store.errors import DataError, SettingsError
from ...store.json_values import ParsedJson
from ...store.layout import Array
from ..evaluation.matrices import read_array
from ..results.result_tables import ResultFile, format_of
from ..runtime.output_files import whole_file
from .calibration import (
    STATE,
    Calibration,
    SubsetOutcomes,
    choose_penalty,
    mean_correlation,
    read_calibration,
    write_calibration,
)
from .linear_features import LinearFeatures
from .subsets import Subsets, union
from .surrogate import DEFAULT_PENALTY, GRID, utilities
from .targets import Targets

UTILITY_FIELDS = {
    "subset": pa.string(), "task": pa.string(), "examples": pa.int64(), "utility": pa.float64(), "additive": pa.float64(),
    "penalty": pa.float64(), "adds": pa.float64(),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Utilities:
    """The utility Û of each subset for each task."""

    subsets: tuple[str, ...]
    tasks: tuple[str, ...]
    sizes: Array
    """(S,) number of examples of each subset."""
    values: Array
    """(S, T) float64: Û."""
    additive: Array
    """(S, T) float64: ⟨v, Φ̄_S⟩ alone."""
    penalty: float
    """The λ of the values."""
    adds: Array | None = None
    """(S, T): Û(S ∪ given) − Û(given), if `--given` names a subset."""

    def lines(self) -> Iterator[ParsedJson]:
        """One record for each subset and task."""
        for subset, name in enumerate(self.subsets):
            for task, task_name in enumerate(self.tasks):
                value, additive = float(self.values[subset, task]), float(self.additive[subset, task])
                line = {"subset": name, "task": task_name, "examples": int(self.sizes[subset]), "utility": value,
                        "additive": additive, "penalty": additive - value}  # fmt: skip
                yield line | ({} if self.adds is None else {"adds": float(self.adds[subset, task])})


@dataclass(frozen=True, slots=True)
class Outcomes:
    """A file of the outcomes of training on each subset."""

    path: str
    """File of (S,), (S, T) or (seeds, S, T) numbers."""
    kind: Literal["loss", "gain"] = "loss"
    """A loss falls where training helps; a gain rises."""
    first: int | None = None
    """Number of subsets that λ is chosen by, the others are held out; None for all."""


class Prediction:
    """A prediction of the utility of subsets, before it is computed."""

    def __init__(
        self, features: LinearFeatures, targets: Targets, subsets: Subsets, penalty: float | None = None
    ) -> None:
        """`penalty`: λ; None for the calibrated one, or 1."""
        self._features, self._targets, self._subsets = features, targets, subsets
        self._penalty = penalty_of(features, penalty)

    def run(self, given: str = "") -> Utilities:
        """Compute the utilities in one pass over the rows; with the name of a subset, what each subset adds to it, in two.

        Raises:
            BudgetError: the sums do not fit the budget. SettingsError: no subset has this name.
        """
        subsets, vectors = self._subsets, self._targets.vectors
        both = union(subsets, given) if given else None
        results = (3 * 8 + 200) * len(subsets.names) * len(vectors)
        means = self._features.means(subsets.counts, results)
        values = utilities(means, vectors, self._penalty)
        adds = None
        if both is not None:
            joined = utilities(self._features.means(both, results + means.nbytes), vectors, self._penalty)
            adds = joined - values[subsets.names.index(given)]
        sizes = np.asarray(subsets.counts.sum(1), np.int64)
        return Utilities(
            subsets.names, self._targets.names, sizes, values, utilities(means, vectors, 0.0), self._penalty, adds
        )


def penalty_of(features: LinearFeatures, penalty: float | None) -> float:
    """λ: `penalty`, else the calibrated one, else the default."""
    if penalty is not None:
        if not 0 <= penalty < math.inf:
            raise SettingsError(f"λ is a number of at least 0, not {penalty}")
        return penalty
    calibration = read_calibration(features.state)
    return DEFAULT_PENALTY if calibration is None else calibration.penalty


def calibrate(
    features: LinearFeatures, targets: Targets, subsets: Subsets, outcomes: Outcomes, grid: Sequence[float] = ()
) -> Calibration:
    """Choose λ by the first subsets, store it, and score the held-out subsets with it once.

    Raises:
        SettingsError: no candidates, or a store that cannot be written. DataError: shapes that disagree, constant outcomes, or
            held-out outcomes that were scored before.
    """
    if features.state is None:
        raise SettingsError(
            f"{features.store.url} is remote and cannot be written: calibrate a local copy of the store"
        )
    _require_unscored(read_calibration(features.state), features.state)
    gains, first = read_gains(outcomes.path, outcomes.kind, len(subsets.names), targets), outcomes.first
    number = len(gains) if first is None else first
    if not 2 <= number <= len(gains):
        raise SettingsError(f"--calibrate {number}: λ is chosen by 2 to {len(gains)} subsets")
    trained = SubsetOutcomes(features.means(subsets.counts), targets.vectors, gains, targets.names)
    calibration = choose_penalty(trained.part(slice(number)), grid or GRID)
    write_calibration(calibration, features.state)
    if number < len(gains):
        held_out = trained.part(slice(number, None))
        held_out.check()
        predicted = utilities(held_out.means, held_out.vectors, calibration.penalty)
        calibration = replace(calibration, held_out=mean_correlation(predicted, held_out.gains))
        write_calibration(calibration, features.state)
    return calibration


def _require_unscored(calibration: Calibration | None, folder: Path) -> None:
    """Raise DataError if held-out outcomes were scored before: another choice of λ would depend on them."""
    if calibration is not None and calibration.held_out is not None:
        figures = f"λ = {calibration.penalty:g} ({calibration.held_out:.3f})"
        raise DataError(
            f"held-out outcomes were scored with {figures}, and another choice would depend on them; "
            f"{folder}/{STATE} holds that choice: remove it to choose again"
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


def refuse_table(path: str) -> None:
    """Raise SettingsError for a file name that utilities cannot be written to."""
    if Path(path).suffix != ".npy":
        format_of(path)
    elif Path(path).is_dir():
        raise SettingsError(f"{path} is a folder: name a file for the utilities")


def write_utilities(path: str, utilities_of_subsets: Utilities) -> None:
    """Write utilities: (S, T) as .npy, or a table.

    Raises:
        SettingsError: an unknown format, or a file that cannot be written.
    """
    if Path(path).suffix == ".npy":
        with whole_file(Path(path)) as hidden, hidden.open("wb") as opened:
            np.save(opened, utilities_of_subsets.values)
        return
    format_of(path)
    lines = list(utilities_of_subsets.lines())
    fields = {name: kind for name, kind in UTILITY_FIELDS.items() if name in lines[0]}
    with ResultFile(path, fields) as file:
        file.write({name: [line[name] for line in lines] for name in fields})
