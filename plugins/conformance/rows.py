"""Checks of a method's rows: shapes, independence of the batch, repeatability. See `suite.py`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from ...engine.ingest.first_batch import rows_fault
from ...engine.interface.method import Method
from ...engine.interface.model_view import ModelShape, Reduction
from ...store.layout import Column
from .trial import LENGTHS, Trial, alike, demand, rows_elsewhere, trials

_EVERYONE = range(len(LENGTHS))


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
    """Nothing of one column's rows is lost by storing them but a float's digits."""
    dtype = getattr(torch, column.dtype)
    stored = values.to(dtype)
    demand(torch.isfinite(stored).all(), f"rows[{column.name!r}] is not finite as {column.dtype}")
    exact = dtype.is_floating_point or torch.equal(stored.to(values.dtype), values)
    demand(exact, f"rows[{column.name!r}] has values that {column.dtype} does not hold")


def asks_what_it_declared(method: Method, models: Sequence[ModelShape], device: str) -> str:
    """`rows` asks a readout for what `needs` declares; reductions are hashable, and each position's result its own."""
    for trial in trials(method, models, device):
        again = method.needs(trial.model)
        demand(again == trial.needs and hash(again) == hash(trial.needs), "needs() differs from one call to the next")
        trial.rows(_EVERYONE)
        for reduction in trial.needs.reductions:
            _reduces_by_tile(reduction, torch.randn(9, trial.model.vocabulary, device=device))
    return ""


def _reduces_by_tile(reduction: Reduction, logits: torch.Tensor) -> None:
    """Logits come in tiles of any size: a position's result must not depend on the others; widths may, by zeros on the right."""
    targets = torch.zeros(len(logits), dtype=torch.int64, device=logits.device)
    whole, tile = reduction(logits.clone(), targets), reduction(logits[:4].clone(), targets[:4])
    for all_of_it, part in zip(whole, tile, strict=True):
        fits = len(all_of_it) == len(logits) and len(part) == 4
        demand(fits, f"the first axis of what {reduction} gives is not the positions")
        width = part.shape[1] if part.ndim > 1 else 0
        same = torch.allclose(all_of_it[:4, :width] if width else all_of_it[:4], part, 1e-4, 1e-5)
        demand(same, f"what {reduction} gives for a position depends on the other positions of its tile")


def rows_are_each_examples_own(method: Method, models: Sequence[ModelShape], device: str) -> str:
    """An example's rows depend on no other example of its batch, nor on their order, within 1e-4 of the row's norm."""
    for trial in trials(method, models, device):
        everyone = list(_EVERYONE)
        whole = trial.rows(everyone)
        orders = [[i] for i in everyone] + [everyone[::-1], [5, 0, 3], [1, 2]]
        for order in orders:
            part = trial.rows(order)
            for name in whole:
                for at, example in enumerate(order):
                    own = alike(part[name][at], whole[name][example])
                    demand(own, f"{name}: the row of an example of {LENGTHS[example]} positions depends on its batch")
    return ""


def nothing_counted_gives_zeros(method: Method, models: Sequence[ModelShape], device: str) -> str:
    """An example without counted positions gets zeros, beside others and in a batch of such examples alone."""
    for trial in trials(method, models, device):
        empty = [i for i, length in enumerate(LENGTHS) if not length]
        beside, alone = trial.rows(_EVERYONE), trial.rows(empty)
        for name in beside:
            demand(not beside[name][empty].any(), f"{name}: an example without counted positions is not zero")
            demand(not alone[name].any(), f"{name}: a batch without any counted position is not zero")
    return ""


def inputs_stay_as_they_were(method: Method, models: Sequence[ModelShape], device: str) -> str:
    """`precompute` and `rows` change no tensor of the readout, nor the head."""
    for trial in trials(method, models, device):
        changed = trial.changed()
        demand(not changed, f"{changed} changed in precompute or rows; all methods of a run share what a batch gives")
    return ""


def half_precision_is_read(method: Method, models: Sequence[ModelShape], device: str) -> str:
    """Hidden states and head in bfloat16, as models have them on a GPU, give rows of the same shapes and dtypes, finite."""
    for trial in trials(method, models, device):
        full, half = trial.rows(_EVERYONE), Trial(method, trial.model, device, dtype=torch.bfloat16)
        for name, values in half.rows(_EVERYONE).items():
            same = (values.shape, values.dtype) == (full[name].shape, full[name].dtype)
            demand(same, f"rows[{name!r}] is {values.dtype} of a bfloat16 model, {full[name].dtype} of a float32 one")
            demand(torch.isfinite(values).all(), f"rows[{name!r}] is not finite of a bfloat16 model")
    return ""


def same_rows_every_time(method: Method, models: Sequence[ModelShape], device: str) -> str:
    """Rows are a function of settings, model and example, bit by bit on a CPU: no clock, no global random state."""
    for trial in trials(method, models, device):
        given = []
        with torch.random.fork_rng(devices=[]):
            for seed in (1, 2):
                torch.manual_seed(seed)
                again = Trial(type(method).from_settings(method.settings()), trial.model, device)
                given.append(again.rows(_EVERYONE))
        for name, values in given[0].items():
            same = torch.equal(values, given[1][name]) if device == "cpu" else alike(values, given[1][name])
            demand(same, f"{name}: the same example has other rows the second time")
    return ""


def same_rows_in_another_process(method: Method, models: Sequence[ModelShape], device: str) -> str:
    """Queries are read by another process than the corpus was: rows must not depend on `hash()`, ids or addresses."""
    trial = next(trials(method, models, "cpu"))
    with tempfile.TemporaryDirectory() as folder:
        asked, answer = Path(folder, "asked"), Path(folder, "answer.npz")
        kind = type(method)
        asked.write_text(json.dumps([kind.__module__, kind.__qualname__, method.settings(), asdict(trial.model)]))
        code = f"import sys; sys.path[:] = {sys.path!r}\nfrom {rows_elsewhere.__module__} import rows_elsewhere as rows"
        done = subprocess.run(
            [sys.executable, "-c", f"{code}\nrows(*sys.argv[1:])", str(asked), str(answer)],
            capture_output=True, text=True, env={**os.environ, "PYTHONHASHSEED": "7"},
        )  # fmt: skip
        demand(done.returncode == 0, f"rows fail in another process: {' '.join(done.stderr.strip().splitlines()[-1:])}")
        if not answer.exists():
            return f"{type(method).__module__} cannot be imported by another process"
        with np.load(answer) as there:
            for name, values in trial.rows(_EVERYONE).items():
                demand(alike(torch.from_numpy(there[name]), values), f"{name}: other rows in another process")
    return ""


ROW_CHECKS = (
    columns_match_rows, asks_what_it_declared, rows_are_each_examples_own, nothing_counted_gives_zeros,
    inputs_stay_as_they_were, half_precision_is_read, same_rows_every_time, same_rows_in_another_process,
)  # fmt: skip
