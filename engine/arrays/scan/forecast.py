"""Predicts what a search will read and how long it will take, from the speed of its first rows. Knows no method.

Rates are measured: the first `SAMPLE` bytes are scanned with the same kernels and workers as the search, from disk or page
cache; if the search re-scores candidates, a few rows are gathered too.
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
    """Expected cost of a search."""

    bytes: int
    """Read from the store."""
    seconds: float
    """Wall time of the search, after the queries have been prepared."""
    rate: float
    """Bytes per second of the sample scan."""
    sample: int
    """Bytes of the sample scan."""


def forecast(scanned: StoredRows, fine: StoredRows, queries: int, k: int, candidates: int, shape: Shape) -> Forecast:
    """Forecast a scan of `scanned` for `queries` queries, re-scoring `candidates` rows per query from `fine` (0: none)."""
    precision = scanned.widest
    name = precision.declared.name
    columns = scanned.scanned(name)
    row, rows = row_bytes(columns), scanned.rows
    matrix = np.random.default_rng(0).standard_normal((queries, precision.depth)).astype(np.float32)
    scorer, kept = scorer_of(precision, matrix), candidates or k
    stop = min(rows, max(shape.block_rows, SAMPLE // row))
    top_k(columns, scorer, kept, shape, _nothing, stop=min(rows, 2))  # compiles what is not compiled yet
    started = time.monotonic()
    top_k(columns, scorer, kept, shape, _nothing, stop=stop)
    rate = row * stop / max(time.monotonic() - started, 1e-6)
    gathered = min(rows, queries * candidates)
    finer = sum(column.row_bytes for column in fine.precisions[name].columns)
    seconds = rows * row / rate + (gathered * _gather_seconds(scanned, fine, name, matrix) if candidates else 0)
    return Forecast(rows * row + gathered * finer, seconds, rate, row * stop)


def _gather_seconds(small: StoredRows, fine: StoredRows, name: str, matrix: Array) -> float:
    """Seconds to re-score one candidate."""
    sample_rows = np.linspace(0, fine.rows - 1, min(_GATHERED, fine.rows)).astype(np.int64)[None]
    scorer = scorer_of(fine.precisions[name], matrix[:1])
    rescored(small, fine, name, scorer, sample_rows[:, :1])
    started = time.monotonic()
    rescored(small, fine, name, scorer, sample_rows)
    return float((time.monotonic() - started) / sample_rows.shape[1])


def _nothing(rows: int) -> None:
    """Ignore progress."""
