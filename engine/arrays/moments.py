"""Sums over all stored rows: column sums, the Gram matrix, weighted sums of rows. One pass each, in bounded memory.

Rows are decoded to float32 one tile at a time and multiplied by BLAS, on one thread, while another thread reads. Blocks are
processed in order, so a result depends only on the rows and on the sizes of blocks and tiles.
Matrix–vector products need no functions of their own: Φᵀu is a weighted sum, and Φv is `scan.top_k.all_scores` with v as the
query. Knows columns and precisions; no method.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from ...store.blocks import BlockStream
from ...store.columns import ColumnReader
from ...store.errors import DataError
from ...store.layout import Array
from ..runtime.memory import Part, Plan
from ..runtime.run import Stage
from .precision.precisions import Precision
from .scan.scan_loop import ScanShape, blocks_bytes
from .scan.top_k import tiles

TILE = 512
"""Rows per matrix product."""
Weights = Array | Callable[[int, int], Array]
"""(B, N), or a function of a first row and an end that gives (B, rows): use it for masks that do not fit in memory."""


def gram(columns: Sequence[ColumnReader], precision: Precision, shape: ScanShape, stage: Stage) -> Array:
    """ΦᵀΦ: (D, D) float32, symmetric. The Fisher matrix of the rows, times N.

    Sums of tiles are added in float32: an entry's error is at most N / 512 roundings, and typically √(N / 512).
    """
    total = torch.zeros(precision.depth, precision.depth)
    for _, rows in decoded(columns, precision, shape, stage):
        total.addmm_(rows.T, rows)
    result: Array = total.numpy()
    return result


def moments(
    columns: Sequence[ColumnReader], precision: Precision, widths: Sequence[int], shape: ScanShape, stage: Stage
) -> tuple[Array, list[Array]]:
    """The mean row (D,) float32, and (1/N) Σ φ φᵀ of consecutive parts of the rows: (w, w) float32 for each of `widths`.

    Raises:
        DataError: `widths` is not empty and does not sum to the row length.
    """
    if widths and (sum(widths) != precision.depth or min(widths) < 1):
        raise DataError(f"parts of widths {list(widths)} do not add up to the row length {precision.depth}")
    totals = [torch.zeros(width, width) for width in widths]
    sums = torch.zeros(precision.depth, dtype=torch.float64)
    for _, rows in decoded(columns, precision, shape, stage):
        sums += rows.sum(0, dtype=torch.float64)
        for total, part in zip(totals, torch.split(rows, list(widths), 1) if totals else (), strict=True):
            total.addmm_(part.T, part)
    return (sums / columns[0].rows).float().numpy(), [(total / columns[0].rows).numpy() for total in totals]


def second_moment_parts(
    columns: Sequence[ColumnReader], precision: Precision, widths: Sequence[int], shape: ScanShape
) -> Plan:
    """Memory of a pass that computes second moments."""
    return _decoding_parts(columns, precision, shape) + Plan.of(
        Part("second moments", sum(4 * width * width for width in widths))
    )


def column_sums(columns: Sequence[ColumnReader], precision: Precision, shape: ScanShape, stage: Stage) -> Array:
    """Φᵀ1: (D,) float64."""
    total = torch.zeros(precision.depth, dtype=torch.float64)
    for _, rows in decoded(columns, precision, shape, stage):
        total += rows.sum(0, dtype=torch.float64)
    result: Array = total.numpy()
    return result


def weighted_sums(
    columns: Sequence[ColumnReader], precision: Precision, weights: Weights, shape: ScanShape, stage: Stage
) -> Array:
    """WΦ: (B, D) float64, tiles multiplied in float32. With masks as weights these are subset sums; with a single row u, Φᵀu.

    Raises:
        DataError: the weights do not have one column per row, or are not finite.
    """
    count = columns[0].rows
    if not callable(weights) and (weights.ndim != 2 or weights.shape[1] != count):
        raise DataError(f"weights must have shape (B, {count}), one column per row; got {weights.shape}")
    total: torch.Tensor | None = None
    for start, rows in decoded(columns, precision, shape, stage):
        stop = start + len(rows)
        part = np.asarray(weights(start, stop) if callable(weights) else weights[:, start:stop], np.float32)
        if part.ndim != 2 or part.shape[1] != len(rows) or not np.isfinite(part).all():
            raise DataError(f"weights of rows {start} to {stop - 1} must be finite and of shape (B, {len(rows)})")
        product = (torch.from_numpy(np.ascontiguousarray(part)) @ rows).double()
        total = product if total is None else total.add_(product)
    if total is None:
        raise DataError("there are no rows to sum over")
    result: Array = total.numpy()
    return result


def moment_parts(columns: Sequence[ColumnReader], precision: Precision, weights: int, shape: ScanShape) -> Plan:
    """Memory of a pass that sums rows with `weights` rows of weights; 0 stands for a Gram matrix."""
    tile = min(TILE, shape.block_rows)
    sums = 24 * weights * precision.depth + 8 * weights * tile if weights else 4 * precision.depth**2
    return _decoding_parts(columns, precision, shape) + Plan.of(Part("sums", sums))


def _decoding_parts(columns: Sequence[ColumnReader], precision: Precision, shape: ScanShape) -> Plan:
    """Memory of the blocks as they are read, and of a tile of them in float32."""
    return Plan.of(
        Part("blocks in flight", blocks_bytes(columns, shape)),
        Part("decoding", sum(c.scratch_bytes for c in columns)),
        Part("rows in float32", 12 * min(TILE, shape.block_rows) * precision.depth),
    )


def decoded(
    columns: Sequence[ColumnReader], precision: Precision, shape: ScanShape, stage: Stage
) -> Iterator[tuple[int, torch.Tensor]]:
    """Yield (first row, (rows, D) float32) for each tile, in row order."""
    with BlockStream(columns, shape.block_rows, shape.buffers) as stream:
        while (block := stream.take()) is not None:
            for tile in tiles(block, TILE):
                yield tile.start, torch.from_numpy(precision.decode(tile.columns).reshape(tile.rows, -1))
            stage.report(block.start + block.rows)
            stream.give(block)
