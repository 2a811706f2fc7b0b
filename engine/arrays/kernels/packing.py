"""Packs queries and stored rows into the form in which the product kernel reads them. Knows no instruction.

Numba's cache does not notice edits of this file in kernels that use it: after an edit of `LANES`, run `make clean`.
"""

from __future__ import annotations

import numpy as np

from ....store.layout import Array

LANES = {"int8": 16, "int16": 8, "uint16": 8, "float32": 8}
"""Row elements per kernel step, by array dtype; int16 holds bit patterns of float16, uint16 those of bf16."""
_WIDTHS = (6, 4, 2, 1)  # queries that one kernel call multiplies


class PackedQueries:
    """Queries packed in the order in which the kernel reads them: in panels of 6, 4, 2 or 1 queries."""

    def __init__(self, matrix: Array, row_dtype: str) -> None:
        """`matrix` (Q, D): int16 for int8 rows (Σ|q|·127 < 2³¹: sums fit int32), else float32. `row_dtype`: a key of `LANES`."""
        self.count, self.depth = matrix.shape
        self.lanes = LANES[row_dtype]
        self.padded = -(-self.depth // self.lanes) * self.lanes
        widths = _widths(self.count)
        self.widths = np.array(widths, np.int64)
        self.data = np.zeros(self.count * self.padded, matrix.dtype)
        at = 0
        for width in widths:
            panel = np.zeros((width, self.padded), matrix.dtype)
            panel[:, : self.depth] = matrix[at : at + width]
            steps = panel.reshape(width, -1, self.lanes).transpose(1, 0, 2)
            self.data[at * self.padded : (at + width) * self.padded] = steps.reshape(-1)
            at += width

    @property
    def bytes(self) -> int:
        """Size of the packed queries."""
        return int(self.data.nbytes)


def packed_bytes(queries: int, depth: int) -> int:
    """Upper bound of the memory of packed queries, in bytes, temporaries of packing included."""
    return 4 * (queries + 12) * (depth + 16)


def _widths(count: int) -> list[int]:
    widths = []
    for width in _WIDTHS:
        while count >= width:
            widths.append(width)
            count -= width
    return widths


def kernel_rows(rows: Array) -> Array:
    """Stored rows as kernel input (n, D), C order: float16 as int16 bit patterns; bf16 patterns, int8 and float32 unchanged."""
    rows = rows.reshape(len(rows), -1)
    return rows.view(np.int16) if rows.dtype == np.float16 else rows


def float_kernel_rows(rows: Array) -> Array:
    """Rows of plain numbers as kernel input: dtypes other than float16 and float32 are converted to float32."""
    return kernel_rows(rows if rows.dtype in (np.float16, np.float32) else rows.astype(np.float32))


def padded(rows: Array, lanes: int) -> Array:
    """Rows zero-padded to a length that is a multiple of `lanes`; a copy is made only where needed."""
    short = -rows.shape[1] % lanes
    if not short and rows.flags.c_contiguous:
        return rows
    out = np.zeros((len(rows), rows.shape[1] + short), rows.dtype)
    out[:, : rows.shape[1]] = rows
    return out
