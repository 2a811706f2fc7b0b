"""The random model and examples that checks run on; its outputs give only what the contract promises. Knows no check."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
import torch

from ...engine.ingest.method_code import DeclaredOutputs, changed_tensors, checksums, whole_needs
from ...engine.interface.method import Method, Precomputed, Similarity
from ...engine.interface.model_view import LinearIO, LinearLayer, ModelShape, OutputSpec
from ...engine.models.batch_outputs import FurtherOutputs, LinearHead, PackedOutputs, TargetPositions
from ...engine.runtime.memory import peak_bytes, reset_peak, resident_bytes
from ...store.errors import BrokenMethod, SettingsError
from ...store.feature_store import FeatureStore, method_group
from ...store.layout import Array, Column
from ...store.reader import ColumnReader, open_column
from ...store.writer import GroupWriter
from .trial_layers import TrialUpperLayers

LENGTHS = (5, 1, 0, 300, 12, 3, 0, 1)
"""Target positions of the examples: none, one, a few, and more than a usual window."""
_MAPS = (LinearLayer("blocks.0.up", 16, 24), LinearLayer("blocks.0.down", 24, 16))
MODELS = (ModelShape(16, 50, 4, 512, _MAPS), ModelShape(24, 331, 12, 512, _MAPS[:1]), ModelShape(6, 3, 0, 1))
"""Two small language models and a classifier, whose examples have one position and whose trunk has no layers."""
PROMPT = 3
"""Tokens before the target positions of an example, which linear layers see too."""
TOLERANCE = 1e-4
"""Allowed difference, as a fraction of a row's norm: float32 sums in another order differ by 1e-6, one example that leaks into
another by 1e-1.
"""


class TrialHead:
    """The contract's `Head`, nothing else."""

    def __init__(self, model: ModelShape, weight: torch.Tensor) -> None:
        """`weight`: (V, D)."""
        self.model_shape, self.weight = model, weight
        self.bias, self.scale, self.softcap = None, 1.0, 0.0


class Trial:
    """A method, a random model, random examples."""

    def __init__(
        self,
        method: Method,
        model: ModelShape,
        device: str = "cpu",
        lengths: Sequence[int] = LENGTHS,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """`lengths`: target positions of each example, cut at the model's longest example."""
        self.method, self.model, self.device, self.dtype = method, model, device, dtype
        self.lengths, self.needs = [min(length, model.max_length) for length in lengths], method.needs(model)
        self.head = TrialHead(model, self._random(0, model.vocabulary) / model.hidden**0.5)

    def _random(self, seed: int, rows: int, width: int = 0) -> torch.Tensor:
        values = torch.randn(rows, width or self.model.hidden, generator=torch.Generator().manual_seed(seed))
        return values.to(self.device, self.dtype)

    def _linear_io(self, number: int, layer: LinearLayer, examples: Sequence[int]) -> LinearIO:
        """Random numbers at every token of the examples, prompts too; zeros for an example without target positions."""
        counts = [self.lengths[i] + PROMPT for i in examples]
        inputs, errors = (
            torch.cat([self._random(10_000 * (2 * number + side) + i, n, width) * (self.lengths[i] > 0)
                       for i, n in zip(examples, counts, strict=True)])
            for side, width in ((0, layer.inputs), (1, layer.outputs))
        )  # fmt: skip
        example_ids = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)).to(self.device)
        return LinearIO(inputs, errors, example_ids)

    def _upper_layers(self, examples: Sequence[int], targets: Sequence[torch.Tensor]) -> TrialUpperLayers:
        """Random states at every token of the examples, prompts too."""
        states = [self._random(50_000 + i, self.lengths[i] + PROMPT) for i in examples]
        return TrialUpperLayers(states, PROMPT, targets, self.needs.upper_layers)

    @cached_property
    def state(self) -> dict[str, Array]:
        """What the method's `fit` finishes with for these examples."""
        accumulator = self.method.fit(self.model)
        if accumulator is None:
            return {}
        with torch.inference_mode():
            accumulator.accumulate(self.outputs(range(len(self.lengths)), for_fit=True))
        return accumulator.finish()

    def with_state(self, state: dict[str, Array]) -> Trial:
        """This trial, with statistics of the corpus that were collected elsewhere."""
        self.__dict__["state"] = state  # in place of the cached property's value
        return self

    @cached_property
    def precomputed(self) -> Precomputed:
        """What the method's `precompute` returns."""
        return self.method.precompute(self.head, self.state)

    @cached_property
    def sketch_needs(self) -> OutputSpec:
        """What the method's `sketch` reads."""
        return whole_needs(self.method, self.model, self.precomputed)

    def outputs(self, examples: Sequence[int], *, for_fit: bool = False) -> DeclaredOutputs:
        """A batch of these examples, in this order; an example's numbers depend on its own number alone. `for_fit`: with the
        outputs that `fit` reads; otherwise those of `sketch`.
        """
        needs = self.needs if for_fit else self.sketch_needs
        counts = [self.lengths[i] for i in examples]
        hiddens = {
            layer: torch.cat([self._random(1000 * (layer + 2) + i, self.lengths[i]) for i in examples])
            for layer in (-1, *self.needs.layers)
        }
        example_ids = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)).to(self.device)
        targets = [torch.randint(self.model.vocabulary, (self.lengths[i],), generator=torch.Generator().manual_seed(i))
                   for i in examples]  # fmt: skip
        head = LinearHead(self.model, self.head.weight)
        linear_io = {
            layer.name: self._linear_io(number, layer, examples)
            for number, layer in enumerate(self.model.linear_layers)
            if layer.name in self.needs.linear_layers
        }
        positions = TargetPositions(example_ids, torch.cat(targets).to(self.device), counts)
        upper = self._upper_layers(examples, targets) if self.needs.upper_layers >= 0 and examples else None
        further = FurtherOutputs(linear_io=linear_io, upper_layers=upper)
        outputs = PackedOutputs(head, hiddens, positions, needs, further)
        return DeclaredOutputs(outputs, needs, "accumulate" if for_fit else "rows", self.head)

    def rows(self, examples: Sequence[int]) -> dict[str, torch.Tensor]:
        """The method's rows of a batch, as ingestion computes them."""
        try:
            with torch.inference_mode():
                return self.method.rows(self.outputs(examples), self.precomputed)
        except BrokenMethod as error:
            raise AssertionError(str(error)) from None

    def changed(self) -> str:
        """Names of the tensors that `precompute` or `rows` changed."""
        with torch.inference_mode():
            outputs = self.outputs(range(len(self.lengths)))
            before = checksums(outputs)
            self.method.precompute(self.head, self.state)
            self.method.rows(outputs, self.precomputed)
            return changed_tensors(before, outputs)

    def allocated(self) -> int:
        """Peak bytes of `precompute` and `rows`, with the reductions' results (:func:`reset_peak` must work)."""
        with torch.inference_mode():
            outputs = self.outputs(range(len(self.lengths)))
            reduced_bytes = sum(t.nbytes for name, t in outputs.tensors().items() if name.startswith("reduced"))
            before = resident_bytes()
            reset_peak()
            precomputed = self.method.precompute(self.head, self.state)
            rows = self.method.rows(outputs, self.precomputed)
            peak = peak_bytes()
        del rows, precomputed
        return peak - before + reduced_bytes

    def allocated_by_fit(self) -> int:
        """Peak bytes of `fit` over two batches; 0 without `fit`."""
        with torch.inference_mode():
            outputs = self.outputs(range(len(self.lengths)), for_fit=True)
            before = resident_bytes()
            reset_peak()
            accumulator = self.method.fit(self.model)
            if accumulator is None:
                return 0
            accumulator.accumulate(outputs)
            accumulator.accumulate(outputs)
            arrays = accumulator.finish()
            peak = peak_bytes()
        del arrays
        return peak - before

    def stored(self, step: int = 32) -> dict[str, Array]:
        """All examples' rows, as the store holds them."""
        count = len(self.lengths)
        parts = [self.rows(range(start, min(count, start + step))) for start in range(0, count, step)]
        dtypes = {column.name: column.dtype for column in self.method.columns(self.model)}
        return {name: torch.cat([part[name] for part in parts]).cpu().numpy().astype(dtypes[name]) for name in dtypes}


def state(method: Similarity, model: ModelShape, rows: dict[str, Array]) -> dict[str, Array]:
    """The statistics of these rows that `prepare` is given by the engine."""
    declared = method.statistics(model)
    if declared is None:
        return {}
    column, widths = declared
    flat = rows[column].reshape(len(rows[column]), -1).astype(np.float32)
    statistics = {"rows": np.array(len(flat)), "mean": flat.mean(0)}
    if not widths:
        return statistics
    parts = np.split(flat, np.cumsum(widths)[:-1], axis=1)
    demand(
        [part.shape[1] for part in parts] == list(widths),
        f"statistics declares parts of widths {widths}, which do not add up to a row of {column}",
    )
    return statistics | {f"gram{number}": part.T @ part / len(part) for number, part in enumerate(parts)}


def trials(
    method: Method, models: Sequence[ModelShape], device: str, lengths: Sequence[int] = LENGTHS
) -> Iterator[Trial]:
    """A trial for each model that has the layers that the method needs.

    Raises:
        AssertionError: none can.
    """
    suitable = [model for model in models if _has_needed_layers(method, model)]
    if not suitable:
        raise AssertionError(
            f"no model of {list(models)} has the layers that {method} needs: pass checks(models=…) one"
        )
    for model in suitable:
        yield Trial(method, model, device, lengths)


def _has_needed_layers(method: Method, model: ModelShape) -> bool:
    """Whether the model has the layers that the method needs; a method may also refuse a model by SettingsError."""
    try:
        method.columns(model)
        return not method.needs(model).beyond(model)
    except SettingsError:
        return False


def stored_columns(folder: str, columns: Sequence[Column], rows: dict[str, Array]) -> list[ColumnReader]:
    """Rows written to a store in an empty folder, ready to be read."""
    group = method_group("trial")
    store = FeatureStore.create(f"{folder}/store", {}, "0")
    store.add_group(group, columns, {})
    with GroupWriter(store, group) as writer:
        writer.append(rows)
        writer.commit()
    return [open_column(store, group, column.name) for column in columns]


def demand(holds: object, message: str) -> None:
    """An assertion that `python -O` keeps."""
    if not holds:
        raise AssertionError(message)


def alike(values: torch.Tensor, expected: torch.Tensor) -> bool:
    """Floats: their difference is at most 1e-4 of the norm. Integers, such as signs: one element in a hundred may differ."""
    if not values.is_floating_point():
        return bool((values != expected).float().mean() <= 0.01)
    tolerance = max(TOLERANCE, 4 * torch.finfo(values.dtype).eps)
    return bool((values - expected).double().norm() <= tolerance * expected.double().norm() + 1e-12)
