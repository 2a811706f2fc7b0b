"""Predicts what a search will read and how long it will take, from the speed of its first rows. Knows no method.

Rates are measured: the first `SAMPLE` bytes are scanned with the same kernels and workers as the search, from disk or page
cache; if the search re-scores candidates, a few rows are gathered too.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from ....store.layout import Array
from ...runtime.run import SILENT_STAGE
from .scan_loop import ScanShape, row_bytes, scan
from .scorers import scorer_of
from .stored_rows import StoredRows
from .top_k import TopKWorker
from .two_stage import CompressedColumn, SearchDepth, rescored

SAMPLE = 64 << 20
_GATHERED = 64  # rows that are gathered to measure the speed


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


def forecast(scanned: StoredRows, fine: StoredRows, queries: int, depth: SearchDepth, shape: ScanShape) -> Forecast:
    """Forecast a scan of `scanned` for `queries` queries; the candidates (0: none) are scored again from `fine`."""
    precision = scanned.widest
    name = precision.declared.name
    columns = scanned.scanned(name)
    row, rows = row_bytes(columns), scanned.rows
    matrix = np.random.default_rng(0).standard_normal((queries, precision.depth)).astype(np.float32)
    scorer, k = scorer_of(precision, matrix), min(depth.candidates or depth.k, rows)
    stop = min(rows, max(shape.block_rows, SAMPLE // row))
    scan(columns, shape, lambda: TopKWorker(scorer, k), SILENT_STAGE, min(rows, 2))  # compiles what is not compiled yet
    started = time.monotonic()
    scan(columns, shape, lambda: TopKWorker(scorer, k), SILENT_STAGE, stop)
    rate = row * stop / max(time.monotonic() - started, 1e-6)
    gathered = min(rows, queries * depth.candidates)
    finer = sum(column.row_bytes for column in fine.precisions[name].columns)
    copy = CompressedColumn(scanned, fine, name)
    seconds = rows * row / rate + (gathered * _gather_seconds(copy, matrix) if depth.candidates else 0)
    return Forecast(rows * row + gathered * finer, seconds, rate, row * stop)


def _gather_seconds(column: CompressedColumn, matrix: Array) -> float:
    """Seconds to re-score one candidate."""
    rows = column.fine.rows
    sample_rows = np.linspace(0, rows - 1, min(_GATHERED, rows)).astype(np.int64)[None]
    scorer = scorer_of(column.fine.precisions[column.name], matrix[:1])
    rescored(column, scorer, sample_rows[:, :1])
    started = time.monotonic()
    rescored(column, scorer, sample_rows)
    return float((time.monotonic() - started) / sample_rows.shape[1])
