"""Scorers: how a block of stored rows is scored, one for each precision. Knows precisions and kernels; no file and no method."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
from numba import njit

from ....store.errors import DataError, SettingsError
from ....store.layout import Array, Block
from ..kernels import lookup
from ..kernels.packing import PackedQueries, float_kernel_rows, kernel_rows, packed_bytes
from ..kernels.product import multiply, pairs
from ..precision.precisions import BFloat16, Int8, Precision, Sign
from ..precision.quantize import int8_queries
from ..precision.signs import sign_queries
from .fixed_tiles import TILE_ROWS

MAX_TILE_SCORES = 1 << 16
"""Largest number of scores in a tile (256 KB, for the L2 cache), unless a tile of `_MIN_TILE_ROWS` rows has more."""
_MIN_TILE_ROWS, _MAX_TILE_ROWS = 64, 4096


class Scorer(ABC):
    """Scores of rows, each from its own row and query alone."""

    def __init__(self, queries: int) -> None:
        """`queries`: Q, their number."""
        self.queries = queries

    @property
    def parallel(self) -> bool:
        """Whether several threads may score at once."""
        return True

    @property
    def tile_rows(self) -> int:
        """Rows per tile."""
        return tile_rows(self.queries)

    @abstractmethod
    def score(self, block: Block, out: Array) -> None:
        """out[:, :rows] = the scores of the rows of `block`, a tile; out (Q, ≥ rows) float32, C order."""

    def pairs(self, block: Block, row_at: Array, query_at: Array) -> Array:
        """(p,) float32: the scores of the block's rows `row_at` with queries `query_at`, each equal to what `score` gives.

        Raises:
            SettingsError: this scorer has no pairwise scores.
        """
        raise SettingsError("single rows can be scored again only if they are stored as floats or int8")


class CustomScorer(Scorer):
    """A method's own score function of a tile, which returns (rows, Q) float32; called on one thread."""

    def __init__(self, queries: int, function: Callable[[Block], Array]) -> None:
        """The function must not change the tile."""
        super().__init__(queries)
        self._function = function

    @property
    def parallel(self) -> bool:
        """Not parallel: the function may keep state between calls."""
        return False

    @property
    def tile_rows(self) -> int:
        """A small fixed number, because a method's scratch memory grows with the rows of a tile."""
        return TILE_ROWS

    def score(self, block: Block, out: Array) -> None:
        """The function's scores, transposed."""
        out[:, : block.rows] = np.asarray(self._function(block)).T


def tile_rows(queries: int) -> int:
    """Tile rows of a built-in scorer."""
    rows = MAX_TILE_SCORES // max(1, queries) // _MIN_TILE_ROWS * _MIN_TILE_ROWS
    return min(_MAX_TILE_ROWS, max(_MIN_TILE_ROWS, rows))


def scorer_of(precision: Precision, matrix: Array) -> Scorer:
    """The inner-product scorer for a precision and queries (Q, D) float32; for sign bits, scores are estimates.

    Raises:
        DataError: queries are not as wide as the rows, or are not finite. Kernels do not check this.
    """
    require_queries(precision, matrix)
    if isinstance(precision, Int8):
        return _Int8Scorer(precision.declared.name, matrix)
    if isinstance(precision, Sign):
        return _SignScorer(precision, matrix)
    return _FloatScorer(precision, matrix)


def require_queries(precision: Precision, matrix: Array) -> None:
    """Raise DataError unless queries have the rows' width and are finite."""
    if matrix.ndim != 2 or matrix.shape[1] != precision.depth:
        raise DataError(
            f"queries have shape {matrix.shape}, but rows of {precision.declared.name} have {precision.depth} numbers"
        )
    bad = np.flatnonzero(~np.isfinite(matrix).all(1))
    if len(bad):
        raise DataError(f"query {bad[0] + 1} of {len(matrix)} has numbers that are not finite")


def query_bytes(precision: Precision, queries: int) -> int:
    """Memory of a scorer (shared by workers), in bytes, temporaries of its construction included."""
    if isinstance(precision, Sign):
        return lookup.query_bytes(queries, precision.bits) + 16 * precision.rotation().size
    rounding = 26 * queries * precision.depth if isinstance(precision, Int8) else 0
    return packed_bytes(queries, precision.depth) + 4 * queries * precision.depth + rounding


def scratch_bytes(precision: Precision, queries: int, rows: int) -> int:
    """Scratch memory of one worker for `rows` rows, in bytes, scores excluded: integer sums, and copies of rows whose length or
    dtype no kernel supports.
    """
    if isinstance(precision, Sign):
        return 4 * queries * rows + lookup.scratch_bytes(queries, precision.bits)
    if isinstance(precision, Int8):
        return 4 * queries * rows + (rows * (precision.depth + 16) if precision.depth % 16 else 0)
    plain = precision.depth % 8 == 0 and (
        isinstance(precision, BFloat16) or precision.declared.dtype in ("float16", "float32")
    )
    return 0 if plain else 8 * rows * (precision.depth + 8)


class _FloatScorer(Scorer):
    """Scores float or bf16 rows with float32 queries."""

    def __init__(self, precision: Precision, matrix: Array) -> None:
        super().__init__(len(matrix))
        self._name = precision.declared.name
        self._rows = kernel_rows if isinstance(precision, BFloat16) else float_kernel_rows
        row_dtype = self._rows(np.zeros((1, 1), precision.columns[0].dtype)).dtype.name
        self._matrix = np.ascontiguousarray(matrix, np.float32)
        self._packed = PackedQueries(self._matrix, row_dtype)

    def score(self, block: Block, out: Array) -> None:
        multiply(self._rows(block.columns[self._name]), self._packed, out)

    def pairs(self, block: Block, row_at: Array, query_at: Array) -> Array:
        return pairs(self._rows(block.columns[self._name]), self._matrix, row_at, query_at)


class _Int8Scorer(Scorer):
    """Scores int8 rows with int16 queries."""

    def __init__(self, name: str, matrix: Array) -> None:
        super().__init__(len(matrix))
        self._name = name
        self._values, self._scale = int8_queries(matrix)
        self._packed = PackedQueries(self._values, "int8")

    def score(self, block: Block, out: Array) -> None:
        sums = np.empty((self.queries, block.rows), np.int32)
        multiply(kernel_rows(block.columns[self._name]), self._packed, sums)
        _scale(sums, block.columns[f"{self._name}.scale"], self._scale, out)

    def pairs(self, block: Block, row_at: Array, query_at: Array) -> Array:
        sums = pairs(kernel_rows(block.columns[self._name]), self._values, row_at, query_at).astype(np.float32)
        scores: Array = sums * block.columns[f"{self._name}.scale"][row_at] * self._scale[query_at]
        return scores


class _SignScorer(Scorer):
    """Scores sign bits with integer queries."""

    def __init__(self, precision: Sign, matrix: Array) -> None:
        super().__init__(len(matrix))
        self._name = precision.declared.name
        values, self._scale = sign_queries(matrix, precision.rotation())
        self._signs = lookup.SignQueries(values)

    def score(self, block: Block, out: Array) -> None:
        sums = np.empty((self.queries, block.rows), np.int32)
        self._signs.multiply(block.columns[self._name], sums)
        _scale(sums, block.columns[f"{self._name}.scale"], self._scale, out)


def _scale(sums: Array, row_scale: Array, query_scale: Array, out: Array) -> None:
    """out = sums · row_scale · query_scale in float32, rounded in this order; sums and out (Q, ≥ n), scales (n,) and (Q,)."""
    _scaled(sums, np.ascontiguousarray(row_scale), query_scale, out)


@njit(cache=True)
def _scaled(sums: Array, row_scale: Array, query_scale: Array, out: Array) -> None:
    for q in range(len(query_scale)):
        factor = query_scale[q]
        for i in range(len(row_scale)):
            out[q, i] = (np.float32(sums[q, i]) * row_scale[i]) * factor
