"""Inner products of stored rows with queries in any precision, tile by tile, on one thread. Knows nothing of files, heaps or
methods.

Blocking: a slice of six queries (24 to 48 KB, packed in the order of use) stays in the L1 and L2 caches while the rows of a
tile, which stay in L2, are processed in pairs. With few queries no row is reused, so rows are then read whole, in memory order.

Most processors have no fast library for integer products (without AVX512-VNNI, torch's int8 product runs at 2 GFLOP/s a core);
here int8 rows use `vpmaddwd`, half-precision rows `vcvtph2ps` and fused multiply-adds. A sum's order of additions is fixed by its
length alone, eight lanes folded in halves, and is the same in every variant of the kernel: a score depends on its row and
its query and on nothing else, to the last bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from ....store.errors import DataError
from ....store.layout import Array
from .simd import ADDRESS, F16, F32, I8, I16, I32, VectorPart, load, mask, offset_address, unpack_part, vector

LANES = {"int8": 16, "int16": 8, "uint16": 8, "float32": 8}
"""Row elements per kernel step, by array dtype; int16 holds float16 bit patterns, uint16 holds bf16."""

DEPTH = 1024
"""Row elements that are multiplied before the next row is processed; fixed, because float rounding depends on it."""
_WHOLE_DEPTH = (
    4096  # of integers, whose sums are exact: 103 GMAC/s on two threads, against 92 with 1,024 and 70 with 512
)
_WIDTHS = (6, 4, 2, 1)  # queries that a kernel takes at once


class PackedQueries:
    """Queries packed in the order in which the kernel reads them."""

    def __init__(self, matrix: Array, row_dtype: str) -> None:
        """`matrix` (Q, D): int16 for int8 rows (Σ|q|·127 < 2³¹), else float32. `row_dtype`: a key of `LANES`."""
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


def words(rows: Array) -> Array:
    """Stored rows as kernel input (n, D), C order: float16 as int16 bit patterns; bf16 patterns, int8 and float32 unchanged."""
    rows = rows.reshape(len(rows), -1)
    return rows.view(np.int16) if rows.dtype == np.float16 else rows


def float_words(rows: Array) -> Array:
    """Rows of plain numbers as kernel input: dtypes other than float16 and float32 are converted to float32."""
    return words(rows if rows.dtype in (np.float16, np.float32) else rows.astype(np.float32))


def padded(rows: Array, lanes: int) -> Array:
    """Rows zero-padded to a length that is a multiple of `lanes`; a copy is made only where needed."""
    short = -rows.shape[1] % lanes
    if not short and rows.flags.c_contiguous:
        return rows
    out = np.zeros((len(rows), rows.shape[1] + short), rows.dtype)
    out[:, : rows.shape[1]] = rows
    return out


def multiply(rows: Array, queries: PackedQueries, out: Array) -> None:
    """out[:, :n] = queries · rowsᵀ: rows (n, D) as `words` gives them, out (Q, ≥ n) float32, of int8 rows int32."""
    if rows.shape[1] != queries.depth or out.shape[0] != queries.count or out.shape[1] < len(rows):
        raise DataError(
            f"rows {rows.shape} and {queries.count} queries of {queries.depth} numbers do not match the output shape {out.shape}"
        )
    depth = _WHOLE_DEPTH if rows.dtype == np.int8 else DEPTH
    _multiply(padded(rows, queries.lanes), queries.lanes, queries.data, queries.widths, depth, out)


def products(rows: Array, matrix: Array) -> Array:
    """(n, Q) float32: rows (n, D) times vectors (Q, D), each bit-identical whatever the other rows and vectors are,
    which BLAS does not guarantee.
    """
    queries = PackedQueries(np.ascontiguousarray(matrix, np.float32), float_words(rows).dtype.name)
    out = np.empty((len(matrix), len(rows)), np.float32)
    multiply(float_words(rows), queries, out)
    return out.T


def _row(b: ir.IRBuilder, dtype: str, at: ir.Value) -> ir.Value:
    """Load one step of a row: 16 int16 values, or 8 float32 values."""
    if dtype == "int8":
        return b.sext(load(b, at, I8, 16), vector(I16, 16))
    if dtype == "int16":
        return b.fpext(load(b, at, F16, 8), vector(F32, 8))
    if dtype == "uint16":
        words = b.zext(load(b, at, I16, 8), vector(I32, 8))
        return b.bitcast(b.shl(words, ir.Constant(words.type, [16] * 8)), vector(F32, 8))
    return load(b, at, F32, 8)


def _multiplied(b: ir.IRBuilder, total: ir.Value, row: ir.Value, query: ir.Value) -> ir.Value:
    """total + row · query in each lane; 16-bit products are added in neighbouring pairs of lanes, in 32 bits."""
    if isinstance(total.type.element, ir.FloatType):
        kind = ir.FunctionType(total.type, [total.type] * 3)
        return b.call(cgutils.get_or_insert_function(b.module, kind, "llvm.fma.v8f32"), [row, query, total])
    wide = vector(I32, 16)
    products = b.mul(b.sext(row, wide), b.sext(query, wide))  # with the next two lines, one vpmaddwd
    even, odd = (b.shuffle_vector(products, products, mask(range(start, 16, 2))) for start in (0, 1))
    return b.add(total, b.add(even, odd))


def _folded(b: ir.IRBuilder, total: ir.Value) -> ir.Value:
    """The sum of eight lanes, adding halves."""
    add = b.fadd if isinstance(total.type.element, ir.FloatType) else b.add
    for half in (4, 2, 1):
        low, high = (b.shuffle_vector(total, total, mask(range(at, at + half))) for at in (0, half))
        total = add(low, high)
    return b.extract_element(total, ir.Constant(I32, 0))


@intrinsic(prefer_literal=True)
def dot_block(typing: Any, rows: Any, packed: Any, steps: Any, out: Any, fresh: Any, height: Any, width: Any) -> Any:
    """out[j, i] (+)= Σ_k rows[i, k] · q_j[k] for i < height, j < width, both literal; rows, packed and out are `VectorPart`s.

    rows: int8, int16 (float16's words), uint16 (bf16's) or float32; `packed`: int16 for int8 rows, else float32, `steps` × width
    × LANES numbers; out: int32 or float32. `fresh` overwrites `out` instead of adding to it.

    2 × 6 sums fill twelve of AVX2's sixteen registers, two hold the rows, one what was loaded of a query: each load of a
    query serves two products, each of a row six.
    """
    dtype = str(rows.types[0].dtype)
    lanes, size = LANES[dtype], rows.types[0].dtype.bitwidth // 8
    r, c = height.literal_value, width.literal_value

    def generate(context: Any, b: ir.IRBuilder, signature: Any, values: Any) -> Any:
        (x, at, stride), (q, start, _), (y, to, pitch) = (
            unpack_part(context, b, signature.args[i], values[i]) for i in (0, 1, 3)
        )
        whole, steps, fresh = dtype == "int8", values[2], values[4]
        kind, bytes_ = (I32, 2) if whole else (F32, 4)
        zero = ir.Constant(vector(kind, 8), None)
        sums = [[cgutils.alloca_once_value(b, zero) for _ in range(c)] for _ in range(r)]
        for slot in (slot for line in sums for slot in line):
            b.store(zero, slot)
        starts = [offset_address(b, x, (b.add(at, b.mul(stride, ir.Constant(ADDRESS, i))), size)) for i in range(r)]
        queries_at = offset_address(b, q, (start, bytes_))
        with cgutils.for_range(b, steps, intp=ADDRESS) as loop:
            row = [_row(b, dtype, offset_address(b, start, (loop.index, lanes * size))) for start in starts]
            for j in range(c):
                spot = offset_address(b, queries_at, (loop.index, lanes * bytes_ * c), j * lanes * bytes_)
                query = load(b, spot, I16 if whole else F32, lanes)
                for i in range(r):
                    b.store(_multiplied(b, b.load(sums[i][j]), row[i], query), sums[i][j])
        for i in range(r):
            for j in range(c):
                spot = offset_address(b, y, (b.add(to, b.mul(pitch, ir.Constant(ADDRESS, j))), 4), 4 * i)
                pointer = b.inttoptr(spot, kind.as_pointer())
                before = b.select(fresh, ir.Constant(kind, 0), b.load(pointer))
                total = _folded(b, b.load(sums[i][j]))
                b.store(b.add(before, total) if whole else b.fadd(before, total), pointer)
        return context.get_dummy_value()

    return types.void(rows, packed, types.intp, out, types.boolean, height, width), generate


@njit(cache=True, nogil=True)
def _multiply(x: Array, lanes: int, packed: Array, widths: Array, part: int, out: Array) -> None:
    rows, depth = x.shape
    if len(widths) == 1:
        for i in range(0, rows, 2):
            for k in range(0, depth, part):
                queries = VectorPart(packed, k * widths[0], 0)
                _strip(VectorPart(x, i * depth + k, depth), queries, min(part, depth - k) // lanes,
                       VectorPart(out, i, out.shape[1]), k == 0, i + 1 < rows, widths[0])  # fmt: skip
        return
    for k in range(0, depth, part):
        steps, j = min(part, depth - k) // lanes, 0
        for width in widths:
            queries = VectorPart(packed, j * depth + k * width, 0)
            for i in range(0, rows, 2):
                sums = VectorPart(out, j * out.shape[1] + i, out.shape[1])
                _strip(VectorPart(x, i * depth + k, depth), queries, steps, sums, k == 0, i + 1 < rows, width)
            j += width


@njit(cache=True, nogil=True)
def _strip(
    rows: VectorPart, packed: VectorPart, steps: int, out: VectorPart, fresh: bool, two: bool, width: int
) -> None:
    """Multiply one row, or two, with `width` queries."""
    if two:
        if width == 6:
            dot_block(rows, packed, steps, out, fresh, 2, 6)
        elif width == 4:
            dot_block(rows, packed, steps, out, fresh, 2, 4)
        elif width == 2:
            dot_block(rows, packed, steps, out, fresh, 2, 2)
        else:
            dot_block(rows, packed, steps, out, fresh, 2, 1)
    elif width == 6:
        dot_block(rows, packed, steps, out, fresh, 1, 6)
    elif width == 4:
        dot_block(rows, packed, steps, out, fresh, 1, 4)
    elif width == 2:
        dot_block(rows, packed, steps, out, fresh, 1, 2)
    else:
        dot_block(rows, packed, steps, out, fresh, 1, 1)


def pairs(rows: Array, matrix: Array, row_at: Array, query_at: Array) -> Array:
    """(p,): ⟨rows[row_at], matrix[query_at]⟩, each bit-identical to `multiply`.

    rows (n, D) as `words` gives them; matrix (Q, D) int16 for int8 rows, else float32; row_at, query_at (p,) int64. Sums are
    int32 for int8 rows, else float32.
    """
    if rows.shape[1] != matrix.shape[1]:
        raise DataError(f"rows have {rows.shape[1]} numbers, but queries have {matrix.shape[1]}")
    lanes = LANES[rows.dtype.name]
    out = np.empty((1, len(row_at)), np.int32 if rows.dtype == np.int8 else np.float32)
    _pairs(padded(rows, lanes), lanes, padded(matrix, lanes).reshape(-1), row_at, query_at, out)
    result: Array = out[0]
    return result


@njit(cache=True, nogil=True)
def _pairs(x: Array, lanes: int, queries: Array, row_at: Array, query_at: Array, out: Array) -> None:
    depth = x.shape[1]
    for p in range(len(row_at)):
        for k in range(0, depth, DEPTH):
            steps = min(DEPTH, depth - k) // lanes
            row, query = VectorPart(x, row_at[p] * depth + k, depth), VectorPart(queries, query_at[p] * depth + k, 0)
            dot_block(row, query, steps, VectorPart(out, p, 0), k == 0, 1, 1)
