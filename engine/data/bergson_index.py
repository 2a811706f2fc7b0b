"""Reads a gradient index of bergson (github.com/EleutherAI/bergson) as arrays of a corpus, and its scores.

The folder holds `info.json` (`num_grads`, `grad_sizes`: module → width, `base_dtype`; older versions: the `formats` of the
record dtype) and `gradients.bin`, rows in which the numbers of all modules are concatenated. Written for bergson 2.5; no code
of bergson is run, nothing is unpickled or copied. Knows nothing of models and stores.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import DTypeLike

from ...store.errors import CorpusError, DataError
from ...store.json_values import ParsedJson
from ...store.layout import Array
from .sources import Source
from .stored_arrays import Arrays

if TYPE_CHECKING:
    import pyarrow as pa

_TYPES = {"float32": "<f4", "float16": "<f2", "bfloat16": "<u2", "float64": "<f8"}


def is_bergson_index(path: str) -> bool:
    """Whether a folder is a gradient index of bergson."""
    return (Path(path) / "gradients.bin").is_file()


def open_bergson_index(path: str) -> tuple[Arrays, Source]:
    """Open an index; returns its arrays and its source.

    `vectors` is (N, D) float32 and reads rows when it is sliced; `text` (N,) is there if the index holds the texts.

    Raises:
        CorpusError: files are missing, truncated or not in bergson's format.
        DataError: the index holds gradients per token instead of per example.
    """
    folder, info = Path(path), _info(Path(path))
    if info.get("attribute_tokens"):
        raise DataError(
            f"{path} holds gradients of tokens; expected one per example: build the index without attribute_tokens"
        )
    try:
        rows, width = int(info["num_grads"]), sum(int(size) for size in info["grad_sizes"].values())
        vectors = GradientIndex(folder / "gradients.bin", rows, width, _type(info))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CorpusError(f"{path}/info.json is not what bergson writes: {error}; build the index again") from None
    description = json.dumps([rows, info["grad_sizes"], *(vectors[row : row + 1].tolist() for row in (0, rows - 1))])
    digest = hashlib.sha256(description.encode()).hexdigest()[:32]
    arrays: Arrays = {"vectors": vectors}
    texts = _texts(folder / "data.hf", rows)
    if texts is not None:
        arrays["text"] = texts
    return arrays, Source(path, folder.name, "bergson", vectors.size, digest)


class GradientIndex:
    """`gradients.bin` as an (N, D) float32 array that reads rows when it is sliced."""

    def __init__(self, path: Path, rows: int, width: int, kind: str) -> None:
        """Raises CorpusError if the file's size is not `rows` × `width` numbers of dtype `kind`."""
        self.shape, self.dtype, self._path, self._kind = (rows, width), np.dtype(np.float32), path, np.dtype(kind)
        self.size = path.stat().st_size
        if self.size != rows * width * self._kind.itemsize or not self.size:
            raise CorpusError(f"{path} has {self.size} bytes; {rows} rows of {width} numbers of {kind} are "
                              f"{rows * width * self._kind.itemsize}: copy or build the index again")  # fmt: skip

    def __getitem__(self, rows: slice) -> Array:
        """A range of rows, converted to float32."""
        begin, end, _ = rows.indices(self.shape[0])
        width = self.shape[1]
        values = np.fromfile(self._path, self._kind, (end - begin) * width, offset=begin * width * self._kind.itemsize)
        return _to_float32(values).reshape(end - begin, width)


def is_bergson_scores(path: str) -> bool:
    """Whether a folder holds scores written by bergson."""
    return (Path(path) / "scores.bin").is_file()


def read_bergson_scores(path: str) -> Array:
    """(Q, N) float32 scores from `scores.bin`: one record per example, with a pair (score, written) per query.

    Raises:
        CorpusError: files are missing, truncated or not in bergson's format.
        DataError: scores are per token, cover only some examples, or some were never written.
    """
    folder, info = Path(path), _info(Path(path))
    if info.get("attribute_tokens") or (folder / "candidates.npy").exists():
        raise DataError(
            f"{path} holds scores of tokens, or of some examples only; expected one score for every example"
        )
    try:
        record_dtype, queries = info["dtype"], int(info["num_scores"])
        dtypes = [_TYPES[kind] if kind in _TYPES else {"bool": "?"}[kind] for kind in record_dtype["formats"]]
        dtype_fields = {"formats": dtypes} | {key: record_dtype[key] for key in ("names", "offsets", "itemsize")}
        records = np.fromfile(folder / "scores.bin", np.dtype(cast(DTypeLike, dtype_fields)))
        if len(records) != int(info["num_rows"]):
            raise ValueError(f"{len(records)} records, expected {info['num_rows']}")
        scores = [records[f"score_{query}"] for query in range(queries)]
        all_written = all(records[f"written_{query}"].all() for query in range(queries))
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise CorpusError(f"{path} does not hold what bergson writes: {error}; write the scores again") from None
    if not all_written:
        raise DataError(f"{path}: some scores were never written: let the bergson run finish, then read it again")
    return np.stack([_to_float32(values) for values in scores])


def _to_float32(values: Array) -> Array:
    """float32 of numbers of any stored dtype; uint16 holds bfloat16, the upper half of a float32."""
    if values.dtype == np.uint16:
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32, copy=False)


def _info(folder: Path) -> ParsedJson:
    try:
        info = json.loads((folder / "info.json").read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise CorpusError(f"{folder} has no readable info.json: {error}") from None
    if not isinstance(info, dict):
        raise CorpusError(
            f"{folder}/info.json is not what bergson writes: expected an object, got {type(info).__name__}"
        )
    return info


def _type(info: ParsedJson) -> str:
    """NumPy's name of the stored dtype; bfloat16 is read as uint16."""
    name = info.get("base_dtype")
    if name is None:  # one record field per module: ('<f4', (256,)), in JSON "(256,)<f4" or ["<f4", [256]]
        first_format = info["dtype"]["formats"][0]
        format_text = first_format[0] if isinstance(first_format, list) else str(first_format)
        match = re.search(r"<?(f2|f4|f8|bfloat16|float16|float32|float64)", format_text)
        name = {"f2": "float16", "f4": "float32", "f8": "float64"}.get(match[1], match[1]) if match else format_text
    if name not in _TYPES:
        raise ValueError(f"numbers of type {name}, expected one of {', '.join(_TYPES)}")
    return _TYPES[name]


class _Texts:
    """A text column in memory-mapped Arrow files that reads rows when it is sliced."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        self._column, self.shape, self.dtype = column, (len(column),), np.dtype(object)

    def __getitem__(self, rows: slice) -> Array:
        begin, end, _ = rows.indices(self.shape[0])
        return np.array(self._column.slice(begin, end - begin).to_pylist(), object)


def _texts(folder: Path, rows: int) -> _Texts | None:
    """The column `text` of the index's data set if the index holds it: Arrow streams in the order of state.json."""
    try:
        files = [entry["filename"] for entry in json.loads((folder / "state.json").read_text())["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    import pyarrow as pa

    chunks: list[pa.Array] = []
    for name in files:
        try:
            file = pa.memory_map(str(folder / Path(name).name))  # the chunks read from it keep it alive
            chunks += pa.ipc.open_stream(file).read_all().column("text").chunks
        except (OSError, KeyError, pa.ArrowInvalid):
            return None
    texts = pa.chunked_array(chunks, pa.string()) if chunks else None
    return _Texts(texts) if texts is not None and len(texts) == rows else None
