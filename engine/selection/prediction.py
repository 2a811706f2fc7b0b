"""`predict` as a call: utilities of subsets for tasks, in one pass over the store. Knows no method by name."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa

from ...store.errors import SettingsError
from ...store.json_values import ParsedJson
from ...store.layout import Array
from ..results.result_files import TABLE_FORMATS, ResultFile, format_of
from ..runtime.memory import Part, Plan
from ..runtime.output_files import whole_file
from .calibration import read_calibration
from .linear_features import LinearFeatures
from .mask_array import MaskArray
from .subsets import SubsetSource, union
from .surrogate import DEFAULT_PENALTY, utilities
from .targets import Targets

_LINES, _LINE_BYTES = 4096, 1500  # lines of a table that are written together, and the memory of one
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


class Prediction:
    """A prediction of the utility of subsets, before it is computed."""

    def __init__(
        self, features: LinearFeatures, source: SubsetSource | MaskArray, tasks: int = 1, penalty: float | None = None
    ) -> None:
        """Make the plan. `tasks`: their largest number; `penalty`: λ, None for the calibrated one, or 1.

        Raises:
            BudgetError: not even the smallest blocks fit the budget. SettingsError, DataError: see :meth:`SubsetSource.plan`.
        """
        self._features, self._source, self._penalty = features, source, penalty_of(features, penalty)
        subsets, count = source.plan()
        self._others = subsets + Plan.of(
            Part("task vectors", 8 * tasks * features.depth),
            Part("means of unions", 8 * count * features.depth),
            Part("results", 8 * 8 * count * tasks + _LINE_BYTES * min(_LINES, count * tasks)),
        )
        self.plan, _ = features.means_plan(count, self._others)

    def run(self, targets: Targets, given: str = "") -> Utilities:
        """Compute the utilities in one pass over the rows; with the name of a subset, what each subset adds to it, in two.

        Raises:
            BudgetError: the sums do not fit the budget. SettingsError: no subset has this name.
        """
        subsets, vectors = self._source.read(), targets.vectors
        both = union(subsets, given) if given else None
        means = self._features.means(subsets.counts, self._others)
        values = utilities(means, vectors, self._penalty)
        adds = None
        if both is not None:
            joined = utilities(self._features.means(both, self._others), vectors, self._penalty)
            adds = joined - values[subsets.names.index(given)]
        sizes = subsets.counts.sizes().astype(np.int64)
        return Utilities(
            subsets.names, targets.names, sizes, values, utilities(means, vectors, 0.0), self._penalty, adds
        )


def penalty_of(features: LinearFeatures, penalty: float | None) -> float:
    """λ: `penalty`, else the calibrated one, else the default."""
    if penalty is not None:
        if not 0 <= penalty < math.inf:
            raise SettingsError(f"λ is a number of at least 0, not {penalty}")
        return penalty
    calibration = read_calibration(features.state)
    return DEFAULT_PENALTY if calibration is None else calibration.penalty


def refuse_table(path: str) -> None:
    """Raise SettingsError for a file name that utilities cannot be written to."""
    if Path(path).suffix != ".npy":
        format_of(path, TABLE_FORMATS)
    elif Path(path).is_dir():
        raise SettingsError(f"{path} is a folder", hint="name a file for the utilities")


def write_utilities(path: str, utilities_of_subsets: Utilities) -> None:
    """Write utilities: (S, T) as .npy, or a table.

    Raises:
        SettingsError: an unknown format, or a file that cannot be written.
    """
    if Path(path).suffix == ".npy":
        with whole_file(Path(path)) as hidden, hidden.open("wb") as opened:
            np.save(opened, utilities_of_subsets.values)
        return
    format_of(path, TABLE_FORMATS)
    fields = {
        name: kind for name, kind in UTILITY_FIELDS.items() if name != "adds" or utilities_of_subsets.adds is not None
    }
    lines = utilities_of_subsets.lines()
    with ResultFile(path, fields) as file:
        while part := list(islice(lines, _LINES)):
            file.write({name: [line[name] for line in part] for name in fields})
