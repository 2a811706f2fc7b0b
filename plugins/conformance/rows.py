"""Checks of a method's rows: shapes, independence of the batch, repeatability. See `suite.py`."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ...engine.ingest.method_code import rows_fault
from ...engine.interface.method import Method
from ...engine.interface.model_view import ModelShape, Reduction
from ...store.layout import Column
from .fresh_process import NotImportable, rows_in_fresh_process
from .trial import LENGTHS, Trial, alike, demand, trials

_ALL_EXAMPLES = range(len(LENGTHS))


def columns_match_rows(method: Method, models: Sequence[ModelShape], device: str) -> str:
    """`rows` gives the columns that `columns` declares: names, shapes, dtypes that hold the values, all finite as stored."""
    for trial in trials(method, models, device):
        columns = method.columns(trial.model)
        names = [column.name for column in columns]
        demand(names and len(set(names)) == len(names), f"columns declares {names}: one at least, each name once")
        for count in (1, len(LENGTHS)):
            rows = trial.rows(range(count))
            fault = rows_fault(rows, columns, count, torch.device(device))
            demand(not fault, fault)
            for column in columns:
                _values_fit(rows[column.name], column)
    return ""


def _values_fit(values: torch.Tensor, column: Column) -> None:
    """Storing one column's rows loses nothing but a float's last digits."""
    dtype = getattr(torch, column.dtype)
    stored = values.to(dtype)
    demand(torch.isfinite(stored).all(), f"rows[{column.name!r}] is not finite as {column.dtype}")
    exact = dtype.is_floating_point or torch.equal(stored.to(values.dtype), values)
    demand(exact, f"rows[{column.name!r}] has values that {column.dtype} does not hold")


def asks_what_it_declared(method: Method, models: Sequence[ModelShape], device: str) -> str:
    """`rows` reads only the outputs that `needs` declares; reductions are hashable, and a position's result depends on itself."""
    for trial in trials(method, models, device):
        needs = method.needs(trial.model)
        demand(needs == trial.needs and hash(needs) == hash(trial.needs), "needs() differs from one call to the next")
        trial.rows(_ALL_EXAMPLES)
        for reduction in trial.needs.reductions:
            _reduces_by_tile(reduction, torch.randn(9, trial.model.vocabulary, device=device))
    return ""


def _reduces_by_tile(reduction: Reduction, logits: torch.Tensor) -> None:
    """Logits come in tiles of any size: a position's result must not depend on the other positions. A result's width may, by
    zeros on the right.
    """
    targets = torch.zeros(len(logits), dtype=torch.int64, device=logits.device)
    whole, tile = reduction(logits.clone(), targets), reduction(logits[:4].clone(), targets[:4])
    for values, tile_values in zip(whole, tile, strict=True):
        is_per_position = len(values) == len(logits) and len(tile_values) == 4
        demand(is_per_position, f"the first axis of what {reduction} gives is not the positions")
        width = tile_values.shape[1] if tile_values.ndim > 1 else 0
        is_same = torch.allclose(values[:4, :width] if width else values[:4], tile_values, 1e-4, 1e-5)
        demand(is_same, f"what {reduction} gives for a position depends on the other positions of its tile")


def rows_are_each_examples_own(method: Method, models: Sequence[ModelShape], device: str) -> str:
    """An example's rows depend on no other example of its batch, nor on their order, within 1e-4 of the row's norm."""
    for trial in trials(method, models, device):
        all_examples = list(_ALL_EXAMPLES)
        all_rows = trial.rows(all_examples)
        orders = [[i] for i in all_examples] + [all_examples[::-1], [5, 0, 3], [1, 2]]
        for order in orders:
            rows = trial.rows(order)
            for name in all_rows:
                for at, example in enumerate(order):
                    is_own = alike(rows[name][at], all_rows[name][example])
                    demand(
                        is_own, f"{name}: the row of an example of {LENGTHS[example]} positions depends on its batch"
                    )
    return ""


def no_target_positions_give_zeros(method: Method, models: Sequence[ModelShape], device: str) -> str:
    """An example without target positions gets zeros, beside others and in a batch of such examples alone."""
    for trial in trials(method, models, device):
        empty = [i for i, length in enumerate(LENGTHS) if not length]
        beside, alone = trial.rows(_ALL_EXAMPLES), trial.rows(empty)
        for name in beside:
            demand(not beside[name][empty].any(), f"{name}: the row of an example without target positions is not zero")
            demand(not alone[name].any(), f"{name}: a batch without any target position gives rows that are not zero")
    return ""


def inputs_stay_as_they_were(method: Method, models: Sequence[ModelShape], device: str) -> str:
    """`precompute` and `rows` change no tensor of the batch's outputs, nor the head."""
    for trial in trials(method, models, device):
        changed = trial.changed()
        demand(not changed, f"{changed} changed in precompute or rows; all methods of a run share a batch's outputs")
    return ""


def half_precision_is_read(method: Method, models: Sequence[ModelShape], device: str) -> str:
    """Hidden states and a head in bfloat16, as models have them on a GPU, give finite rows of the same shapes and dtypes."""
    for trial in trials(method, models, device):
        full_rows, half_trial = trial.rows(_ALL_EXAMPLES), Trial(method, trial.model, device, dtype=torch.bfloat16)
        for name, values in half_trial.rows(_ALL_EXAMPLES).items():
            is_same = (values.shape, values.dtype) == (full_rows[name].shape, full_rows[name].dtype)
            demand(
                is_same,
                f"rows[{name!r}] is {values.dtype} of a bfloat16 model, {full_rows[name].dtype} of a float32 one",
            )
            demand(torch.isfinite(values).all(), f"rows[{name!r}] is not finite of a bfloat16 model")
    return ""


def same_rows_every_time(method: Method, models: Sequence[ModelShape], device: str) -> str:
    """Rows are a function of settings, model and example, bit by bit on a CPU: no clock, no global random state."""
    for trial in trials(method, models, device):
        repeats = []
        with torch.random.fork_rng(devices=[]):
            for seed in (1, 2):
                torch.manual_seed(seed)
                trial = Trial(type(method).from_settings(method.settings()), trial.model, device)
                repeats.append(trial.rows(_ALL_EXAMPLES))
        for name, values in repeats[0].items():
            same = torch.equal(values, repeats[1][name]) if device == "cpu" else alike(values, repeats[1][name])
            demand(same, f"{name}: the same example has other rows the second time")
    return ""


def same_rows_in_another_process(method: Method, models: Sequence[ModelShape], device: str) -> str:
    """Queries are read by another process than the corpus was: rows must not depend on `hash()`, ids or addresses."""
    trial = next(trials(method, models, "cpu"))
    try:
        rows = rows_in_fresh_process(method, trial.model)
    except NotImportable as reason:
        return str(reason)
    for name, values in trial.rows(_ALL_EXAMPLES).items():
        demand(alike(torch.from_numpy(rows[name]), values), f"{name}: other rows in another process")
    return ""


ROW_CHECKS = (
    columns_match_rows, asks_what_it_declared, rows_are_each_examples_own, no_target_positions_give_zeros,
    inputs_stay_as_they_were, half_precision_is_read, same_rows_every_time, same_rows_in_another_process,
)  # fmt: skip
