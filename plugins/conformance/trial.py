"""What the conformance suite tries a method on: a random model of given sizes, ragged random examples, and a readout that
gives what the contract promises and no more. Knows no method and no check.
"""

from __future__ import annotations

import importlib
import json
import operator
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...engine.intake.readout import BatchReadout, LinearHead, Positions
from ...engine.memory import peak_bytes, reset_peak, resident_bytes
from ...engine.method import Above, Linear, Method, Needs, Reduction, Similarity, Sizes, Trace
from ...store.errors import SettingsError
from ...store.feature_store import FeatureStore, method_group
from ...store.layout import Array, Column
from ...store.reader import ColumnReader, open_column
from ...store.writer import GroupWriter
from .above import TrialAbove

LENGTHS = (5, 1, 0, 300, 12, 3, 0, 1)
"""Counted positions of the examples: none, one, a few, and more than a usual window."""
_MAPS = (Linear("blocks.0.up", 16, 24), Linear("blocks.0.down", 24, 16))
SIZES = (Sizes(16, 50, 4, 512, _MAPS), Sizes(24, 331, 12, 512, _MAPS[:1]), Sizes(6, 3, 0, 1))
"""Two small language models and a classifier, whose examples have one position and whose trunk has no layers."""
PROMPT = 3
"""Tokens before the counted positions of an example, which a trace has too."""
TOLERANCE = 1e-4
"""Of a row's norm: float32 sums in another order differ by 1e-6, one example leaking into another by 1e-1."""


class TrialHead:
    """The contract's `Head`, nothing else."""

    def __init__(self, sizes: Sizes, weight: torch.Tensor) -> None:
        """(V, D)."""
        self.sizes, self.weight = sizes, weight
        self.bias, self.scale, self.softcap = None, 1.0, 0.0


class TrialReadout:
    """The contract's `Readout`, nothing else: what was not declared is not given."""

    def __init__(self, inner: BatchReadout, head: TrialHead, needs: Needs) -> None:
        """`inner` does the work."""
        self._inner, self._needs, self.head = inner, needs, head
        self.examples, self.owners, self.targets = inner.examples, inner.owners, inner.targets

    def hidden(self, layer: int = -1) -> torch.Tensor:
        """(P, D)."""
        if layer not in (-1, *self._needs.layers):
            raise AssertionError(f"rows asks for hidden({layer}), which needs() does not declare")
        return self._inner.hidden(layer)

    def reduced(self, reduction: Reduction) -> tuple[torch.Tensor, ...]:
        """First axis P."""
        if reduction not in self._needs.reductions:
            raise AssertionError(f"rows asks for the reduction {reduction}, which needs() does not declare")
        return self._inner.reduced(reduction)

    def trace(self, name: str) -> Trace:
        """(T, inputs), (T, outputs), (T,)."""
        if name not in self._needs.linears:
            raise AssertionError(f"rows asks for trace({name}), which needs() does not declare")
        return self._inner.trace(name)

    def above(self) -> Above:
        """(n, T, D)."""
        if self._needs.above < 0:
            raise AssertionError("measured asks for above(), which needs() does not declare")
        return self._inner.above()

    def tensors(self) -> dict[str, torch.Tensor]:
        """All that a method can reach, by name."""
        found = {"owners": self.owners, "targets": self.targets, "head.weight": self.head.weight}
        found.update({f"hidden({layer})": self._inner.hidden(layer) for layer in (-1, *self._needs.layers)})
        for reduction in self._needs.reductions:
            parts = self._inner.reduced(reduction)
            found.update({f"reduced({type(reduction).__name__})[{i}]": part for i, part in enumerate(parts)})
        for name in self._needs.linears:
            trace = self._inner.trace(name)
            found.update({f"trace({name}).inputs": trace.inputs, f"trace({name}).errors": trace.errors})
        if self._needs.above >= 0:
            found.update({"above().states": self._inner.above().states, "above().hidden": self._inner.above().hidden})
        return found


class Trial:
    """A method, a random model, random examples."""

    def __init__(
        self,
        method: Method,
        sizes: Sizes,
        device: str = "cpu",
        lengths: Sequence[int] = LENGTHS,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """`lengths` are the examples' counted positions, cut at the sizes' longest example."""
        self.method, self.sizes, self.device, self.dtype = method, sizes, device, dtype
        self.lengths, self.needs = [min(length, sizes.max_length) for length in lengths], method.needs(sizes)
        self.head = TrialHead(sizes, self._random(0, sizes.vocabulary) / sizes.hidden**0.5)

    def _random(self, seed: int, rows: int, width: int = 0) -> torch.Tensor:
        values = torch.randn(rows, width or self.sizes.hidden, generator=torch.Generator().manual_seed(seed))
        return values.to(self.device, self.dtype)

    def _trace(self, number: int, one: Linear, examples: Sequence[int]) -> Trace:
        """Random numbers at every token of the examples, prompts too; an example without counted positions has no errors."""
        counts = [self.lengths[i] + PROMPT for i in examples]
        inputs, errors = (
            torch.cat([self._random(10_000 * (2 * number + side) + i, n, width) * (self.lengths[i] > 0)
                       for i, n in zip(examples, counts, strict=True)])
            for side, width in ((0, one.inputs), (1, one.outputs))
        )  # fmt: skip
        owners = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)).to(self.device)
        return Trace(inputs, errors, owners)

    def _above(self, examples: Sequence[int], targets: Sequence[torch.Tensor]) -> TrialAbove:
        """Random states at every token of the examples, prompts too."""
        states = [self._random(50_000 + i, self.lengths[i] + PROMPT) for i in examples]
        return TrialAbove(states, PROMPT, targets, self.needs.above)

    @cached_property
    def tables(self) -> Any:
        """The method's tables."""
        return self.method.tables(self.head)

    def readout(self, examples: Sequence[int]) -> TrialReadout:
        """A batch of these examples, in this order; an example's numbers depend on its own number alone."""
        counts = [self.lengths[i] for i in examples]
        hiddens = {
            layer: torch.cat([self._random(1000 * (layer + 2) + i, self.lengths[i]) for i in examples])
            for layer in (-1, *self.needs.layers)
        }
        owners = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)).to(self.device)
        targets = [torch.randint(self.sizes.vocabulary, (self.lengths[i],), generator=torch.Generator().manual_seed(i))
                   for i in examples]  # fmt: skip
        head = LinearHead(self.sizes, self.head.weight)
        maps = [(number, one) for number, one in enumerate(self.sizes.linears) if one.name in self.needs.linears]
        traces = {one.name: self._trace(number, one, examples) for number, one in maps}
        positions = Positions(owners, torch.cat(targets).to(self.device), counts)
        above = self._above(examples, targets) if self.needs.above >= 0 and examples else None
        inner = BatchReadout(head, hiddens, positions, self.needs, traces=traces, above=above)
        return TrialReadout(inner, self.head, self.needs)

    def rows(self, examples: Sequence[int]) -> dict[str, torch.Tensor]:
        """The method's rows of a batch, as ingestion asks for them."""
        with torch.inference_mode():
            return self.method.rows(self.readout(examples), self.tables)

    def changed(self) -> list[str]:
        """Names of the tensors that `tables` or `rows` changed."""
        with torch.inference_mode():
            readout = self.readout(range(len(self.lengths)))
            before = {name: tensor.clone() for name, tensor in readout.tensors().items()}
            self.method.rows(readout, self.method.tables(self.head))
        return [name for name, tensor in readout.tensors().items() if not torch.equal(tensor, before[name])]

    def allocated(self) -> int:
        """Bytes that `tables` and `rows` take at their peak, with what the reductions keep (:func:`reset_peak` must work)."""
        with torch.inference_mode():
            readout = self.readout(range(len(self.lengths)))
            kept = sum(t.nbytes for name, t in readout.tensors().items() if name.startswith("reduced"))
            before = resident_bytes()
            reset_peak()
            rows = self.method.rows(readout, self.method.tables(self.head))
            peak = peak_bytes()
        del rows
        return peak - before + kept

    def stored(self, step: int = 32) -> dict[str, Array]:
        """All examples' rows, as the store holds them."""
        count = len(self.lengths)
        parts = [self.rows(range(start, min(count, start + step))) for start in range(0, count, step)]
        dtypes = {column.name: column.dtype for column in self.method.columns(self.sizes)}
        return {name: torch.cat([part[name] for part in parts]).cpu().numpy().astype(dtypes[name]) for name in dtypes}


def state(method: Similarity, sizes: Sizes, rows: dict[str, Array]) -> dict[str, Array]:
    """What the method learns of these rows, as the engine would tell it."""
    wanted = method.learns(sizes)
    if wanted is None:
        return {}
    column, widths = wanted
    flat = rows[column].reshape(len(rows[column]), -1).astype(np.float32)
    known = {"rows": np.array(len(flat)), "mean": flat.mean(0)}
    if not widths:
        return known
    parts = np.split(flat, np.cumsum(widths)[:-1], axis=1)
    demand([part.shape[1] for part in parts] == list(widths), f"learns wants parts of {widths} of rows of {column}")
    return known | {f"gram{number}": part.T @ part / len(part) for number, part in enumerate(parts)}


def trials(method: Method, sizes: Sequence[Sizes], device: str, **other: Any) -> Iterator[Trial]:
    """A trial for each model that can serve the method.

    Raises:
        AssertionError: none can.
    """
    fitting = [one for one in sizes if _serves(method, one)]
    if not fitting:
        raise AssertionError(f"no model of {list(sizes)} serves {method}: pass checks(sizes=…) one that does")
    for one in fitting:
        yield Trial(method, one, device, **other)


def _serves(method: Method, sizes: Sizes) -> bool:
    """Whether the model has what the method needs; a method may also say SettingsError to one."""
    try:
        method.columns(sizes)
        return not method.needs(sizes).beyond(sizes)
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


def alike(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Floats: apart by 1e-4 of the norm at most. Integers, such as signs: one element in a hundred may have flipped."""
    if not one.is_floating_point():
        return bool((one != other).float().mean() <= 0.01)
    tolerance = max(TOLERANCE, 4 * torch.finfo(one.dtype).eps)
    return bool((one - other).double().norm() <= tolerance * other.double().norm() + 1e-12)


def rows_elsewhere(asked: str, answer: str) -> None:
    """In another process: rows of the method that the JSON file `asked` describes into the .npz `answer`; no file if its
    module is not one that can be imported there, such as a test file.
    """
    module, name, settings, sizes = json.loads(Path(asked).read_text())
    try:
        kind = operator.attrgetter(name)(importlib.import_module(module))
    except (ImportError, AttributeError):
        return
    known = Sizes(**{**sizes, "linears": tuple(Linear(**one) for one in sizes["linears"])})
    rows = Trial(kind.from_settings(settings), known).rows(range(len(LENGTHS)))
    arrays: dict[str, Any] = {name: values.numpy() for name, values in rows.items()}
    np.savez(answer, **arrays)
