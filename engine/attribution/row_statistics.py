"""Statistics of stored rows, such as their second moment: computed in one pass, cached in the store.

They are cached in `methods/<name>/state/moments` of a local store, with the number of rows and the digest of the manifest that
lists the rows' checksums: statistics of other rows, such as another store's, are not used. Knows no method by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from ...store.errors import StoreError
from ...store.layout import Array
from ...store.state import whole_state, write_state
from ..arrays.moments import moments, second_moment_parts
from ..arrays.scan.scan_loop import ScanShape, shapes
from ..arrays.scan.stored_rows import StoredRows, first_plan_within_budget
from ..interface.method import Similarity
from ..interface.model_view import ModelShape
from ..runtime.memory import Part, Plan
from ..runtime.run import Stage


def statistics_of(
    stored: StoredRows, method: Similarity, model_shape: ModelShape, budget: int | None, stage: Stage
) -> dict[str, Array]:
    """The method's state: rows, mean, gram0, gram1, …; read from the store, or else computed in one pass over the rows.

    Raises:
        BudgetError: the statistics exceed the budget. StoreDamaged: a chunk differs from its checksum.
    """
    declared = method.statistics(model_shape)
    if declared is None:
        return {}
    column, widths = declared
    state = _read(stored, widths)
    if state is None:
        _, shape = first_plan_within_budget(_plans(stored, column, widths), Plan(()), budget)
        precision = stored.precisions[column]
        mean, grams = moments(stored.open(precision.scanned), precision, widths, shape, stage)
        state = {"rows": np.array(stored.rows), "mean": mean} | {f"gram{i}": gram for i, gram in enumerate(grams)}
        _write(stored, state)
    return state


def statistics_parts(stored: StoredRows, method: Similarity, model_shape: ModelShape) -> Plan:
    """Memory of the statistics, and of a pass that computes them with the smallest blocks."""
    declared = method.statistics(model_shape)
    if declared is None:
        return Plan(())
    smallest = min((plan for plan, _ in _plans(stored, *declared)), key=lambda plan: plan.total)
    return smallest + Plan.of(Part("inverses of second moments", 24 * max(declared[1], default=0) ** 2))


def _plans(stored: StoredRows, column: str, widths: Sequence[int]) -> list[tuple[Plan, ScanShape]]:
    precision = stored.precisions[column]
    readers = stored.open(precision.scanned)
    return [(second_moment_parts(readers, precision, widths, shape), shape) for shape in shapes(readers, 1)]


def _folder(stored: StoredRows) -> Path | None:
    """Folder of the cached row statistics; None for a store that is not on this machine."""
    return None if stored.store.remote else stored.store.path / stored.group / "state" / "moments"


def _read(stored: StoredRows, widths: Sequence[int]) -> dict[str, Array] | None:
    """Cached row statistics of the current number of rows and of these widths; None if there are none."""
    folder = _folder(stored)
    state = whole_state(folder) if folder is not None else None
    if state is None or set(state.arrays) != {"mean", *(f"gram{number}" for number in range(len(widths)))}:
        return None
    fits = all(state.arrays[f"gram{number}"].shape == (width, width) for number, width in enumerate(widths))
    if dict(state.values) != _origin(stored) or not fits or state.arrays["mean"].ndim != 1:
        return None
    return {"rows": np.array(stored.rows), **state.arrays}


def _origin(stored: StoredRows) -> dict[str, int | str]:
    """What the statistics belong to: the number of rows, and the digest of their manifest (empty in formats 1 and 2)."""
    return {"rows": stored.rows, "manifest": stored.store.entry(stored.group).manifest}


def _write(stored: StoredRows, state: Mapping[str, Array]) -> None:
    """Cache the row statistics in the store, if it can be written to."""
    folder = _folder(stored)
    if folder is not None:
        with suppress(OSError, StoreError):
            write_state(folder, _origin(stored), {name: value for name, value in state.items() if name != "rows"})
