"""Two-stage search: scan a copy in fewer bits (small), then score its best candidates again from the rows as stored (finer).

Returned scores are bit-identical to those of a scan of the finer column; only the candidates are selected by estimates. The
expected recall is returned with the result. Knows columns, precisions and scorers; no method.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.special import erfc

from ....store.errors import DataError, StoreDamaged
from ....store.layout import Array, Block
from ...runtime.memory import Part, Plan
from ...runtime.run import Stage
from ..precision.precisions import Precision, Sign
from .compress import check_column, row_checks
from .scan_loop import ScanShape
from .scorers import Scorer, query_bytes, scorer_of
from .stored_rows import StoredRows
from .top_k import TopK, top_k

GATHERED = 16 << 20
"""Bytes of the finer column's rows that are in memory at once."""


@dataclass(frozen=True, slots=True)
class CompressedColumn:
    """A column, and a copy of it in fewer bits."""

    small: StoredRows
    """The compressed rows."""
    fine: StoredRows
    """The rows as they were stored."""
    name: str
    """The declared column."""


@dataclass(frozen=True, slots=True)
class SearchDepth:
    """How many rows a search returns and scores again."""

    k: int
    """Rows per query that are returned."""
    candidates: int
    """Rows per query that are scored again from the finer column; 0: none."""


@dataclass(frozen=True, slots=True)
class TwoStageResult:
    """The best rows, and the expected recall."""

    best: TopK
    """Scores of the finer column."""
    exact: bool
    """Whether `best` provably equals the result of a scan of the finer column."""
    recall: float
    """Expected fraction of the finer column's best rows that are in `best`; 1 if exact."""


def two_stage(
    column: CompressedColumn, matrix: Array, depth: SearchDepth, shape: ScanShape, stage: Stage
) -> TwoStageResult:
    """The k best rows, by finer scores, of the candidates: the best rows of a scan of the small precision.

    Raises:
        StoreDamaged: a chunk of the small column, or a gathered row of the finer column, differs from its checksum.
    """
    small, fine, name = column.small, column.fine, column.name
    require_same_rows(small, fine)
    k, count = min(depth.k, fine.rows), min(max(depth.k, depth.candidates), fine.rows)
    rough = top_k(small.scanned(name), scorer_of(small.precisions[name], matrix), count, shape, stage)
    scores = rescored(column, scorer_of(fine.precisions[name], matrix), rough.rows)
    best = ranked(scores, rough.rows, k)
    whole = count == fine.rows
    return TwoStageResult(best, whole, 1.0 if whole else expected_recall(rough.scores, scores, best.scores))


def default_candidates(precision: Precision, k: int) -> int:
    """Default number of candidates per query; `examples/benchmarks/recall.py` measures their recall."""
    return max(10 * k, 1000) if isinstance(precision, Sign) else max(2 * k, 100)


def search_parts(fine: StoredRows, column: str, queries: int, candidates: int) -> Plan:
    """Memory of scoring candidates again: the gathered rows, and each candidate's row number, estimate and score."""
    row = fine.precisions[column].depth * 4 + sum(stored.row_bytes for stored in fine.precisions[column].columns)
    return Plan.of(
        Part("candidates' stored rows", 2 * max(row, min(GATHERED, queries * candidates * row))),
        Part("decoding of candidates' stored rows", sum(reader.scratch_bytes for reader in fine.scanned(column))),
        Part("candidates", 80 * queries * min(candidates, fine.rows)),
        Part("queries for candidates", query_bytes(fine.precisions[column], queries)),
    )


def require_same_rows(small: StoredRows, fine: StoredRows) -> None:
    """Raise DataError if the compressed group has fewer rows, StoreDamaged if it was made from other columns."""
    for name, precision in small.precisions.items():
        if name not in fine.precisions or fine.precisions[name].declared.shape != precision.declared.shape:
            raise StoreDamaged(
                f"{small.group} holds rows of {name} {precision.declared.shape}, which {fine.group} does not"
            )
    if small.rows != fine.rows:
        raise DataError(f"{small.group} has {small.rows} of {fine.rows} rows", hint="run headwater compress again")


def ranked(scores: Array, rows: Array, k: int) -> TopK:
    """The k best of each query's candidates (Q, c), best first; of equal scores the smaller row number first."""
    order = np.lexsort((rows, np.negative(scores)), axis=1)[:, :k]
    return TopK(np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1))


def rescored(column: CompressedColumn, scorer: Scorer, rows: Array) -> Array:
    """(Q, c) float32: the finer column's scores of each query's rows (Q, c) int64; -inf where a row is negative.

    Each row is gathered once, however many queries need it, in ascending order, `GATHERED` bytes at a time.
    """
    scores = np.full(rows.shape, -np.inf, np.float32)
    flat, order = rows.reshape(-1), np.argsort(rows.reshape(-1), kind="stable")
    order = order[np.searchsorted(flat[order], 0) :]
    for block, part in _gathered(column, flat[order]):
        places = order[part]
        row_at = np.searchsorted(block.columns[_ROW], flat[places])
        scores.reshape(-1)[places] = scorer.pairs(block, row_at, places // rows.shape[1])
    return scores


_ROW = ""  # key of a gathered block's row numbers; no stored column has an empty name


def _gathered(column: CompressedColumn, row_numbers: Array) -> Iterator[tuple[Block, slice]]:
    """Blocks of distinct rows, each row's checksum compared, and the part of `row_numbers` (ascending, with repeats) in each."""
    unique, first = np.unique(row_numbers, return_index=True)
    ends = np.append(first, len(row_numbers))
    readers = column.fine.scanned(column.name)
    (check,) = column.small.open([check_column(column.name).name])
    size = max(1, GATHERED // sum(reader.column.row_bytes for reader in readers))
    for start in range(0, len(unique), size):
        rows = unique[start : start + size]
        parts = {reader.column.name: reader.gather(rows) for reader in readers}
        bad = rows[row_checks(parts[column.name]) != check.gather(rows)]
        if len(bad):
            raise StoreDamaged(f"{readers[0].name} row {bad[0]} differs from its checksum", hint="run headwater verify")
        yield Block(0, {**parts, _ROW: rows}), slice(int(ends[start]), int(ends[start + len(rows)]))


def expected_recall(estimates: Array, scores: Array, best: Array) -> float:
    """Expected fraction of the true best k among candidates chosen by estimates, derived from the estimates' errors.

    An estimate's error is assumed to be normal around 0, with the standard deviation of the candidates' errors. A row whose score
    is s is a candidate if s plus its error reaches the smallest estimate of a candidate: with probability p(s). Each
    returned row therefore stands for 1/p(s) - 1 missed rows. With few candidates the expected recall may be far below the
    measured one (0.56 against 0.98: `examples/benchmarks/recall.py`); it was never more than 0.005 above it.

    estimates, scores (Q, c): of the candidates; best (Q, k).
    """
    shares = []
    for rough, fine, top in zip(estimates.astype(np.float64), scores.astype(np.float64), best, strict=True):
        deviation = float(np.std(rough - fine)) or 1e-30
        probability = 0.5 * erfc((rough.min() - top) / (deviation * math.sqrt(2)))
        shares.append(len(top) / float((1 / np.maximum(probability, 1e-6)).sum()))
    return float(np.mean(shares)) if shares else 1.0
