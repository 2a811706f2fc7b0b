"""The on-disk format: columns, chunks, dtypes and their Zarr v3 metadata. Knows nothing of files, models, methods or scores.

A column is a Zarr array of rows, cut into chunks of whole rows, one chunk one file. Numbers are stored uncompressed,
because real sketches hardly compress while decoding costs several times the read; text is zstd. Every chunk ends with its
CRC32C, as the standard `crc32c` codec writes it, so that any Zarr client checks what it reads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import DataError

FORMAT = 3
"""1: examples and methods. 2: rows in precisions other than the declared one, and copies in further precisions.
3: a shard with manifests of its chunks, ragged columns, a sealed root."""
CHUNK_BYTES = 32 << 20
"""Upper size of a chunk of numbers: large enough to read at the disk's rate, small enough that a few of them fit in memory."""
TEXT_CHUNK_ROWS = 1024
NUMBER_CHUNK_ROWS = 65_536
CHECKSUM_BYTES = 4
TEXT = "string"

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Column:
    """One array of a group: what is kept of every example under one name."""

    name: str
    """Its name within the group."""
    shape: tuple[int, ...]
    """Shape of one row; () for a scalar."""
    dtype: str
    """NumPy name of the element type, or "string" for text."""
    chunk_rows: int
    """Rows in a chunk, a power of two; of a ragged column, elements."""
    ragged: bool = False
    """Whether each row has its own number of elements of `shape`: values and offsets, row i = values[offsets[i]:offsets[i +
    1]].
    """

    @property
    def is_text(self) -> bool:
        """Whether the column holds strings."""
        return self.dtype == TEXT

    @property
    def row_bytes(self) -> int:
        """Bytes of one row; for text, only those of the reference to a string."""
        return math.prod(self.shape) * (8 if self.is_text else np.dtype(self.dtype).itemsize)

    @property
    def chunk_bytes(self) -> int:
        """Bytes of one chunk of numbers, without its checksum."""
        return self.row_bytes * self.chunk_rows

    @property
    def values(self) -> Column:
        """The array of the elements of all rows, for a ragged column."""
        return Column("values", self.shape, self.dtype, self.chunk_rows)

    @property
    def offsets(self) -> Column:
        """For a ragged column, the array of the positions where each row begins and where the last one ends."""
        return Column("offsets", (), "int64", self.chunk_rows)

    @property
    def buffer_bytes(self) -> int:
        """Bytes of the chunks that a writer holds."""
        return self.values.chunk_bytes + self.offsets.chunk_bytes if self.ragged else self.chunk_bytes

    def chunk_key(self, chunk: int) -> str:
        """Path of chunk number `chunk` below the array, by Zarr's default key encoding."""
        return "/".join(["c", str(chunk), *("0" for _ in self.shape)])

    def rows_of(self, chunk: int, rows: int) -> tuple[int, int]:
        """First and last-plus-one row of a chunk in a column of `rows` rows."""
        return chunk * self.chunk_rows, min(rows, (chunk + 1) * self.chunk_rows)


def column(name: str, shape: tuple[int, ...], dtype: str, chunk_bytes: int = CHUNK_BYTES) -> Column:
    """A column whose chunk is the largest power of two rows within `chunk_bytes` (text: 1,024 rows).

    Raises:
        DataError: a row would have no numbers, or its type is neither a number nor text.
    """
    if dtype == TEXT:
        return Column(name, (), TEXT, TEXT_CHUNK_ROWS)
    if np.dtype(dtype).kind not in "biuf" or 0 in shape:
        raise DataError(
            f"column {name}: cannot store rows of {dtype} {shape}: a row needs at least one bool, integer or float"
        )
    row = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    fitting = max(1, chunk_bytes // row)
    return Column(name, tuple(shape), np.dtype(dtype).name, min(NUMBER_CHUNK_ROWS, 1 << (fitting.bit_length() - 1)))


def ragged_column(name: str, dtype: str, shape: tuple[int, ...] = (), chunk_bytes: int = CHUNK_BYTES) -> Column:
    """A ragged column of elements of a shape.

    Raises:
        DataError: an element would have no numbers, or its type is not a number.
    """
    if dtype == TEXT:
        raise DataError(f"column {name}: a ragged column holds numbers, not text")
    return replace(column(name, shape, dtype, chunk_bytes), ragged=True)


def narrowest_unsigned(count: int) -> str:
    """The narrowest unsigned type that holds 0 … count - 1."""
    return np.min_scalar_type(max(0, count - 1)).name


def array_metadata(column: Column, rows: int) -> dict[str, Any]:
    """The `zarr.json` of a column of `rows` rows (Zarr v3 core specification, regular grid, default keys)."""
    checksum = {"name": "crc32c"}
    if column.is_text:
        codecs = [{"name": "vlen-utf8", "configuration": {}},
                  {"name": "zstd", "configuration": {"level": 3, "checksum": False}}, checksum]  # fmt: skip
    else:
        codecs = [{"name": "bytes", "configuration": {"endian": "little"}}, checksum]
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [rows, *column.shape],
        "data_type": column.dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [column.chunk_rows, *column.shape]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": "" if column.is_text else False if column.dtype == "bool" else 0,
        "codecs": codecs,
        "attributes": {},
        "storage_transformers": [],
    }


def group_metadata(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The `zarr.json` of a group."""
    return {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)}


def column_from(name: str, metadata: Mapping[str, Any]) -> Column:
    """The column that an array's `zarr.json` describes. Inverse of :func:`array_metadata`."""
    grid = metadata["chunk_grid"]["configuration"]["chunk_shape"]
    return Column(name, tuple(metadata["shape"][1:]), str(metadata["data_type"]), grid[0])


def is_plain(metadata: Mapping[str, Any]) -> bool:
    """Whether chunk files are the rows themselves, plus a checksum: what can be read without decoding."""
    endian = metadata["codecs"][0].get("configuration", {}).get("endian", "little")
    return endian == "little" and _is_laid_out(metadata, ["bytes", "crc32c"])


def is_native(metadata: Mapping[str, Any]) -> bool:
    """Whether an array is stored as headwater stores it: every chunk has a file, which ends with its checksum."""
    return is_plain(metadata) or _is_laid_out(metadata, ["vlen-utf8", "zstd", "crc32c"])


def _is_laid_out(metadata: Mapping[str, Any], codecs: list[str]) -> bool:
    grid, keys = metadata["chunk_grid"], metadata["chunk_key_encoding"]
    return bool(
        [codec["name"] for codec in metadata["codecs"]] == codecs
        and grid["name"] == "regular"
        and list(grid["configuration"]["chunk_shape"][1:]) == list(metadata["shape"][1:])
        and keys["name"] == "default"
        and keys.get("configuration", {}).get("separator", "/") == "/"
    )


@dataclass(frozen=True, slots=True)
class Damage:
    """One chunk that is not what was written."""

    column: str
    """The array's path below the root, or a state's."""
    chunk: int
    """The chunk's number; -1 for a state, which has no rows."""
    first: int
    """First row that it holds."""
    last: int
    """Last row that it holds."""
    why: str
    """What is wrong, in words."""

    def __str__(self) -> str:
        if self.chunk < 0:
            return f"{self.column} {self.why}"
        return f"{self.column} chunk {self.chunk} (rows {self.first} to {self.last}) {self.why}"


@dataclass(slots=True)
class Block:
    """Consecutive rows of some columns, in memory. Its arrays are reused: they are valid until the next block is taken."""

    start: int
    """Row number of the first row."""
    columns: dict[str, Array]
    """Column name to array (rows, *row shape)."""

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(next(iter(self.columns.values())))

    def part(self, start: int, stop: int) -> Block:
        """Rows start … stop-1 of this block, as views."""
        return Block(self.start + start, {name: array[start:stop] for name, array in self.columns.items()})
