"""Arrays as a provider of batches, in place of texts and a model: hidden states, labels and head weights. Image or tabular
classifiers, and models that no library loads, are ingested in this way. Knows no method and no store.

| array      | shape                 | required                                                                   |
|------------|-----------------------|----------------------------------------------------------------------------|
| `hidden`   | (N, D) or (N, T, D)   | yes: the last hidden states                                                |
| `labels`   | (N,) or (N, T)        | yes: the class or next token; negative where there is no target            |
| `weight`   | (V, D)                | yes: the head's weight; `bias` (V,) is optional                            |
| `logits`   | (N, V) or (N, T, V)   | no: used instead of `hidden` @ `weight`ᵀ + `bias`                          |
| `residual` | as `logits`           | no: softmax − onehot at τ = 1, from which logits are recovered             |
| `id`, `text` | (N,) strings        | no: names and texts for reports                                            |
| `vectors`  | (N, D)                | instead of the first three: rows of another tool, for the method `vectors` |

A bergson index is read as such a file of vectors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, DTypeLike

from ...store.errors import CorpusError, DataError, HeadwaterError
from ...store.json_values import ParsedJson
from ...store.layout import Array
from ..data.array_files import open_arrays
from ..data.documents import RecordErrors
from ..data.record_values import scalar_text
from ..data.sources import Source
from ..interface.model_view import ModelShape, OutputSpec
from ..models.batch_outputs import FurtherOutputs, LinearHead, PackedOutputs, TargetPositions
from ..runtime.memory import Part, Plan
from .examples import Example, Place
from .provider import remaining

_ROWS = 256


class ArrayProvider:
    """Reads examples from files of arrays, which share the head of the first file."""

    by_row = False

    def __init__(self, paths: list[str], device: torch.device, record_errors: RecordErrors) -> None:
        """Open the files.

        Raises:
            CorpusError: a file is missing, or holds no arrays.
            DataError: an array is missing or its shape disagrees.
        """
        self.device, self.record_errors, self.notes = device, record_errors, list[str]()
        self._files = [_File(*open_arrays(path)) for path in paths]
        self.sources = [file.source for file in self._files]
        first = self._files[0]
        if "weight" not in first.shapes:
            raise DataError(f"{first.source.path} has no array weight (V, D); it has {first.array_names}")
        for file in self._files:
            file.check(first.shapes["weight"])
        weight, bias = first.whole_array("weight"), first.whole_array("bias")
        assert weight is not None
        for file in self._files[1:]:
            _require_same_head(file, first, {"weight": weight, "bias": bias})
        length = max(file.positions for file in self._files)
        model_shape = ModelShape(weight.shape[1], weight.shape[0], 0, length)
        self.head = LinearHead(
            model_shape,
            torch.from_numpy(weight).to(device),
            None if bias is None else torch.from_numpy(bias).to(device),
        )
        head_bytes = weight.astype("<f4").tobytes() + (b"" if bias is None else bias.astype("<f4").tobytes())
        self._digest = hashlib.sha256(head_bytes).hexdigest()[:32]

    def provenance(self) -> ParsedJson:
        """The fingerprint of the head, in place of a model's."""
        return {"kind": "arrays", "model": self._digest}

    def origin(self) -> ParsedJson:
        """Nothing: the head is in the files."""
        return {}

    def memory(self, tokens: int) -> Plan:
        """The memory of the head and of the rows that are read together."""
        model_shape = self.head.model_shape
        width = model_shape.hidden + (model_shape.vocabulary if any(file.has_logits for file in self._files) else 0)
        read = _ROWS * model_shape.max_length * width * 8
        return Plan.of(
            Part("model weights", 4 * self.head.weight.numel()), Part("rows read", read + tokens * width * 16)
        )

    def longest(self) -> int:
        """Number of positions of an example."""
        return self.head.model_shape.max_length

    def examples(self, start: Place) -> Iterator[Example]:
        """The rows after a place, as examples."""
        files = {file.source.path: file for file in self._files}
        for source_index, source in remaining(self.sources, start):
            file = files[source.path]
            file.source = source  # the same file under the name that it has in the store
            first = start.record + 1 if source_index == start.source else 0
            for begin in range(first, file.rows, _ROWS):
                yield from file.examples(source_index, begin, min(file.rows, begin + _ROWS))

    def at(self, rows: Array) -> Iterator[Example]:
        """Examples of rows (n,): row numbers in ascending order, counted over all files."""
        begins = np.cumsum([0, *(file.rows for file in self._files)])
        for first, last in runs(rows):
            for source_index, file in enumerate(self._files):
                begin, end = max(first, int(begins[source_index])), min(last, int(begins[source_index + 1]))
                if begin < end:
                    yield from file.examples(
                        source_index, begin - int(begins[source_index]), end - int(begins[source_index])
                    )

    def read(self, batch: list[Example], needs: OutputSpec) -> PackedOutputs:
        """Stack the rows of a batch; there is no model to run."""
        layers = [*needs.layers, *([needs.upper_layers] if needs.upper_layers >= 0 else [])]
        if layers:
            raise DataError(f"arrays have no hidden layers {layers}, only the last one")
        hidden = np.concatenate([example.payload[0] for example in batch]).astype(np.float32, copy=False)
        targets = np.concatenate([example.payload[1] for example in batch]).astype(np.int64, copy=False)
        counts = [example.target_count for example in batch]
        logits = None
        if batch[0].payload[2] is not None:
            logits = torch.from_numpy(np.concatenate([e.payload[2] for e in batch]).astype(np.float32)).to(self.device)
        example_ids = torch.from_numpy(np.repeat(np.arange(len(batch)), counts)).to(self.device)
        positions = TargetPositions(example_ids, torch.from_numpy(targets).to(self.device), counts)
        return PackedOutputs(
            self.head, {-1: torch.from_numpy(hidden).to(self.device)}, positions, needs, FurtherOutputs(logits)
        )


def _require_same_head(file: _File, first: _File, head: dict[str, Array | None]) -> None:
    """Raise DataError unless a file has the first file's head, and logits if and only if the first file has them."""
    for name, value in head.items():
        own = file.whole_array(name)
        if own is not None and (value is None or not np.array_equal(own, value)):
            raise DataError(f"{file.source.path}: its {name} differs from that of {first.source.path}")
    if file.has_logits != first.has_logits:
        raise DataError(f"{file.source.path} and {first.source.path}: either both have logits or residual, or neither")


def runs(rows: Array) -> Iterator[tuple[int, int]]:
    """(start, stop) of ranges of consecutive rows, at most `_ROWS` long."""
    begin = 0
    for at in range(1, len(rows) + 1):
        if at == len(rows) or rows[at] != rows[at - 1] + 1 or at - begin == _ROWS:
            yield int(rows[begin]), int(rows[at - 1]) + 1
            begin = at


class _StoredArray(Protocol):
    """An array in a file, read by slices."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> DTypeLike: ...

    def __getitem__(self, rows: slice) -> ArrayLike: ...


class _File:
    """One file of arrays: reads small arrays whole, and row ranges of the others."""

    def __init__(self, source: Source, arrays: Mapping[str, _StoredArray]) -> None:
        self.source, self._arrays = source, arrays
        self.shapes: dict[str, tuple[int, ...]] = {name: tuple(array.shape) for name, array in arrays.items()}
        self.array_names = ", ".join(sorted(arrays)) or "none"
        self.classes = 0
        self.has_logits = "logits" in arrays or "residual" in arrays
        shape = self.shapes.get("hidden", ())
        self.rows, self.positions = (shape[0] if shape else 0), (shape[1] if len(shape) == 3 else 1)

    def whole_array(self, name: str) -> Array | None:
        """A small array in float32, or None if the file does not have it."""
        return np.array(self._slice(name, 0, self.shapes[name][0]), np.float32) if name in self.shapes else None

    def check(self, weight: tuple[int, ...]) -> None:
        """Raise DataError unless the required arrays are there, hold numbers, and have matching shapes; `weight`: (V, D)."""
        path, shapes = self.source.path, self.shapes
        for name in ("hidden", "labels"):
            if name not in shapes:
                raise DataError(f"{path} has no array {name}; it has {self.array_names}")
        self._check_shapes(weight)
        for name in ("hidden", "labels", "weight", "bias", "logits", "residual"):
            kind = np.dtype(self._arrays[name].dtype).kind if name in shapes else "i"
            if name not in ("weight", "bias") and getattr(self._arrays.get(name), "fortran", False):
                raise DataError(
                    f"{path}: {name} is in Fortran order, column by column", hint="save np.ascontiguousarray of it"
                )
            if kind not in ("iu" if name == "labels" else "fiu"):
                raise DataError(
                    f"{path}: {name} holds {self._arrays[name].dtype}; labels must be integers, other arrays numbers"
                )

    def _check_shapes(self, weight: tuple[int, ...]) -> None:
        path, shapes = self.source.path, self.shapes
        hidden, labels = shapes["hidden"], shapes["labels"]
        if len(hidden) not in (2, 3) or labels != hidden[:-1]:
            raise DataError(
                f"{path}: hidden {hidden} and labels {labels} disagree: (N, D) with (N,), or (N, T, D) with (N, T)"
            )
        if not self.rows:
            raise CorpusError(f"{path} is empty: its array hidden has no rows")
        own = shapes.get("weight", weight)
        if len(own) != 2 or own[1] != hidden[-1] or not own[0]:
            raise DataError(f"{path}: weight {own} and hidden {hidden} disagree: weight is (V, D)")
        self.classes = own[0]
        expected = {"bias": own[:1], "id": hidden[:1], "text": hidden[:1]}
        expected |= dict.fromkeys(("logits", "residual"), (*labels, own[0]))
        for name, shape in expected.items():
            if shapes.get(name, shape) != shape:
                raise DataError(f"{path}: {name} is {shapes[name]}, the other arrays require {shape}")

    def examples(self, source_index: int, begin: int, end: int) -> Iterator[Example]:
        """Rows `begin` to `end` as examples; positions without a label are left out."""
        hidden, labels = self._slice("hidden", begin, end), self._labels(begin, end)
        logits = self._logits(begin, end, labels)
        names, texts = self._strings("id", begin, end), self._strings("text", begin, end)
        for row in range(end - begin):
            label = np.atleast_1d(labels[row])
            is_target = label >= 0
            row_logits = None if logits is None else np.atleast_2d(logits[row])[is_target]
            payload = (np.atleast_2d(hidden[row])[is_target], label[is_target], row_logits)
            record = begin + row
            name = (names and names[row]) or f"{self.source.name}:{record}"
            yield Example(name, self.source.name, record, 0, "", "" if texts is None else texts[row], len(label),
                          int(is_target.sum()), payload, Place(source_index, record))  # fmt: skip

    def _strings(self, name: str, begin: int, end: int) -> list[str] | None:
        if name not in self._arrays:
            return None
        values = self._slice(name, begin, end).tolist()
        return [scalar_text(value) for value in values]

    def _slice(self, name: str, begin: int, end: int) -> Array:
        try:
            return np.asarray(self._arrays[name][begin:end])
        except HeadwaterError:
            raise
        except (OSError, ValueError) as error:
            raise CorpusError(f"{self.source.path}: array {name} cannot be read: {error}") from None

    def _labels(self, begin: int, end: int) -> Array:
        """Labels of rows `begin` to `end`, all of them below the head's number of classes."""
        labels: Array = self._slice("labels", begin, end)
        if labels.max(initial=0) >= self.classes:
            row = begin + int(np.argmax(labels.reshape(len(labels), -1).max(1) >= self.classes))
            raise DataError(
                f"{self.source.path}: row {row} has a label that is not below the number of classes, {self.classes}"
            )
        return labels

    def _logits(self, begin: int, end: int, labels: Array) -> Array | None:
        """The file's logits, or logits from its residuals: log(residual + onehot); None if it has neither."""
        if "logits" in self.shapes:
            return self._slice("logits", begin, end)
        if "residual" not in self.shapes:
            return None
        p = self._slice("residual", begin, end).astype(np.float32)
        own = np.maximum(labels, 0)[..., None].astype(np.int64)
        np.put_along_axis(p, own, np.take_along_axis(p, own, -1) + 1, -1)
        return np.asarray(np.log(np.maximum(p, 1e-30)))
