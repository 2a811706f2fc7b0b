"""Predicts what a search will read and how long it will take, from the speed of its first rows. Knows no method.

Rates are measured, not assumed: the first `SAMPLE` bytes are scanned as the whole would be, from the disk or from the page
cache as they lie, by the same kernels and workers; a few rows are gathered where candidates will be.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from ....store.layout import Array
from .scan_loop import Shape, row_bytes
from .scorers import scorer_of
from .stored_rows import StoredRows
from .top_k import top_k
from .two_stage import rescored

SAMPLE = 64 << 20
_GATHERED = 64  # rows


@dataclass(frozen=True, slots=True)
class Forecast:
    """An expectation."""

    bytes: int
    """Read from the store."""
    seconds: float
    """Wall time of the search, once the queries are rows."""
    rate: float
    """Bytes a second of the sample's scan."""
    sample: int
    """Bytes that were scanned to say so."""


def forecast(scanned: StoredRows, fine: StoredRows, queries: int, k: int, candidates: int, shape: Shape) -> Forecast:
    """Of a scan of `scanned` for `queries` queries, and of `candidates` rows a query gathered from `fine` (0: none)."""
    form = scanned.widest
    name = form.declared.name
    columns = scanned.scanned(name)
    row, rows = row_bytes(columns), scanned.rows
    matrix = np.random.default_rng(0).standard_normal((queries, form.depth)).astype(np.float32)
    scorer, kept = scorer_of(form, matrix), candidates or k
    stop = min(rows, max(shape.block_rows, SAMPLE // row))
    top_k(columns, scorer, kept, shape, _nothing, stop=min(rows, 2))  # compiles what is not compiled yet
    begun = time.monotonic()
    top_k(columns, scorer, kept, shape, _nothing, stop=stop)
    rate = row * stop / max(time.monotonic() - begun, 1e-6)
    gathered = min(rows, queries * candidates)
    finer = sum(column.row_bytes for column in fine.forms[name].columns)
    seconds = rows * row / rate + (gathered * _gather_seconds(scanned, fine, name, matrix) if candidates else 0)
    return Forecast(rows * row + gathered * finer, seconds, rate, row * stop)


def _gather_seconds(small: StoredRows, fine: StoredRows, name: str, matrix: Array) -> float:
    """Seconds that one candidate takes."""
    wanted = np.linspace(0, fine.rows - 1, min(_GATHERED, fine.rows)).astype(np.int64)[None]
    scorer = scorer_of(fine.forms[name], matrix[:1])
    rescored(small, fine, name, scorer, wanted[:, :1])
    begun = time.monotonic()
    rescored(small, fine, name, scorer, wanted)
    return float((time.monotonic() - begun) / wanted.shape[1])


def _nothing(rows: int) -> None:
    """Progress that nobody hears."""
