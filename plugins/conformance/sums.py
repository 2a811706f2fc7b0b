"""Checks of a method's sums over positions, and of their normalisation. See `suite.py`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ...engine.ingest.method_code import DeclaredOutputs
from ...engine.interface.method import Method, Similarity
from ...engine.interface.model_view import LinearIO, ModelShape
from .trial import LENGTHS, Trial, alike, demand, state, trials

_ALL_EXAMPLES = range(len(LENGTHS))


class HalvedOutputs:
    """A batch in which every example stands as two, one after the other: the first half of its positions, and the second."""

    def __init__(self, inner: DeclaredOutputs) -> None:
        """A batch of 2n examples from one of n."""
        self._inner, self.head, self.targets = inner, inner.head, inner.targets
        self.examples, self.example_ids = 2 * inner.examples, _halved(inner.example_ids)
        self.hidden, self.reduced, self.upper_layers = inner.hidden, inner.reduced, inner.upper_layers
        self.logits = inner.logits

    def linear_io(self, name: str) -> LinearIO:
        """Tokens of either half."""
        io = self._inner.linear_io(name)
        return LinearIO(io.inputs, io.output_grads, _halved(io.example_ids))


def _real(values: torch.Tensor) -> torch.Tensor:
    return torch.view_as_real(values) if values.is_complex() else values


def _halved(example_ids: torch.Tensor) -> torch.Tensor:
    """(P,) ascending, every id i as 2i for the first half of its positions and as 2i + 1 for the second."""
    counts = torch.bincount(example_ids)
    within = torch.arange(len(example_ids), device=example_ids.device) - (counts.cumsum(0) - counts)[example_ids]
    return 2 * example_ids + (2 * within >= counts[example_ids]).long()


def sums_add_up_over_positions(method: Method, models: Sequence[ModelShape], device: str) -> str:
    """`sketch` gives sums over positions: where an example is one window, the sums of its two halves add up to its own."""
    for trial in trials(method, models, device):
        outputs = trial.outputs(_ALL_EXAMPLES)
        with torch.inference_mode():
            windows = method.windows(outputs)
            whole = method.sketch(outputs, trial.precomputed)
            halves = method.sketch(HalvedOutputs(outputs), trial.precomputed)
            split = method.windows(HalvedOutputs(outputs))
        ids = list(windows.example_ids)
        demand(
            set(ids) == set(_ALL_EXAMPLES) and ids == sorted(ids), f"windows belong to the examples {ids}: each has one"
        )
        for name, sums in whole.items():
            demand(len(sums) == len(ids), f"sketch gives {len(sums)} sums of {name} for {len(ids)} windows")
            for example in (example for example in _ALL_EXAMPLES if ids.count(example) == 1):
                parts = sum(halves[name][at] for at, half in enumerate(split.example_ids) if half // 2 == example)
                assert isinstance(parts, torch.Tensor)
                fits = alike(_real(parts), _real(sums[ids.index(example)]))
                demand(
                    fits,
                    f"sketch's {name} of an example's halves do not add up: what depends on the sum is normalize's",
                )
    return ""


def contributions_add_up_to_rows(method: Method, models: Sequence[ModelShape], device: str) -> str:
    """`normalize` is linear in `parts`: the contributions of two parts to the scored column add up to the row."""
    for trial in trials(method, models, device):
        outputs = trial.outputs(_ALL_EXAMPLES)
        with torch.inference_mode():
            windows, sums = method.windows(outputs), method.sketch(outputs, trial.precomputed)
            rows = method.normalize(sums, windows)
            quarter = {name: values * 0.25 for name, values in sums.items()}
            rest = {name: values - quarter[name] for name, values in sums.items()}
            parts = [method.normalize(sums, windows, part) for part in (quarter, rest)]
        name = _scored_column(method, trial)
        fits = alike(parts[0][name] + parts[1][name], rows[name]) and alike(parts[0][name], 0.25 * rows[name])
        demand(
            fits or not rows[name].is_floating_point(),
            f"normalize: contributions of parts to {name} do not add up to the row",
        )
    return ""


def _scored_column(method: Method, trial: Trial) -> str:
    """The column that queries are multiplied with; of a method without scores its first."""
    if not isinstance(method, Similarity):
        return method.columns(trial.model)[0].name
    rows = {name: values.astype(np.float32) for name, values in trial.stored().items()}
    return method.prepare(rows, state(method, trial.model, rows)).column


SUM_CHECKS = (sums_add_up_over_positions, contributions_add_up_to_rows)
