"""Arrays in place of text and a model: hidden states, labels and readout weights, from an .npz file or a Zarr group. So an
image or tabular classifier, or a model that no library loads, rides the same path. Knows no method and no store of ours.

| array      | shape                 | must                                                                       |
|------------|-----------------------|----------------------------------------------------------------------------|
| `hidden`   | (N, D) or (N, T, D)   | yes: what the head reads                                                   |
| `labels`   | (N,) or (N, T)        | yes: the class or next token; negative: the position does not count        |
| `weight`   | (V, D)                | yes: the head; `bias` (V,) beside it if there is one                       |
| `logits`   | (N, V) or (N, T, V)   | no: taken instead of `hidden` @ `weight`ᵀ + `bias`                         |
| `residual` | as `logits`           | no: softmax − onehot at τ = 1, from which logits are recovered             |
| `id`, `text` | (N,) strings        | no: names and texts for reports                                            |
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...store.errors import CorpusError, DataError
from ...store.layout import Array
from ..method import Needs, Sizes
from .corpus import Faults, Source
from .examples import Example, Place
from .readout import BatchReadout, LinearHead

_ROWS = 256


def is_features(path: str) -> bool:
    """Whether a path holds arrays rather than text."""
    return path.endswith(".npz") or (Path(path) / "zarr.json").is_file() or (Path(path) / ".zgroup").is_file()


class FeatureProvider:
    """Reads files of arrays; all of them share the first one's head."""

    def __init__(self, paths: list[str], device: torch.device, faults: Faults) -> None:
        """Open the files.

        Raises:
            CorpusError: a file is missing, or is no such file.
            DataError: an array is missing or its shape disagrees.
        """
        self.device, self.faults = device, faults
        self._files = [_open(path) for path in paths]
        self.sources = [file.source for file in self._files]
        weight, bias = self._files[0].whole("weight"), self._files[0].whole("bias")
        for file in self._files:
            file.check()
            own = file.whole("weight")
            if own is not None and weight is not None and not np.array_equal(own, weight):
                raise DataError(f"{file.source.path}: its weight differs from that of {self._files[0].source.path}")
        if weight is None:
            raise DataError(f"{self.sources[0].path} has no array weight (V, D); arrays found: {self._files[0].found}")
        length = max(file.positions for file in self._files)
        sizes = Sizes(weight.shape[1], weight.shape[0], 0, length)
        self.head = LinearHead(
            sizes,
            torch.from_numpy(np.asarray(weight, np.float32)).to(device),
            None if bias is None else torch.from_numpy(np.asarray(bias, np.float32)).to(device),
        )
        self._digest = hashlib.sha256(np.ascontiguousarray(weight, "<f4").tobytes()).hexdigest()[:32]

    def provenance(self) -> dict[str, Any]:
        """The head's fingerprint stands for the model's."""
        return {"kind": "arrays", "model": self._digest}

    def origin(self) -> dict[str, Any]:
        """The head is in the files themselves."""
        return {}

    def memory(self, tokens: int) -> list[tuple[str, int]]:
        """The head and the rows read at once."""
        sizes = self.head.sizes
        width = sizes.hidden + (sizes.vocabulary if any(file.has_logits for file in self._files) else 0)
        read = _ROWS * sizes.max_length * width * 8
        return [("model weights", 4 * self.head.weight.numel()), ("rows read", read + tokens * width * 16)]

    def longest(self) -> int:
        """Positions of an example."""
        return self.head.sizes.max_length

    def examples(self, start: Place) -> Iterator[Example]:
        """Rows after a place."""
        for ordinal, file in enumerate(self._files):
            if ordinal < start.source:
                continue
            first = start.record + 1 if ordinal == start.source else 0
            for begin in range(first, file.rows, _ROWS):
                yield from file.examples(ordinal, begin, min(file.rows, begin + _ROWS))

    def read(self, batch: list[Example], needs: Needs) -> BatchReadout:
        """Stack the rows; there is nothing to run."""
        if needs.layers:
            raise DataError(f"arrays have no hidden layers {list(needs.layers)}, only the one that the head reads")
        hidden = np.concatenate([example.payload[0] for example in batch]).astype(np.float32)
        targets = np.concatenate([example.payload[1] for example in batch]).astype(np.int64)
        counts = [example.counted for example in batch]
        logits = None
        if batch[0].payload[2] is not None:
            logits = torch.from_numpy(np.concatenate([e.payload[2] for e in batch]).astype(np.float32)).to(self.device)
        return BatchReadout(
            self.head,
            {-1: torch.from_numpy(hidden).to(self.device)},
            torch.from_numpy(np.repeat(np.arange(len(batch)), counts)).to(self.device),
            torch.from_numpy(targets).to(self.device),
            counts,
            needs,
            logits,
        )


class _File:
    """One file of arrays: whole small ones, row ranges of the others."""

    def __init__(self, path: str, arrays: Any, size: int, digest: str, kind: str) -> None:
        self._arrays = arrays
        self.found = ", ".join(sorted(arrays)) or "none"
        self.source = Source(path, Path(path).name, kind, size, digest)
        self.has_logits = "logits" in arrays or "residual" in arrays
        self.rows, self.positions = 0, 1
        if "hidden" in arrays:
            shape = arrays["hidden"].shape
            self.rows, self.positions = shape[0], (shape[1] if len(shape) == 3 else 1)

    def whole(self, name: str) -> Array | None:
        return np.asarray(self._arrays[name][:]) if name in self._arrays else None

    def check(self) -> None:
        """Shapes that belong together do."""
        path = self.source.path
        for name in ("hidden", "labels"):
            if name not in self._arrays:
                raise DataError(f"{path} has no array {name}; arrays found: {self.found}")
        if not self.rows:
            raise CorpusError(f"{path} is empty: its array hidden has no rows")
        hidden, labels = self._arrays["hidden"].shape, self._arrays["labels"].shape
        if len(hidden) not in (2, 3) or labels != hidden[:-1]:
            raise DataError(
                f"{path}: hidden {hidden} and labels {labels} disagree: (N, D) with (N,), or (N, T, D) with (N, T)"
            )
        for name in ("logits", "residual"):
            if name in self._arrays and self._arrays[name].shape[:-1] != labels:
                raise DataError(f"{path}: {name} {self._arrays[name].shape} and labels {labels} disagree")
        weight = self._arrays["weight"].shape if "weight" in self._arrays else (0, hidden[-1])
        if len(weight) != 2 or weight[1] != hidden[-1]:
            raise DataError(f"{path}: weight {weight} and hidden {hidden} disagree: weight is (V, D)")

    def examples(self, ordinal: int, begin: int, end: int) -> Iterator[Example]:
        hidden, labels = self._slice("hidden", begin, end), self._slice("labels", begin, end)
        logits, names, texts = (
            self._logits(begin, end, labels),
            self._slice("id", begin, end),
            self._slice("text", begin, end),
        )
        for row in range(end - begin):
            label = np.atleast_1d(labels[row])
            kept = label >= 0
            payload = (
                np.atleast_2d(hidden[row])[kept], label[kept], None if logits is None else np.atleast_2d(logits[row])[kept],
            )  # fmt: skip
            record = begin + row
            name = f"{self.source.name}:{record}" if names is None else str(names[row])
            yield Example(name, self.source.name, record, 0, "", "" if texts is None else str(texts[row]), len(label),
                          int(kept.sum()), payload, Place(ordinal, record))  # fmt: skip

    def _slice(self, name: str, begin: int, end: int) -> Any:
        return np.asarray(self._arrays[name][begin:end]) if name in self._arrays else None

    def _logits(self, begin: int, end: int, labels: Array) -> Array | None:
        logits = self._slice("logits", begin, end)
        if logits is None and (residual := self._slice("residual", begin, end)) is not None:
            one = np.eye(residual.shape[-1], dtype=np.float32)[np.maximum(labels, 0)]
            logits = np.log(np.maximum(residual + one, 1e-30))
        return None if logits is None else np.asarray(logits)


class _NpzArray:
    """One member of an .npz, read by row ranges without loading it."""

    def __init__(self, archive: zipfile.ZipFile, member: str) -> None:
        self._file = archive.open(member)
        version = np.lib.format.read_magic(self._file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        self.shape, fortran, self._dtype = read(self._file)
        if self._dtype.hasobject or (fortran and len(self.shape) > 1):
            raise DataError(
                f"{archive.filename}: {member} holds Python objects or is in Fortran order; save plain C arrays"
            )
        self._start = self._file.tell()

    def __getitem__(self, rows: slice) -> Array:
        begin, end, _ = rows.indices(self.shape[0])
        row = int(np.prod(self.shape[1:], dtype=np.int64)) * self._dtype.itemsize
        self._file.seek(self._start + begin * row)
        data = self._file.read((end - begin) * row)
        return np.frombuffer(data, self._dtype).reshape(end - begin, *self.shape[1:])


def _open(path: str) -> _File:
    try:
        if path.endswith(".npz"):
            archive = zipfile.ZipFile(path)
            arrays = {name.removesuffix(".npy"): _NpzArray(archive, name) for name in archive.namelist()}
            crc = "".join(f"{info.filename}{info.CRC:x}{info.file_size}" for info in archive.infolist())
            return _File(path, arrays, Path(path).stat().st_size, hashlib.sha256(crc.encode()).hexdigest()[:32], "npz")
        import zarr

        group = zarr.open_group(path, mode="r")
        told = repr(sorted((name, array.shape, str(array.dtype)) for name, array in group.arrays()))
        return _File(path, dict(group.arrays()), 0, hashlib.sha256(told.encode()).hexdigest()[:32], "zarr")
    except FileNotFoundError:
        raise CorpusError(f"{path} does not exist") from None
    except (OSError, ValueError, zipfile.BadZipFile, KeyError) as error:
        if isinstance(error, DataError):
            raise
        raise CorpusError(f"{path} cannot be read as arrays: {error}") from None
