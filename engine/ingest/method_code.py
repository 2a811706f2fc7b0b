"""Calls a method's code: checks its first batch against its declarations, and turns its errors into one line with the method's
package and version.

The conformance suite uses the same checks. Knows no method by name and no store.
"""

from __future__ import annotations

import traceback
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from ...store.errors import BrokenMethod, HeadwaterError
from ...store.layout import Array, Column
from ..interface.method import Method, Precomputed
from ..interface.model_view import BatchOutputs, Head, LinearIO, ModelShape, OutputSpec, Reduction, UpperLayers
from ..interface.registry import distribution_of
from ..interface.subset_method import FitMemory, SubsetMethod


class DeclaredOutputs:
    """The outputs of a batch that an `OutputSpec` declares; reading others is an error."""

    def __init__(
        self, outputs: BatchOutputs, needs: OutputSpec, caller: str = "sketch", head: Head | None = None
    ) -> None:
        """`caller`: the method's function that reads them, for errors; `head`: in place of the outputs' own head."""
        self._outputs, self._needs, self._caller = outputs, needs, caller
        self.head = outputs.head if head is None else head
        self.examples, self.example_ids, self.targets = outputs.examples, outputs.example_ids, outputs.targets

    def hidden(self, layer: int = -1) -> torch.Tensor:
        """Hidden states (P, D)."""
        self._require(layer in (-1, *self._needs.layers), f"hidden({layer})")
        return self._outputs.hidden(layer)

    def reduced(self, reduction: Reduction) -> tuple[torch.Tensor, ...]:
        """The tensors of a reduction, first axis P."""
        self._require(reduction in self._needs.reductions, f"the reduction {reduction}")
        return self._outputs.reduced(reduction)

    def logits(self, positions: torch.Tensor) -> torch.Tensor:
        """Logits (p, V) at some target positions."""
        return self._outputs.logits(positions)

    def linear_io(self, name: str) -> LinearIO:
        """Inputs (T, inputs), output gradients (T, outputs) and example ids (T,) of a linear layer."""
        self._require(name in self._needs.linear_layers, f"linear_io({name})")
        return self._outputs.linear_io(name)

    def upper_layers(self) -> UpperLayers:
        """The upper layers, whose input states are (n, T, D)."""
        self._require(self._needs.upper_layers >= 0, "upper_layers()")
        return self._outputs.upper_layers()

    def _require(self, declared: bool, what: str) -> None:
        if not declared:
            raise BrokenMethod(f"{self._caller} reads {what}, which needs() does not declare")

    def tensors(self) -> dict[str, torch.Tensor]:
        """All tensors that the method can read, by name."""
        tensors = {"example_ids": self.example_ids, "targets": self.targets, "head.weight": self.head.weight}
        tensors |= {f"hidden({layer})": self.hidden(layer) for layer in (-1, *self._needs.layers)}
        for reduction in self._needs.reductions:
            parts = self.reduced(reduction)
            tensors |= {f"reduced({type(reduction).__name__})[{i}]": part for i, part in enumerate(parts)}
        for name in self._needs.linear_layers:
            io = self.linear_io(name)
            tensors |= {f"linear_io({name}).inputs": io.inputs, f"linear_io({name}).output_grads": io.output_grads}
        if self._needs.upper_layers >= 0:
            upper = self.upper_layers()
            tensors |= {"upper_layers().states": upper.states, "upper_layers().hidden": upper.hidden}
        return tensors


def checksums(outputs: DeclaredOutputs) -> dict[str, int]:
    """Checksums of all tensors that a method can read. They show changes, because torch does not count changes of tensors
    that were created in inference mode.
    """
    return {name: zlib.crc32(_bytes_of(tensor).data) for name, tensor in outputs.tensors().items()}


def changed_tensors(before: Mapping[str, int], outputs: DeclaredOutputs) -> str:
    """Names of the tensors whose bytes have changed since `before`."""
    return ", ".join(name for name, checksum in checksums(outputs).items() if checksum != before[name])


def _bytes_of(tensor: torch.Tensor) -> Array:
    whole = tensor.detach().contiguous()
    return whole.view(-1).view(torch.uint8).cpu().numpy() if whole.numel() else whole.view(-1).float().cpu().numpy()


def rows_fault(rows: Mapping[str, object], columns: tuple[Column, ...], count: int, device: torch.device) -> str:
    """How the rows of `count` examples differ from the declared columns; empty if they do not."""
    names = [column.name for column in columns]
    if set(rows) != set(names):
        return f"rows has {sorted(rows)}, columns declares {sorted(names)}"
    return next(filter(None, (_column_fault(rows[column.name], column, count, device) for column in columns)), "")


def _column_fault(values: object, column: Column, count: int, device: torch.device) -> str:
    what, shape, stored = f"rows[{column.name!r}]", (count, *column.shape), getattr(torch, column.dtype, None)
    if not isinstance(stored, torch.dtype):
        return f"column {column.name}: torch has no {column.dtype}, so no row can be stored"
    if not isinstance(values, torch.Tensor):
        return f"{what} is {type(values).__name__}, not a tensor"
    if values.shape != shape:
        return f"{what} is {tuple(values.shape)}, columns declares {shape}"
    if values.device.type != device.type:
        return f"{what} is on {values.device}, the model on {device}"
    return "" if torch.can_cast(values.dtype, stored) else f"{what} is {values.dtype}, which does not cast to {stored}"


def settings_fault(method: Method) -> str:
    """What is wrong with a method's settings (wrong types, or values that do not survive the way to JSON values and back); empty
    if nothing is.
    """
    kind = type(method)
    try:
        copy = kind.from_settings(method.settings())
    except HeadwaterError as error:
        return f"its settings are not of their defaults' types: {error}"
    return "" if copy == method else f"from_settings(settings()) is {copy}, not {method}"


@contextmanager
def plugin_code(name: str, call: str) -> Iterator[None]:
    """Run code of a method: its exceptions become one line with the method's package and version.

    Raises:
        BrokenMethod: the code raises an exception that is neither headwater's own nor about memory. Headwater's own are passed
            on; a BrokenMethod gets the package's name in front.
    """
    try:
        yield
    except BrokenMethod as error:
        raise BrokenMethod(f"method {name} of {distribution_of(name)}: {error}") from error
    except (HeadwaterError, MemoryError, torch.cuda.OutOfMemoryError):
        raise
    except Exception as error:
        first_line = str(error).strip().partition("\n")[0]
        fault = f"{call} raises {type(error).__name__}: {first_line}".rstrip(": ") + _place(error)
        raise BrokenMethod(f"method {name} of {distribution_of(name)}: {fault}") from error


def _place(error: BaseException) -> str:
    """The last line of another package's code in a traceback, as " (file.py:40)"; empty if there is none."""
    frames = traceback.extract_tb(error.__traceback__)
    package = str(Path(__file__).parents[2])
    plugins = str(Path(__file__).parents[2] / "plugins")
    for frame in reversed(frames):
        name = frame.filename
        if "site-packages" not in name and (not name.startswith(package) or name.startswith(plugins)):
            return f" ({Path(name).name}:{frame.lineno})"
    return ""


def fit_memory(name: str, method: SubsetMethod, model: ModelShape, rows: int) -> FitMemory:
    """The memory that a subset method declares for a corpus of `rows` examples.

    Raises:
        BrokenMethod: it gives something else than a `FitMemory`, or see :func:`plugin_code`.
    """
    with plugin_code(name, "memory"):
        memory: object = method.memory(model, rows)
    if not isinstance(memory, FitMemory):
        raise BrokenMethod(
            f"method {name} of {distribution_of(name)}: memory gives {type(memory).__name__}, not a FitMemory"
        )
    return memory


def whole_needs(method: Method, model: ModelShape, precomputed: Precomputed) -> OutputSpec:
    """The outputs that a method's `sketch` reads: those of `needs`, and the reductions by what `precompute` returned."""
    needs = method.needs(model)
    return replace(needs, reductions=(*needs.reductions, *method.reductions(precomputed)))


class MethodRows:
    """Computes a method's rows batch by batch, and checks the first batch in full."""

    def __init__(self, name: str, method: Method, head: Head, state: Mapping[str, Array]) -> None:
        """`state`: the arrays that the method's `fit` finished with.

        Raises:
            BrokenMethod: see :func:`plugin_code`.
        """
        self.method, self._name, self._unchecked = method, name, True
        self._columns = method.columns(head.model_shape)
        with plugin_code(name, "precompute or reductions"):
            if fault := settings_fault(method):
                raise BrokenMethod(fault)
            self._precomputed: Precomputed = method.precompute(head, state)
            self.needs = whole_needs(method, head.model_shape, self._precomputed)

    def __call__(self, outputs: BatchOutputs) -> dict[str, torch.Tensor]:
        """Column name → (n, *row shape).

        Raises:
            BrokenMethod: the method fails, or differs from its declarations.
        """
        with plugin_code(self._name, "sketch or normalize"):
            return self._checked(outputs) if self._unchecked else self.method.rows(outputs, self._precomputed)

    def _checked(self, outputs: BatchOutputs) -> dict[str, torch.Tensor]:
        declared = DeclaredOutputs(outputs, self.needs)
        before = checksums(declared)
        rows = self.method.rows(declared, self._precomputed)
        if changed := changed_tensors(before, declared):
            raise BrokenMethod(
                f"sketch changed {changed}: all methods of a run share these tensors, so copy them first"
            )
        if fault := rows_fault(rows, self._columns, outputs.examples, outputs.example_ids.device):
            raise BrokenMethod(fault)
        self._unchecked = False
        return rows


def checked_measurements(
    name: str, outputs: DeclaredOutputs, measurements: tuple[Array, Array], subsets: int
) -> tuple[Array, Array]:
    """What a fitted method's `measure` returned for a batch of queries, after a check of shapes and dtypes.

    Raises:
        BrokenMethod: they differ from the contract.
    """
    with plugin_code(name, "measure"):
        y, agreement = measurements
        if (
            y.shape != (outputs.examples, subsets)
            or y.dtype.name != "float64"
            or agreement.shape != (outputs.examples,)
        ):
            expected = f"float64 {(outputs.examples, subsets)} and {(outputs.examples,)}"
            raise BrokenMethod(f"measure gives {y.dtype} {y.shape} and {agreement.shape}, not {expected}")
        return y, agreement
