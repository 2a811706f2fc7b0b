"""Writes every score of every query to a Zarr group that any client reads. Knows no method and no model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from ...store.errors import SettingsError
from ...store.files import JsonFacts, whole_file
from ...store.layout import Array
from ..runtime.memory import Part, Plan

_CHUNK_BYTES = 8 << 20
_NONE: JsonFacts = {}


def export_parts(queries: int, rows: int) -> Plan:
    """What an export holds besides the scan: a chunk as it fills, and as zarr writes it."""
    return Plan.of(Part("scores on their way out", 4 * min(max(_CHUNK_BYTES, 4 * queries), 4 * queries * rows)))


def refuse_path(path: str) -> None:
    """Raise SettingsError for what is there already, or is no name of a Zarr group."""
    if Path(path).exists():
        raise SettingsError(f"{path} exists: name another place for the scores")
    if Path(path).suffix != ".zarr":
        raise SettingsError(f"{path}: all scores are written as a .zarr group")


def export(
    path: str, scores: Iterable[tuple[int, Array]], rows: int, queries: Sequence[str], method: str,
    facts: JsonFacts = _NONE,
) -> None:  # fmt: skip
    """Write a group with `scores` (N, Q) float32, rows in the store's order; its attributes name the queries and the method, and
    tell further facts, JSON values.

    It takes its name when it is whole. Raises StoreFull, SettingsError.
    """
    with whole_file(Path(path)) as hidden:
        _write(hidden, scores, rows, queries, {"method": method, **facts})


def _write(
    hidden: Path, scores: Iterable[tuple[int, Array]], rows: int, queries: Sequence[str], facts: JsonFacts
) -> None:
    import zarr

    size = max(1, min(rows, _CHUNK_BYTES // (4 * len(queries))))
    group = zarr.open_group(str(hidden), mode="w-")
    group.attrs.update({"queries": list(queries), "rows": "examples, in the store's order", **facts})
    array = group.create_array("scores", shape=(rows, len(queries)), chunks=(size, len(queries)), dtype="float32",
                               dimension_names=("example", "query"), compressors=None)  # fmt: skip
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
