"""Two-stage search: scan a small precision, then score its best candidates again from the finer column.

What is returned are scores of the finer column, to the last bit those of a scan of it; only whether a row came among the
candidates was decided by estimates. How sure that is, is said with the answer. Knows columns, forms and scorers; no method.
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
from ..precision.precisions import Precision, Sign
from .compress import check_column, row_checks
from .scan_loop import OnProgress, Shape
from .scorers import Scorer, query_bytes, scorer_of
from .stored_rows import StoredRows
from .top_k import TopK, top_k

GATHERED = 16 << 20
"""Bytes of finer rows that are held at once."""


@dataclass(frozen=True, slots=True)
class TwoStageResult:
    """The best rows, and how sure it is that they are."""

    best: TopK
    """Scores of the finer column."""
    exact: bool
    """Whether they are provably those of a scan of the finer column."""
    recall: float
    """The share of the finer column's best rows that is expected among them: 1 where exact."""


def two_stage(
    small: StoredRows,
    fine: StoredRows,
    column: str,
    matrix: Array,
    k: int,
    candidates: int,
    shape: Shape,
    on_progress: OnProgress,
) -> TwoStageResult:
    """The k best rows of `candidates` from a scan of the small form, by the finer column's scores.

    Raises:
        StoreDamaged: a chunk of the small form, or a gathered row of the finer column, is not what was written.
    """
    require_alike(small, fine)
    k, count = min(k, fine.rows), min(max(k, candidates), fine.rows)
    rough = top_k(small.scanned(column), scorer_of(small.forms[column], matrix), count, shape, on_progress)
    scores = rescored(small, fine, column, scorer_of(fine.forms[column], matrix), rough.rows)
    best = ranked(scores, rough.rows, k)
    whole = count == fine.rows
    return TwoStageResult(best, whole, 1.0 if whole else expected_recall(rough.scores, scores, best.scores))


def default_candidates(form: Precision, k: int) -> int:
    """How many rows a query's scan hands on where nobody says: `examples/benchmarks/recall.py` has what these find."""
    return max(10 * k, 1000) if isinstance(form, Sign) else max(2 * k, 100)


def search_parts(fine: StoredRows, column: str, queries: int, candidates: int) -> Plan:
    """What scoring candidates again holds: rows as they are gathered, and every candidate's row, estimate and score."""
    row = fine.forms[column].depth * 4 + sum(stored.row_bytes for stored in fine.forms[column].columns)
    return Plan.of(
        Part("finer rows", 2 * max(row, min(GATHERED, queries * candidates * row))),
        Part("decoding of finer rows", sum(reader.scratch_bytes for reader in fine.scanned(column))),
        Part("candidates", 80 * queries * min(candidates, fine.rows)),
        Part("finer queries", query_bytes(fine.forms[column], queries)),
    )


def require_alike(small: StoredRows, fine: StoredRows) -> None:
    """Raise DataError where the form does not cover the rows, StoreDamaged where it is of other rows."""
    for name, form in small.forms.items():
        if name not in fine.forms or fine.forms[name].declared.shape != form.declared.shape:
            raise StoreDamaged(f"{small.group} holds rows of {name} {form.declared.shape}, which {fine.group} does not")
    if small.rows != fine.rows:
        raise DataError(f"{small.group} has {small.rows} of {fine.rows} rows: run headwater compress again")


def ranked(scores: Array, rows: Array, k: int) -> TopK:
    """The k best of each query's candidates (Q, c), best first, ties to the lower row."""
    order = np.lexsort((rows, np.negative(scores)), axis=1)[:, :k]
    return TopK(np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1))


def rescored(small: StoredRows, fine: StoredRows, column: str, scorer: Scorer, rows: Array) -> Array:
    """(Q, c) float32: the finer column's scores of each query's rows (Q, c) int64; -inf where a row is negative.

    Rows are gathered once whatever the number of queries that want them, in ascending order, `GATHERED` bytes at a time.
    """
    scores = np.full(rows.shape, -np.inf, np.float32)
    flat, order = rows.reshape(-1), np.argsort(rows.reshape(-1), kind="stable")
    order = order[np.searchsorted(flat[order], 0) :]
    for block, wanted in _gathered(small, fine, column, flat[order]):
        places = order[wanted]
        row_at = np.searchsorted(block.columns[_ROW], flat[places])
        scores.reshape(-1)[places] = scorer.pairs(block, row_at, places // rows.shape[1])
    return scores


_ROW = ""  # name that no stored column has: the row numbers of a gathered block


def _gathered(small: StoredRows, fine: StoredRows, column: str, wanted: Array) -> Iterator[tuple[Block, slice]]:
    """Blocks of distinct rows, checked one by one, and the part of `wanted` (ascending, with repeats) that each serves."""
    unique, first = np.unique(wanted, return_index=True)
    ends = np.append(first, len(wanted))
    readers = fine.scanned(column)
    (check,) = small.open([check_column(column).name])
    size = max(1, GATHERED // sum(reader.column.row_bytes for reader in readers))
    for start in range(0, len(unique), size):
        rows = unique[start : start + size]
        parts = {reader.column.name: reader.gather(rows) for reader in readers}
        bad = rows[row_checks(parts[column]) != check.gather(rows)]
        if len(bad):
            raise StoreDamaged(f"{readers[0].name} row {bad[0]} differs from its checksum: run headwater verify")
        yield Block(0, {**parts, _ROW: rows}), slice(int(ends[start]), int(ends[start + len(rows)]))


def expected_recall(estimates: Array, scores: Array, best: Array) -> float:
    """The share of the true best k that is expected among candidates chosen by estimates, from what the estimates missed.

    An estimate's error is taken as normal around 0, with the standard deviation of the candidates' errors. A row whose score
    is s is a candidate unless its error falls below the least candidate's estimate minus s: with probability p(s). For every
    row found there were 1/p(s) - 1 that were not. What is told may be far below
    the truth where candidates are few (0.56 told, 0.98 found: `examples/benchmarks/recall.py`), and was above it
    by 0.005 at most.

    estimates, scores (Q, c): of the candidates; best (Q, k).
    """
    shares = []
    for rough, fine, top in zip(estimates.astype(np.float64), scores.astype(np.float64), best, strict=True):
        deviation = float(np.std(rough - fine)) or 1e-30
        found = 0.5 * erfc((rough.min() - top) / (deviation * math.sqrt(2)))
        shares.append(len(top) / float((1 / np.maximum(found, 1e-6)).sum()))
    return float(np.mean(shares)) if shares else 1.0
