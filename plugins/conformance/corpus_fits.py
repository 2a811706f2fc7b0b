"""Checks of a method's corpus statistics: its `fit` and the accumulator. See `suite.py`."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ...engine.ingest.method_code import changed_tensors, checksums
from ...engine.interface.method import Accumulator, Method, ResumableAccumulator
from ...engine.interface.model_view import BatchOutputs, ModelShape
from ...store.errors import DataError
from ...store.layout import Array
from ...store.state import read_state, write_state
from .trial import LENGTHS, Trial, alike, demand, trials

_ALL_EXAMPLES = range(len(LENGTHS))
_NOT_FITTED = "the method has no statistics of the corpus"


def statistics_merge_in_any_order(method: Method, models: Sequence[ModelShape], device: str) -> str:
    """`fit` gives the same arrays, within rounding, from one pass and from two merged halves in either order; or other arrays,
    such as another basis, by which rows have the same inner products.
    """
    for trial in trials(method, models, device):
        if method.fit(trial.model) is None:
            return _NOT_FITTED
        whole = _collected(method, trial, [_ALL_EXAMPLES])
        middle = len(LENGTHS) // 2
        halves = [range(middle), range(middle, len(LENGTHS))]
        for order in (halves, halves[::-1]):
            merged = _collected(method, trial, order)
            names = sorted(set(whole) ^ set(merged))
            demand(not names, f"statistics of merged halves have or lack {', '.join(names)}")
            other = _other_statistics(trial, merged, whole)
            demand(not other, f"statistics {other} of merged halves are not those of one pass")
    return ""


def statistics_do_not_depend_on_batches(method: Method, models: Sequence[ModelShape], device: str) -> str:
    """`fit` gives the same arrays or inner products, within rounding, from one batch and from batches of one example."""
    for trial in trials(method, models, device):
        accumulator = method.fit(trial.model)
        if accumulator is None:
            return _NOT_FITTED
        _accumulate(accumulator, trial, [[example] for example in _ALL_EXAMPLES])
        singly, whole = accumulator.finish(), _collected(method, trial, [_ALL_EXAMPLES])
        other = _other_statistics(trial, singly, whole)
        demand(not other, f"statistics {other} of batches of one example are not those of one batch")
    return ""


def a_stopped_accumulator_continues(method: Method, models: Sequence[ModelShape], device: str) -> str:
    """An accumulator with `state_dict` that is stored between two batches, and loaded by a new one, finishes with the same
    arrays, to the byte, as one that was not stopped. Arrays of no accumulator are refused.
    """
    middle = len(LENGTHS) // 2
    for trial in trials(method, models, device):
        whole, first, second = (method.fit(trial.model) for _ in range(3))
        if whole is None or first is None or second is None:
            return _NOT_FITTED
        if not isinstance(first, ResumableAccumulator) or not isinstance(second, ResumableAccumulator):
            return "its accumulator has no state_dict: a stopped fit starts again"
        _accumulate(whole, trial, [range(middle), range(middle, len(LENGTHS))])
        _accumulate(first, trial, [range(middle)])
        with tempfile.TemporaryDirectory() as folder:
            write_state(Path(folder, "state"), {}, first.state_dict())
            state = read_state(Path(folder, "state"))
        assert state is not None
        second.load_state_dict(state.arrays)
        _accumulate(second, trial, [range(middle, len(LENGTHS))])
        expected, continued = whole.finish(), second.finish()
        same = all(name in continued and np.array_equal(continued[name], array) for name, array in expected.items())
        demand(same, "an accumulator that was stored and loaded finishes with other arrays")
        try:
            first.load_state_dict({})
        except DataError:
            continue
        raise AssertionError("load_state_dict({}) is accepted; it must raise DataError")
    return ""


def statistics_leave_outputs_as_they_were(method: Method, models: Sequence[ModelShape], device: str) -> str:
    """`accumulate` changes no tensor of the batch's outputs."""
    for trial in trials(method, models, device):
        accumulator = method.fit(trial.model)
        if accumulator is None:
            return _NOT_FITTED
        with torch.inference_mode():
            outputs = trial.outputs(_ALL_EXAMPLES, for_fit=True)
            before = checksums(outputs)
            accumulator.accumulate(outputs)
            changed = changed_tensors(before, outputs)
        demand(not changed, f"accumulate changed {changed}; all methods of a run share a batch's outputs")
    return ""


def statistics_survive_storing(method: Method, models: Sequence[ModelShape], device: str) -> str:
    """`finish` gives arrays that a file returns unchanged, so rows made before and after storing them are the same."""
    for trial in trials(method, models, device):
        if method.fit(trial.model) is None:
            return _NOT_FITTED
        arrays = _collected(method, trial, [_ALL_EXAMPLES])
        wrong = [
            name for name, values in arrays.items() if not isinstance(values, np.ndarray) or values.dtype == object
        ]
        demand(not wrong, f"finish gives {', '.join(wrong)} that are not arrays of numbers")
        with tempfile.TemporaryDirectory() as folder:
            write_state(Path(folder, "state"), {}, arrays)
            state = read_state(Path(folder, "state"))
        assert state is not None
        stored = state.arrays
        same = all(
            stored[name].dtype == each.dtype and np.array_equal(stored[name], each) for name, each in arrays.items()
        )
        demand(same and set(stored) == set(arrays), "statistics are other ones when they are read back")
    return ""


def _other_statistics(trial: Trial, statistics: dict[str, Array], expected: dict[str, Array]) -> str:
    """Names of the arrays that differ; empty if none does, or if the inner products of rows do not."""
    different = [
        name for name, array in expected.items()
        if not np.allclose(np.asarray(statistics.get(name)), array, rtol=1e-5, atol=1e-8)
    ]  # fmt: skip
    if not different or alike(_inner_products(trial, statistics), _inner_products(trial, expected)):
        return ""
    return ", ".join(different)


def _inner_products(trial: Trial, statistics: dict[str, Array]) -> torch.Tensor:
    """(n, n) float64: of the examples' rows, all columns of floats together, computed with these statistics."""
    rows = Trial(trial.method, trial.model, trial.device).with_state(statistics).rows(_ALL_EXAMPLES)
    flat = torch.cat([values.flatten(1).double() for values in rows.values() if values.is_floating_point()], 1)
    return flat @ flat.T


def _collected(method: Method, trial: Trial, parts: Sequence[Sequence[int]]) -> dict[str, Array]:
    """Statistics of parts of the examples, each in an accumulator of its own, merged in order."""
    accumulators = []
    for part in parts:
        accumulator = method.fit(trial.model)
        assert accumulator is not None
        _accumulate(accumulator, trial, [part])
        accumulators.append(accumulator)
    for other in accumulators[1:]:
        accumulators[0].merge(other)
    return accumulators[0].finish()


def _accumulate(accumulator: Accumulator, trial: Trial, batches: Sequence[Sequence[int]]) -> None:
    with torch.inference_mode():
        for batch in batches:
            outputs: BatchOutputs = trial.outputs(batch, for_fit=True)
            accumulator.accumulate(outputs)


FIT_CHECKS = (
    statistics_merge_in_any_order, statistics_do_not_depend_on_batches, a_stopped_accumulator_continues,
    statistics_leave_outputs_as_they_were, statistics_survive_storing,
)  # fmt: skip
