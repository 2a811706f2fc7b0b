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
from ...store.files import JsonObject, whole_file
from ...store.layout import Array
from ..evaluation.matrices import read_array
from ..results.result_tables import ResultFile, format_of
from .calibration import Calibration, calibrated, keep, kept, mean_correlation, require_outcomes
from .linear_features import LinearFeatures
from .subsets import Subsets, union
from .surrogate import GRID, INCUMBENT, utilities
from .targets import Targets

UTILITY_FIELDS = {
    "subset": pa.string(), "task": pa.string(), "examples": pa.int64(), "utility": pa.float64(), "additive": pa.float64(),
    "penalty": pa.float64(), "adds": pa.float64(),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Utilities:
    """Û of every subset for every task."""

    subsets: tuple[str, ...]
    tasks: tuple[str, ...]
    sizes: Array
    """(S,) examples of each subset."""
    values: Array
    """(S, T) float64: Û."""
    additive: Array
    """(S, T) float64: ⟨v, Φ̄_S⟩ alone."""
    penalty: float
    """λ."""
    adds: Array | None = None
    """(S, T): Û(S ∪ given) − Û(given), where a subset is given."""

    def lines(self) -> Iterator[JsonObject]:
        """A record a subset and task."""
        for subset, name in enumerate(self.subsets):
            for task, told in enumerate(self.tasks):
                value, additive = float(self.values[subset, task]), float(self.additive[subset, task])
                line = {"subset": name, "task": told, "examples": int(self.sizes[subset]), "utility": value,
                        "additive": additive, "penalty": additive - value}  # fmt: skip
                yield line | ({} if self.adds is None else {"adds": float(self.adds[subset, task])})


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What training on each subset did."""

    path: str
    """File of (S,), (S, T) or (seeds, S, T) numbers."""
    kind: Literal["loss", "gain"] = "loss"
    """A loss falls where training helps; a gain rises."""
    first: int | None = None
    """The first so many subsets choose, the others are scored once; None: all choose."""


class Prediction:
    """A question about subsets, with nothing computed yet."""

    def __init__(
        self, features: LinearFeatures, targets: Targets, subsets: Subsets, penalty: float | None = None
    ) -> None:
        """`penalty`: λ, or None for what was calibrated, or 1."""
        self._features, self._targets, self._subsets = features, targets, subsets
        self._penalty = penalty_of(features, penalty)

    def run(self, given: str = "") -> Utilities:
        """One pass; two where a subset is given.

        Raises:
            BudgetError: the sums do not fit the budget. SettingsError: no subset has the name given.
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


def penalty_of(features: LinearFeatures, given: float | None) -> float:
    """λ: the one given, else the calibrated one, else the incumbent."""
    if given is not None:
        if not 0 <= given < math.inf:
            raise SettingsError(f"λ is a number of at least 0, not {given}")
        return given
    found = kept(features.state)
    return INCUMBENT if found is None else found.penalty


def calibration(
    features: LinearFeatures, targets: Targets, subsets: Subsets, outcomes: Outcomes, grid: Sequence[float] = ()
) -> Calibration:
    """Choose λ by the first subsets, keep it, and score the others with it: once.

    Raises:
        SettingsError: no candidates, or a store that cannot be written to. DataError: shapes that disagree, constant outcomes,
            held-out outcomes that were scored before.
    """  # fmt: skip
    if features.state is None:
        raise SettingsError(f"{features.store.url} cannot be written to, and a calibration is kept in the store")
    before = kept(features.state)
    if before is not None and before.held_out is not None:
        told = f"held-out outcomes were scored with λ = {before.penalty:g} ({before.held_out:.3f}), and would be chosen by now"
        raise DataError(f"{told}; {features.state}/calibration is that choice: remove it to begin anew")
    gains, first = read_gains(outcomes.path, outcomes.kind, len(subsets.names), targets), outcomes.first
    number = len(gains) if first is None else first
    if not 2 <= number <= len(gains):
        raise SettingsError(f"--calibrate {number}: of {len(gains)} subsets, 2 at least are chosen by")
    means = features.means(subsets.counts)
    found = calibrated(means[:number], targets.vectors, gains[:number], targets.names, grid or GRID)
    keep(found, features.state)
    if number < len(gains):
        require_outcomes(means[number:], targets.vectors, gains[number:], targets.names)
        predicted = utilities(means[number:], targets.vectors, found.penalty)
        found = replace(found, held_out=mean_correlation(predicted, gains[number:]))
        keep(found, features.state)
    return found


def read_gains(path: str, kind: str, subsets: int, targets: Targets) -> Array:
    """(S, T) float64: what each subset gained each task, mean over seeds and over the task's queries.

    From (S,), (S, T) or (seeds, S, T) of tasks, or from (S, Q) or (seeds, S, Q) of single queries, as `ground-truth` writes them.

    Raises:
        DataError: another shape.
    """
    found, tasks = read_array(path, "outcomes").astype(np.float64), len(targets.names)
    shape = found.shape
    if found.ndim == 3:
        found = found.mean(0)
    if found.ndim == 1:
        found = found[:, None]
    if found.ndim == 2 and found.shape[1] == len(targets.of) != tasks:
        found = np.stack([found[:, targets.of == task].mean(1) for task in range(tasks)], 1)
    if found.shape != (subsets, tasks):
        raise DataError(
            f"{path}: outcomes are {shape}; there are {subsets} subsets, {tasks} tasks and {len(targets.of)} queries"
        )
    return -found if kind == "loss" else found


def refuse_table(path: str) -> None:
    """Raise SettingsError for a name that utilities cannot be written to."""
    if Path(path).suffix != ".npy":
        format_of(path)
    elif Path(path).is_dir():
        raise SettingsError(f"{path} is a folder: name a file for the utilities")


def write_utilities(path: str, found: Utilities) -> None:
    """(S, T) as .npy, or a table.

    Raises:
        SettingsError: none of our formats, or it cannot be written.
    """
    if Path(path).suffix == ".npy":
        with whole_file(Path(path)) as hidden, hidden.open("wb") as opened:
            np.save(opened, found.values)
        return
    format_of(path)
    lines = list(found.lines())
    fields = {name: kind for name, kind in UTILITY_FIELDS.items() if name in lines[0]}
    with ResultFile(path, fields) as file:
        file.write({name: [line[name] for line in lines] for name in fields})
