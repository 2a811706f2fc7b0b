"""The scan's arithmetic on torch tensors, for a GPU: products in each precision, and a top-k with ties by row number.

Integers are multiplied exactly, so scores of int8 rows and of sign bits equal the CPU's to the last bit; a query of 15 bits is
128 · a + b with a and b in int8. Rows of float16 or bf16 are multiplied with a query that is split into two matrices of the same
dtype, and the products are summed in float32. Runs on any torch device; `gpu_scan.py` calls it. Knows precisions; no file and no
stream.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ....store.errors import DataError
from ....store.layout import Array
from ..precision.precisions import BFloat16, Int8, Precision, Sign
from ..precision.quantize import int8_queries
from ..precision.signs import sign_queries
from .top_k import TopK

MOST_ROWS = 1 << 32
"""Maximum number of rows: a key has 32 bits for the row."""
_STEP = {torch.float16: 2.0**11, torch.bfloat16: 2.0**8}  # relative rounding error is below 1/step
_MULTIPLE, _LEAST = 8, 32  # an int8 product on a GPU needs sizes in multiples of 8, over 16 rows and queries


@dataclass(frozen=True, slots=True)
class Planes:
    """Queries split into matrices of dtypes that a device multiplies."""

    planes: list[torch.Tensor]
    """Each (D, Q'), Q' ≥ Q: queries are Σ plane · factor."""
    factors: list[float]
    """The factor of each plane."""
    scale: torch.Tensor | None
    """(Q,) float32: scales of the queries where rows and queries are integers; else None."""
    queries: int
    """Q, without the padding."""


def query_planes(precision: Precision, matrix: Array, device: torch.device) -> Planes:
    """Split queries (Q, D) float32 for products with rows of a precision."""
    count = len(matrix)
    if isinstance(precision, Int8 | Sign):
        values, scale = (
            sign_queries(matrix, precision.rotation()) if isinstance(precision, Sign) else int8_queries(matrix)
        )
        upper = (values.astype(np.int32) + 64) >> 7
        parts, factors = [upper, values - 128 * upper], [128.0, 1.0]
        if isinstance(precision, Sign):
            parts, factors = [values], [1.0]
        planes = [torch.from_numpy(_padded(part.astype(np.int8))).to(device).T for part in parts]
        return Planes(planes, factors, torch.from_numpy(scale).to(device), count)
    whole = torch.from_numpy(np.array(matrix, np.float32)).to(device)
    dtype = (
        torch.bfloat16 if isinstance(precision, BFloat16) else getattr(torch, precision.declared.dtype, torch.float32)
    )
    if dtype not in _STEP:
        return Planes([whole.T], [1.0], None, count)
    largest = whole.abs().max().clamp(min=1e-30).item()
    upper_half = (whole / largest).to(dtype)
    rest = ((whole / largest - upper_half.float()) * _STEP[dtype]).to(dtype)
    return Planes([upper_half.T, rest.T], [largest, largest / _STEP[dtype]], None, count)


def _padded(values: Array) -> Array:
    """(Q, D) with both a multiple of 8, and Q above 16."""
    count, depth = (-(-size // _MULTIPLE) * _MULTIPLE for size in values.shape)
    out = np.zeros((max(_LEAST, count), depth), values.dtype)
    out[: len(values), : values.shape[1]] = values
    return out


def scores_of(
    precision: Precision, rows: torch.Tensor, row_scale: torch.Tensor | None, queries: Planes
) -> torch.Tensor:
    """Scores (n, Q) float32 of stored rows (n, …) on the device."""
    rows = _unpacked(rows) if isinstance(precision, Sign) else rows.reshape(len(rows), -1)
    if queries.scale is not None:
        short = (0, -rows.shape[1] % _MULTIPLE, 0, max(0, _LEAST - len(rows)))
        wide = torch.nn.functional.pad(rows, short) if any(short) else rows
        sums = sum(torch._int_mm(wide, p) * int(f) for p, f in zip(queries.planes, queries.factors, strict=True))
        assert isinstance(sums, torch.Tensor) and row_scale is not None
        return (sums[: len(rows), : queries.queries].float() * row_scale[:, None]) * queries.scale
    if isinstance(precision, BFloat16):
        rows = rows.view(torch.bfloat16)
    elif rows.dtype not in _STEP:
        rows = rows.float()
    result = torch.zeros(len(rows), queries.queries, device=rows.device)
    for plane, factor in zip(queries.planes, queries.factors, strict=True):
        result += _product(rows, plane) * factor
    return result


def _product(rows: torch.Tensor, plane: torch.Tensor) -> torch.Tensor:
    """rows @ plane, accumulated and returned in float32."""
    if rows.dtype in _STEP and rows.device.type == "cuda":
        return torch.mm(rows, plane, out_dtype=torch.float32)
    return rows.float() @ plane.float()


def _unpacked(bits: torch.Tensor) -> torch.Tensor:
    """(n, bits/8) uint8, lowest bit first → (n, bits) int8 of ±1."""
    shifts = torch.arange(8, dtype=torch.uint8, device=bits.device)
    signs = ((bits[:, :, None] >> shifts) & 1).to(torch.int8)
    return (signs * 2 - 1).reshape(len(bits), -1)


def best_keys(keys: torch.Tensor | None, scores: torch.Tensor, start: int, k: int) -> torch.Tensor:
    """(Q, ≤ k) int64 keys of the best rows so far and of scores (n, Q) of rows from `start`.

    A key's upper 32 bits are the score's, changed so that their order is that of the scores; its lower 32 bits are 2³² − 1 − row.
    Keys are distinct, so the result does not depend on how a device breaks ties.

    Raises:
        DataError: a score is NaN, or a row is beyond 2³².
    """
    if start + len(scores) > MOST_ROWS:
        raise DataError(f"a scan on a device supports at most {MOST_ROWS} rows")
    if torch.isnan(scores).any():
        raise DataError(f"the score of one of the rows {start} to {start + len(scores) - 1} is not a number")
    words = (scores + 0.0).contiguous().view(torch.int32)  # -0 becomes 0
    ascending = (words ^ ((words >> 31) & 0x7FFFFFFF)).to(torch.int64)
    rows = torch.arange(start, start + len(scores), device=scores.device, dtype=torch.int64)
    result = ((ascending << 32) | (MOST_ROWS - 1 - rows)[:, None]).T
    together = result if keys is None else torch.cat([keys, result], 1)
    return torch.topk(together, min(k, together.shape[1]), dim=1).values


def from_keys(keys: torch.Tensor) -> TopK:
    """Decode keys (Q, k) into scores and rows, best first."""
    words = (keys >> 32).to(torch.int32)
    scores = (words ^ ((words >> 31) & 0x7FFFFFFF)).contiguous().view(torch.float32)
    return TopK(scores.cpu().numpy(), (MOST_ROWS - 1 - (keys & (MOST_ROWS - 1))).cpu().numpy())
