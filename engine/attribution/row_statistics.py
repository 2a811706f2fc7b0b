"""Statistics of stored rows, such as their second moment: computed in one pass, kept in the store.

It is kept in `methods/<name>/state/moments` of a local store, with the number of rows that it is of: rows are never changed,
so equal numbers mean equal moments. Knows no method by name.
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
from ..arrays.scan.scan_loop import OnProgress, Shape, shapes
from ..arrays.scan.stored_rows import StoredRows, first_plan_within_budget
from ..interface.method import Similarity
from ..interface.model_view import ModelShape
from ..runtime.memory import Part, Plan


def statistics_of(
    stored: StoredRows, method: Similarity, model_shape: ModelShape, memory: int | None, on_progress: OnProgress
) -> dict[str, Array]:
    """The method's state: rows, mean, gram0, gram1, …; from the store if it is there, else by one pass over the rows.

    Raises:
        BudgetError: the moments do not fit the budget. StoreDamaged: a chunk differs from its checksum.
    """
    wanted = method.statistics(model_shape)
    if wanted is None:
        return {}
    column, widths = wanted
    held = _read(stored, widths)
    if held is None:
        _, shape = first_plan_within_budget(
            ((made, shape) for shape, made in _plans(stored, column, widths)), Plan(()), memory
        )
        form = stored.precisions[column]
        mean, second = moments(stored.open(form.scanned), form, widths, shape, on_progress)
        held = {"rows": np.array(stored.rows), "mean": mean} | {
            f"gram{number}": each for number, each in enumerate(second)
        }
        _write(stored, held)
    return held


def statistics_parts(stored: StoredRows, method: Similarity, model_shape: ModelShape) -> Plan:
    """What learning, and what was learnt, holds: the smallest pass there is."""
    wanted = method.statistics(model_shape)
    if wanted is None:
        return Plan(())
    smallest = min((made for _, made in _plans(stored, *wanted)), key=lambda made: made.total)
    return smallest + Plan.of(Part("inverses", 24 * max(wanted[1], default=0) ** 2))


def _plans(stored: StoredRows, column: str, widths: Sequence[int]) -> list[tuple[Shape, Plan]]:
    form = stored.precisions[column]
    readers = stored.open(form.scanned)
    return [(shape, second_moment_parts(readers, form, widths, shape)) for shape in shapes(readers, 1)]


def _folder(stored: StoredRows) -> Path | None:
    """Where moments are kept; nowhere for a store that is not on this machine."""
    return None if stored.store.remote else stored.store.path / stored.group / "state" / "moments"


def _read(stored: StoredRows, widths: Sequence[int]) -> dict[str, Array] | None:
    """Moments of as many rows and of these widths, if they were kept whole."""
    folder = _folder(stored)
    state = whole_state(folder) if folder is not None else None
    if state is None or set(state.arrays) != {"mean", *(f"gram{number}" for number in range(len(widths)))}:
        return None
    fits = all(state.arrays[f"gram{number}"].shape == (width, width) for number, width in enumerate(widths))
    if state.values.get("rows") != stored.rows or not fits or state.arrays["mean"].ndim != 1:
        return None
    return {"rows": np.array(stored.rows), **state.arrays}


def _write(stored: StoredRows, held: Mapping[str, Array]) -> None:
    """Keep them where that is possible; a store that nobody may write to is asked all the same."""
    folder = _folder(stored)
    if folder is not None:
        with suppress(OSError, StoreError):
            write_state(folder, {"rows": stored.rows}, {name: value for name, value in held.items() if name != "rows"})
