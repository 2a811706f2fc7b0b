"""Arrays as a provider of batches, in place of text and a model: hidden states, labels and head weights. So an image or
tabular classifier, or a model that no library loads, rides the same path. Knows no method and no store of ours.

| array      | shape                 | must                                                                       |
|------------|-----------------------|----------------------------------------------------------------------------|
| `hidden`   | (N, D) or (N, T, D)   | yes: what the head reads                                                   |
| `labels`   | (N,) or (N, T)        | yes: the class or next token; negative: the position does not count        |
| `weight`   | (V, D)                | yes: the head; `bias` (V,) beside it if there is one                       |
| `logits`   | (N, V) or (N, T, V)   | no: taken instead of `hidden` @ `weight`ᵀ + `bias`                         |
| `residual` | as `logits`           | no: softmax − onehot at τ = 1, from which logits are recovered             |
| `id`, `text` | (N,) strings        | no: names and texts for reports                                            |
| `vectors`  | (N, D)                | instead of the first three: rows made elsewhere, for the method `vectors`  |

An index of bergson's is such a file of vectors.
"""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from ...store.errors import CorpusError, DataError
from ...store.files import JsonObject
from ...store.layout import Array
from ..data.array_files import open_arrays
from ..data.documents import RecordErrors
from ..data.sources import Source
from ..interface.model_view import ModelShape, OutputSpec
from ..models.batch_outputs import FurtherOutputs, LinearHead, PackedOutputs, TargetPositions
from ..runtime.memory import Part, Plan
from .examples import Example, Place
from .provider import remaining

_ROWS = 256


class ArrayProvider:
    """Reads files of arrays; all of them share the first one's head."""

    def __init__(self, paths: list[str], device: torch.device, record_errors: RecordErrors) -> None:
        """Open the files.

        Raises:
            CorpusError: a file is missing, or is no such file.
            DataError: an array is missing or its shape disagrees.
        """
        self.device, self.record_errors = device, record_errors
        self._files = [_File(*open_arrays(path)) for path in paths]
        self.sources = [file.source for file in self._files]
        first = self._files[0]
        if "weight" not in first.shapes:
            raise DataError(f"{first.source.path} has no array weight (V, D); arrays found: {first.found}")
        for file in self._files:
            file.check(first.shapes["weight"])
        weight, bias = first.whole("weight"), first.whole("bias")
        for file in self._files[1:]:
            _refuse_other(file, first, {"weight": weight, "bias": bias})
        length = max(file.positions for file in self._files)
        model_shape = ModelShape(weight.shape[1], weight.shape[0], 0, length)
        self.head = LinearHead(
            model_shape,
            torch.from_numpy(weight).to(device),
            None if bias is None else torch.from_numpy(bias).to(device),
        )
        told = weight.astype("<f4").tobytes() + (b"" if bias is None else bias.astype("<f4").tobytes())
        self._digest = hashlib.sha256(told).hexdigest()[:32]

    def provenance(self) -> JsonObject:
        """The head's fingerprint stands for the model's."""
        return {"kind": "arrays", "model": self._digest}

    def origin(self) -> JsonObject:
        """The head is in the files themselves."""
        return {}

    def memory(self, tokens: int) -> Plan:
        """The head and the rows read at once."""
        model_shape = self.head.model_shape
        width = model_shape.hidden + (model_shape.vocabulary if any(file.has_logits for file in self._files) else 0)
        read = _ROWS * model_shape.max_length * width * 8
        return Plan.of(
            Part("model weights", 4 * self.head.weight.numel()), Part("rows read", read + tokens * width * 16)
        )

    def longest(self) -> int:
        """Positions of an example."""
        return self.head.model_shape.max_length

    def examples(self, start: Place) -> Iterator[Example]:
        """Rows after a place."""
        files = {file.source.path: file for file in self._files}
        for ordinal, source in remaining(self.sources, start):
            file = files[source.path]
            file.source = source  # by the name that the store knows it by
            first = start.record + 1 if ordinal == start.source else 0
            for begin in range(first, file.rows, _ROWS):
                yield from file.examples(ordinal, begin, min(file.rows, begin + _ROWS))

    def at(self, rows: Array) -> Iterator[Example]:
        """Rows (n,) ascending, counted over all files."""
        begins = np.cumsum([0, *(file.rows for file in self._files)])
        for first, last in runs(rows):
            for ordinal, file in enumerate(self._files):
                begin, end = max(first, int(begins[ordinal])), min(last, int(begins[ordinal + 1]))
                if begin < end:
                    yield from file.examples(ordinal, begin - int(begins[ordinal]), end - int(begins[ordinal]))

    def read(self, batch: list[Example], needs: OutputSpec) -> PackedOutputs:
        """Stack the rows; there is nothing to run."""
        asked = [*needs.layers, *([needs.upper_layers] if needs.upper_layers >= 0 else [])]
        if asked:
            raise DataError(f"arrays have no hidden layers {asked}, only the one that the head reads")
        hidden = np.concatenate([example.payload[0] for example in batch]).astype(np.float32, copy=False)
        targets = np.concatenate([example.payload[1] for example in batch]).astype(np.int64, copy=False)
        counts = [example.counted for example in batch]
        logits = None
        if batch[0].payload[2] is not None:
            logits = torch.from_numpy(np.concatenate([e.payload[2] for e in batch]).astype(np.float32)).to(self.device)
        example_ids = torch.from_numpy(np.repeat(np.arange(len(batch)), counts)).to(self.device)
        positions = TargetPositions(example_ids, torch.from_numpy(targets).to(self.device), counts)
        return PackedOutputs(
            self.head, {-1: torch.from_numpy(hidden).to(self.device)}, positions, needs, FurtherOutputs(logits)
        )


def _refuse_other(file: _File, first: _File, head: dict[str, Array | None]) -> None:
    """All files of a corpus have one head, and either all or none bring their logits."""
    for name, value in head.items():
        if name in file.shapes and (value is None or not np.array_equal(file.whole(name), value)):
            raise DataError(f"{file.source.path}: its {name} differs from that of {first.source.path}")
    if file.has_logits != first.has_logits:
        raise DataError(f"{file.source.path} and {first.source.path}: either both have logits or residual, or neither")


def runs(rows: Array) -> Iterator[tuple[int, int]]:
    """First and the one behind the last, of rows that follow each other, `_ROWS` at most."""
    begin = 0
    for at in range(1, len(rows) + 1):
        if at == len(rows) or rows[at] != rows[at - 1] + 1 or at - begin == _ROWS:
            yield int(rows[begin]), int(rows[at - 1]) + 1
            begin = at


class _File:
    """One file of arrays: whole small ones, row ranges of the others."""

    def __init__(self, source: Source, arrays: Any) -> None:
        self.source, self._arrays = source, arrays
        self.shapes: dict[str, tuple[int, ...]] = {name: tuple(array.shape) for name, array in arrays.items()}
        self.found = ", ".join(sorted(arrays)) or "none"
        self.classes = 0
        self.has_logits = "logits" in arrays or "residual" in arrays
        shape = self.shapes.get("hidden", ())
        self.rows, self.positions = (shape[0] if shape else 0), (shape[1] if len(shape) == 3 else 1)

    def whole(self, name: str) -> Any:
        """A small array in float32, or None."""
        return np.array(self._slice(name, 0, self.shapes[name][0]), np.float32) if name in self.shapes else None

    def check(self, weight: tuple[int, ...]) -> None:
        """Arrays that must be there are, of numbers, and in shapes that belong together and to the head (V, D)."""
        path, shapes = self.source.path, self.shapes
        for name in ("hidden", "labels"):
            if name not in shapes:
                raise DataError(f"{path} has no array {name}; arrays found: {self.found}")
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
        wanted = {"bias": own[:1], "id": hidden[:1], "text": hidden[:1]}
        wanted |= dict.fromkeys(("logits", "residual"), (*labels, own[0]))
        for name, shape in wanted.items():
            if shapes.get(name, shape) != shape:
                raise DataError(f"{path}: {name} is {shapes[name]}, and the other arrays make it {shape}")
        for name in ("hidden", "labels", "weight", "bias", "logits", "residual"):
            kind = np.dtype(self._arrays[name].dtype).kind if name in shapes else "i"
            if name not in ("weight", "bias") and getattr(self._arrays.get(name), "fortran", False):
                raise DataError(
                    f"{path}: {name} is in Fortran order, column by column; save np.ascontiguousarray of it"
                )
            if kind not in ("iu" if name == "labels" else "fiu"):
                raise DataError(f"{path}: {name} holds {self._arrays[name].dtype}, not numbers of its kind")

    def examples(self, ordinal: int, begin: int, end: int) -> Iterator[Example]:
        """Some rows as examples; positions without a label are left out."""
        hidden, labels = self._slice("hidden", begin, end), self._labels(begin, end)
        logits = self._logits(begin, end, labels)
        names, texts = self._strings("id", begin, end), self._strings("text", begin, end)
        for row in range(end - begin):
            label = np.atleast_1d(labels[row])
            kept = label >= 0
            payload = (
                np.atleast_2d(hidden[row])[kept], label[kept], None if logits is None else np.atleast_2d(logits[row])[kept],
            )  # fmt: skip
            record = begin + row
            name = f"{self.source.name}:{record}" if names is None else names[row]
            yield Example(name, self.source.name, record, 0, "", "" if texts is None else texts[row], len(label),
                          int(kept.sum()), payload, Place(ordinal, record))  # fmt: skip

    def _strings(self, name: str, begin: int, end: int) -> list[str] | None:
        values = self._slice(name, begin, end)
        return None if values is None else [v.decode() if isinstance(v, bytes) else str(v) for v in values.tolist()]

    def _slice(self, name: str, begin: int, end: int) -> Any:
        if name not in self._arrays:
            return None
        try:
            return np.asarray(self._arrays[name][begin:end])
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise CorpusError(f"{self.source.path}: array {name} cannot be read: {error}") from None

    def _labels(self, begin: int, end: int) -> Array:
        """Labels of some rows, all of them below the head's number of classes."""
        labels: Array = self._slice("labels", begin, end)
        if labels.max(initial=0) >= self.classes:
            row = begin + int(np.argmax(labels.reshape(len(labels), -1).max(1) >= self.classes))
            raise DataError(f"{self.source.path}: row {row} has a label above the last of {self.classes} classes")
        return labels

    def _logits(self, begin: int, end: int, labels: Array) -> Any:
        """The logits given, or those that the residuals given leave: log(residual + onehot)."""
        residual = None if "logits" in self.shapes else self._slice("residual", begin, end)
        if residual is None:
            return self._slice("logits", begin, end)
        p = residual.astype(np.float32)
        own = np.maximum(labels, 0)[..., None].astype(np.int64)
        np.put_along_axis(p, own, np.take_along_axis(p, own, -1) + 1, -1)
        return np.log(np.maximum(p, 1e-30))
