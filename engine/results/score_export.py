"""Writes every score of every query to a Zarr group that any client reads. Knows no method and no model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from ...store.errors import SettingsError
from ...store.json_values import JsonObject
from ...store.layout import Array
from ..runtime.memory import Part, Plan
from ..runtime.output_files import whole_file

_CHUNK_BYTES = 8 << 20


def export_parts(queries: int, rows: int) -> Plan:
    """Memory of an export, without the scan: one chunk that is filled, and zarr's copy of it."""
    return Plan.of(Part("exported chunk", 4 * min(max(_CHUNK_BYTES, 4 * queries), 4 * queries * rows)))


def refuse_path(path: str) -> None:
    """Raise SettingsError if the path exists, or is not the name of a Zarr group."""
    if Path(path).exists():
        raise SettingsError(f"{path} exists", hint="give another path for the scores")
    if Path(path).suffix != ".zarr":
        raise SettingsError(f"{path}: all scores are written as a Zarr group", hint="give a path that ends in .zarr")


def export(
    path: str, scores: Iterable[tuple[int, Array]], rows: int, queries: Sequence[str], attributes: JsonObject
) -> None:
    """Write a group with `scores` (N, Q) float32, rows in the store's order; its attributes are `attributes` and the query ids.

    Each chunk ends with its CRC32C, which any client compares, and a missing chunk is read as NaN.

    The group appears at `path` complete or not at all. Raises StoreFull, SettingsError.
    """
    with whole_file(Path(path)) as hidden:
        _write(hidden, scores, rows, queries, attributes)


def _write(
    hidden: Path, scores: Iterable[tuple[int, Array]], rows: int, queries: Sequence[str], attributes: JsonObject
) -> None:
    import zarr
    from zarr.codecs import Crc32cCodec

    size = max(1, min(rows, _CHUNK_BYTES // (4 * len(queries))))
    group = zarr.open_group(str(hidden), mode="w-")
    group.attrs.update({"queries": list(queries), "rows": "examples, in the store's order", **attributes})
    array = group.create_array("scores", shape=(rows, len(queries)), chunks=(size, len(queries)), dtype="float32",
                               fill_value=np.nan, dimension_names=("example", "query"), compressors=Crc32cCodec())  # fmt: skip
    buffer, first = np.empty((size, len(queries)), np.float32), 0
    for start, part in scores:
        done = 0
        while done < len(part):
            count = min(len(part) - done, first + size - start - done)
            buffer[start + done - first : start + done - first + count] = part[done : done + count]
            done += count
            if start + done == min(rows, first + size):
                array[first : start + done] = buffer[: start + done - first]
                first = start + done
