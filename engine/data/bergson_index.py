"""Reads a gradient index of bergson (github.com/EleutherAI/bergson) as arrays of a corpus, and its scores.

The folder holds `info.json` (`num_grads`, `grad_sizes`: module → width, `base_dtype`; older ones the record dtype's `formats`)
and `gradients.bin`, rows of all modules' numbers side by side. Read of version 2.5; nothing of it is run, unpickled or copied.
Knows nothing of models and stores.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from ...store.errors import CorpusError, DataError
from ...store.files import JsonObject
from ...store.layout import Array
from .sources import Source

_TYPES = {"float32": "<f4", "float16": "<f2", "bfloat16": "<u2", "float64": "<f8"}


def is_index(path: str) -> bool:
    """Whether a folder is such an index."""
    return (Path(path) / "gradients.bin").is_file()


def open_index(path: str) -> tuple[JsonObject, Source]:
    """`vectors` (N, D) float32, sliced as rows are asked for, `text` (N,) if the index kept it; and the index as a source.

    Raises:
        CorpusError: files are missing or cut. DataError: it holds something else than a gradient an example.
    """
    folder, info = Path(path), _info(Path(path))
    if info.get("attribute_tokens"):
        raise DataError(f"{path} holds gradients of tokens; build the index without attribute_tokens")
    try:
        rows, width = int(info["num_grads"]), sum(int(size) for size in info["grad_sizes"].values())
        vectors = GradientIndex(folder / "gradients.bin", rows, width, _type(info))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CorpusError(f"{path}/info.json is not what bergson writes: {error}") from None
    told = json.dumps([rows, info["grad_sizes"], *(vectors[at : at + 1].tolist() for at in (0, rows - 1))])
    digest = hashlib.sha256(told.encode()).hexdigest()[:32]
    arrays: JsonObject = {"vectors": vectors}
    texts = _texts(folder / "data.hf", rows)
    if texts is not None:
        arrays["text"] = texts
    return arrays, Source(path, folder.name, "bergson", vectors.size, digest)


class GradientIndex:
    """`gradients.bin`, read by row ranges."""

    def __init__(self, path: Path, rows: int, width: int, kind: str) -> None:
        """Raises CorpusError where the file is not as long as it should be."""
        self.shape, self.dtype, self._path, self._kind = (rows, width), np.dtype(np.float32), path, np.dtype(kind)
        self.size = path.stat().st_size
        if self.size != rows * width * self._kind.itemsize or not self.size:
            raise CorpusError(f"{path} has {self.size} bytes; {rows} rows of {width} numbers of {kind} are "
                              f"{rows * width * self._kind.itemsize}")  # fmt: skip

    def __getitem__(self, rows: slice) -> Array:
        """Some rows in float32."""
        begin, end, _ = rows.indices(self.shape[0])
        width = self.shape[1]
        values = np.fromfile(self._path, self._kind, (end - begin) * width, offset=begin * width * self._kind.itemsize)
        if self._kind == np.dtype("<u2"):  # bfloat16: the upper half of a float32
            values = (values.astype(np.uint32) << 16).view(np.float32)
        return values.astype(np.float32, copy=False).reshape(end - begin, width)


def is_scores(path: str) -> bool:
    """Whether a folder holds scores of bergson's."""
    return (Path(path) / "scores.bin").is_file()


def read_scores(path: str) -> Array:
    """(Q, N) float32 from `scores.bin`: records of (score, written) for each query, an example a record.

    Raises:
        CorpusError: files are missing or cut. DataError: scores of tokens or of a choice of examples, or some never written.
    """
    folder, info = Path(path), _info(Path(path))
    if info.get("attribute_tokens") or (folder / "candidates.npy").exists():
        raise DataError(
            f"{path} holds scores of tokens, or of chosen examples alone; what is judged has one for every example"
        )
    try:
        told, queries = info["dtype"], int(info["num_scores"])
        kinds = [_TYPES[kind] if kind in _TYPES else {"bool": "?"}[kind] for kind in told["formats"]]
        record: Any = {"formats": kinds} | {key: told[key] for key in ("names", "offsets", "itemsize")}
        held = np.fromfile(folder / "scores.bin", np.dtype(record))
        if len(held) != int(info["num_rows"]):
            raise ValueError(f"{len(held)} records of {info['num_rows']}")
        parts = [held[f"score_{query}"] for query in range(queries)]
        whole = all(held[f"written_{query}"].all() for query in range(queries))
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise CorpusError(f"{path} does not hold what bergson writes: {error}") from None
    if not whole:
        raise DataError(f"{path}: some scores were never written: that run has not ended")
    return np.stack([(part.astype(np.uint32) << 16).view(np.float32) if part.dtype == np.uint16 else part.astype(np.float32)
                     for part in parts])  # fmt: skip


def _info(folder: Path) -> JsonObject:
    try:
        found = json.loads((folder / "info.json").read_text())
    except (OSError, ValueError) as error:
        raise CorpusError(f"{folder} has no readable info.json: {error}") from None
    if not isinstance(found, dict):
        raise CorpusError(f"{folder}/info.json is not what bergson writes: {type(found).__name__}")
    return found


def _type(info: JsonObject) -> str:
    """NumPy's name of a number's type; bfloat16 as the integers that it is stored in."""
    name = info.get("base_dtype")
    if name is None:  # a record a module: ('<f4', (256,)), as JSON "(256,)<f4" or ["<f4", [256]]
        first = info["dtype"]["formats"][0]
        text = first[0] if isinstance(first, list) else str(first)
        found = re.search(r"<?(f2|f4|f8|bfloat16|float16|float32|float64)", text)
        name = {"f2": "float16", "f4": "float32", "f8": "float64"}.get(found[1], found[1]) if found else text
    if name not in _TYPES:
        raise ValueError(f"numbers of type {name}")
    return _TYPES[name]


class _Texts:
    """A column of texts in memory-mapped files, sliced as rows are asked for."""

    def __init__(self, column: Any) -> None:
        self._column, self.shape, self.dtype = column, (len(column),), np.dtype(object)

    def __getitem__(self, rows: slice) -> Array:
        begin, end, _ = rows.indices(self.shape[0])
        return np.array(self._column.slice(begin, end - begin).to_pylist(), object)


def _texts(folder: Path, rows: int) -> _Texts | None:
    """The column `text` of the index's data set, where it was kept: Arrow streams, in the order of state.json."""
    try:
        files = [entry["filename"] for entry in json.loads((folder / "state.json").read_text())["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    import pyarrow as pa

    found: list[Any] = []
    for name in files:
        try:
            file = pa.memory_map(str(folder / Path(name).name))  # held by what is read of it
            found += pa.ipc.open_stream(file).read_all().column("text").chunks
        except (OSError, KeyError, pa.ArrowInvalid):
            return None
    texts = pa.chunked_array(found, pa.string()) if found else None
    return _Texts(texts) if texts is not None and len(texts) == rows else None
