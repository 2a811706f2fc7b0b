"""Inner products of stored rows with queries in any precision, tile by tile, on one thread. Knows nothing of files, heaps or
methods.

Blocking: six queries at a time (24 to 48 KB, packed in the order of use) and the rows of a tile stay in the L1 and L2 caches;
rows are processed two at a time. If all queries fit one kernel call, each row is read only once, from its start
to its end in memory order.

Most processors have no fast library for integer products (without AVX512-VNNI, torch's int8 product runs at 2 GFLOP/s per core);
these kernels use `vpmaddwd` for int8 rows, `vcvtph2ps` and fused multiply-adds for half-precision rows. The order of
additions in a sum depends on the row's length alone: eight partial sums, then halves added to halves. It is the same in every
variant of the kernel, so a score depends on its row and its query and on nothing else, to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.core.base import BaseContext
from numba.core.typing import BaseContext as BaseTypingContext
from numba.core.typing import Signature
from numba.extending import intrinsic

from ....store.errors import DataError
from ....store.layout import Array
from .packing import LANES, PackedQueries, float_kernel_rows, padded
from .simd import (
    ADDRESS,
    F16,
    F32,
    I8,
    I16,
    I32,
    VectorPart,
    load,
    mask,
    offset_address,
    target_has,
    unpack_part,
    vector,
)

DEPTH = 1024
"""Elements of a row that are multiplied before going to the next row. Another number would round float sums differently."""
_WHOLE_DEPTH = 4096  # for int8 rows, whose sums are exact: 103 GMAC/s on two threads (1,024: 92; 512: 70)
Values: TypeAlias = tuple[ir.Value, ...]
Emitter: TypeAlias = Callable[[BaseContext, ir.IRBuilder, Signature, list[ir.Value]], ir.Value]
"""A function that emits a kernel's instructions."""


def multiply(rows: Array, queries: PackedQueries, out: Array) -> None:
    """out[:, :n] = queries · rowsᵀ: rows (n, D) as `kernel_rows` returns them, out (Q, ≥ n) float32, or int32 for int8 rows."""
    if rows.shape[1] != queries.depth or out.shape[0] != queries.count or out.shape[1] < len(rows):
        raise DataError(
            f"rows have shape {rows.shape} and queries ({queries.count}, {queries.depth}): out cannot have shape {out.shape}"
        )
    depth = _WHOLE_DEPTH if rows.dtype == np.int8 else DEPTH
    _multiply(padded(rows, queries.lanes), PackedPanels(queries.data, queries.widths, queries.lanes), depth, out)


def products(rows: Array, matrix: Array) -> Array:
    """(n, Q) float32: rows (n, D) times vectors (Q, D), each bit-identical whatever the other rows and vectors are,
    which BLAS does not guarantee.
    """
    queries = PackedQueries(np.ascontiguousarray(matrix, np.float32), float_kernel_rows(rows).dtype.name)
    out = np.empty((len(matrix), len(rows)), np.float32)
    multiply(float_kernel_rows(rows), queries, out)
    return out.T


def _row(b: ir.IRBuilder, dtype: str, at: ir.Value) -> ir.Value:
    """Load one step of a row: 16 int16 values, or 8 float32 values."""
    if dtype == "int8":
        return b.sext(load(b, at, I8, 16), vector(I16, 16))
    if dtype == "int16":
        return (
            b.fpext(load(b, at, F16, 8), vector(F32, 8)) if target_has("f16c") else _half_words(b, load(b, at, I16, 8))
        )
    if dtype == "uint16":
        words = b.zext(load(b, at, I16, 8), vector(I32, 8))
        return b.bitcast(b.shl(words, ir.Constant(words.type, [16] * 8)), vector(F32, 8))
    return load(b, at, F32, 8)


def _half_words(b: ir.IRBuilder, words: ir.Value) -> ir.Value:
    """Eight words of float16 as float32, by integer operations and one exact product: for processors without F16C.

    The exponent and mantissa bits, shifted to their places in a float32, are the number divided by 2¹¹²; so it is multiplied by
    2¹¹². Infinities and NaNs get float32's largest exponent instead.
    """
    wide = b.zext(words, vector(I32, 8))

    def constant(value: int) -> ir.Constant:
        return ir.Constant(wide.type, [value] * 8)

    magnitude = b.shl(b.and_(wide, constant(0x7FFF)), constant(13))
    scale = ir.Constant(vector(F32, 8), [2.0**112] * 8)
    scaled = b.bitcast(b.fmul(b.bitcast(magnitude, vector(F32, 8)), scale), wide.type)
    special = b.icmp_unsigned(">=", magnitude, constant(0x7C00 << 13))
    finite_or_special = b.select(special, b.or_(magnitude, constant(0x7F800000)), scaled)
    sign = b.shl(b.and_(wide, constant(0x8000)), constant(16))
    return b.bitcast(b.or_(finite_or_special, sign), vector(F32, 8))


def _multiplied(b: ir.IRBuilder, total: ir.Value, row: ir.Value, query: ir.Value) -> ir.Value:
    """total + row · query in each lane; 16-bit products are added in neighbouring pairs of lanes, in 32 bits."""
    if isinstance(total.type.element, ir.FloatType):
        kind = ir.FunctionType(total.type, [total.type] * 3)
        return b.call(cgutils.get_or_insert_function(b.module, kind, "llvm.fma.v8f32"), [row, query, total])
    wide = vector(I32, 16)
    products = b.mul(b.sext(row, wide), b.sext(query, wide))  # LLVM makes one vpmaddwd of this and the next two lines
    even, odd = (b.shuffle_vector(products, products, mask(range(start, 16, 2))) for start in (0, 1))
    return b.add(total, b.add(even, odd))


def _folded(b: ir.IRBuilder, total: ir.Value) -> ir.Value:
    """The sum of eight lanes: one half is added to the other until one number is left."""
    add = b.fadd if isinstance(total.type.element, ir.FloatType) else b.add
    for half in (4, 2, 1):
        low, high = (b.shuffle_vector(total, total, mask(range(at, at + half))) for at in (0, half))
        total = add(low, high)
    return b.extract_element(total, ir.Constant(I32, 0))


class QueryPanel(NamedTuple):
    """A panel of packed queries that a kernel reads."""

    array: Array
    """All packed queries."""
    at: int
    """Index of the panel's first element."""
    steps: int
    """Kernel steps in the panel."""


class SumPart(NamedTuple):
    """The sums that a kernel writes."""

    array: Array
    """All sums."""
    at: int
    """Index of the first element."""
    pitch: int
    """Elements between the starts of consecutive rows."""
    overwrite: bool
    """Whether sums are overwritten instead of added to."""


@intrinsic(prefer_literal=True)
def dot_block(
    typing: BaseTypingContext, rows: types.Type, packed: types.Type, sums: types.Type, size: types.Type
) -> tuple[Signature, Emitter]:
    """sums[j, i] (+)= Σ_k rows[i, k] · q_j[k] for i < height, j < width; `size` is the literal pair (height, width).

    rows: a `VectorPart` of int8, int16 (bits of float16), uint16 (bits of bf16) or float32; packed: a `QueryPanel` of int16 for
    int8 rows, else float32, steps × width × LANES numbers; sums: a `SumPart` of int32 or float32.

    2 × 6 sums fill twelve of AVX2's sixteen registers, two hold the rows, one holds the current part of a query: each load of a
    query serves two products, each load of a row six.
    """
    dtype = str(rows.types[0].dtype)
    height, width = (length.literal_value for length in size.types)

    def generate(context: BaseContext, b: ir.IRBuilder, signature: Signature, values: list[ir.Value]) -> ir.Value:
        row_part, query_part, sum_part = (unpack_part(context, b, signature.args[i], values[i]) for i in range(3))
        kind = I32 if dtype == "int8" else F32
        zero = ir.Constant(vector(kind, 8), None)
        totals = [[cgutils.alloca_once_value(b, zero) for _ in range(width)] for _ in range(height)]
        for slot in (slot for line in totals for slot in line):
            b.store(zero, slot)
        _emit_products(b, dtype, row_part, query_part, totals)
        _emit_sums(b, kind, sum_part, totals)
        return context.get_dummy_value()

    return types.void(rows, packed, sums, size), generate


def _emit_products(
    b: ir.IRBuilder, dtype: str, row_part: Values, query_part: Values, totals: Sequence[Sequence[ir.Value]]
) -> None:
    """The loop over a panel's steps: every row's lanes times every query's, added to `totals` (height, width)."""
    (x, at, stride), (q, start, steps) = row_part, query_part
    lanes, size, width = LANES[dtype], np.dtype(dtype).itemsize, len(totals[0])
    query_kind, query_size = (I16, 2) if dtype == "int8" else (F32, 4)
    starts = [
        offset_address(b, x, (b.add(at, b.mul(stride, ir.Constant(ADDRESS, i))), size)) for i in range(len(totals))
    ]
    queries_at = offset_address(b, q, (start, query_size))
    with cgutils.for_range(b, steps, intp=ADDRESS) as loop:
        loaded = [_row(b, dtype, offset_address(b, start, (loop.index, lanes * size))) for start in starts]
        for j in range(width):
            spot = offset_address(b, queries_at, (loop.index, lanes * query_size * width), j * lanes * query_size)
            query = load(b, spot, query_kind, lanes)
            for line, row in zip(totals, loaded, strict=True):
                b.store(_multiplied(b, b.load(line[j]), row, query), line[j])


def _emit_sums(b: ir.IRBuilder, kind: ir.Type, sum_part: Values, totals: Sequence[Sequence[ir.Value]]) -> None:
    """Add up the lanes of each total; replace its sum in memory by the result, or add the result to it."""
    y, to, pitch, overwrite = sum_part
    for i, line in enumerate(totals):
        for j, slot in enumerate(line):
            spot = offset_address(b, y, (b.add(to, b.mul(pitch, ir.Constant(ADDRESS, j))), 4), 4 * i)
            pointer = b.inttoptr(spot, kind.as_pointer())
            before = b.select(overwrite, ir.Constant(kind, 0), b.load(pointer))
            total = _folded(b, b.load(slot))
            b.store(b.add(before, total) if kind is I32 else b.fadd(before, total), pointer)


class PackedPanels(NamedTuple):
    """Packed queries as the compiled loop reads them."""

    data: Array
    """The panels, one after the other."""
    widths: Array
    """(panels,) int64: number of queries in each panel."""
    lanes: int
    """Elements per kernel step."""


@njit(cache=True, nogil=True)
def _multiply(x: Array, packed: PackedPanels, part: int, out: Array) -> None:
    rows, depth = x.shape
    lanes, widths = packed.lanes, packed.widths
    if len(widths) == 1:
        for i in range(0, rows, 2):
            for k in range(0, depth, part):
                queries = QueryPanel(packed.data, k * widths[0], min(part, depth - k) // lanes)
                sums = SumPart(out, i, out.shape[1], k == 0)
                _multiply_panel(VectorPart(x, i * depth + k, depth), queries, sums, i + 1 < rows, widths[0])
        return
    for k in range(0, depth, part):
        steps, j = min(part, depth - k) // lanes, 0
        for width in widths:
            queries = QueryPanel(packed.data, j * depth + k * width, steps)
            for i in range(0, rows, 2):
                sums = SumPart(out, j * out.shape[1] + i, out.shape[1], k == 0)
                _multiply_panel(VectorPart(x, i * depth + k, depth), queries, sums, i + 1 < rows, width)
            j += width


@njit(cache=True, nogil=True)
def _multiply_panel(rows: VectorPart, packed: QueryPanel, sums: SumPart, two: bool, width: int) -> None:
    """Multiply one row, or two, with `width` queries."""
    if two:
        if width == 6:
            dot_block(rows, packed, sums, (2, 6))
        elif width == 4:
            dot_block(rows, packed, sums, (2, 4))
        elif width == 2:
            dot_block(rows, packed, sums, (2, 2))
        else:
            dot_block(rows, packed, sums, (2, 1))
    elif width == 6:
        dot_block(rows, packed, sums, (1, 6))
    elif width == 4:
        dot_block(rows, packed, sums, (1, 4))
    elif width == 2:
        dot_block(rows, packed, sums, (1, 2))
    else:
        dot_block(rows, packed, sums, (1, 1))


def pairs(rows: Array, matrix: Array, row_at: Array, query_at: Array) -> Array:
    """(p,): ⟨rows[row_at], matrix[query_at]⟩, each bit-identical to `multiply`.

    rows (n, D) as `kernel_rows` returns them; matrix (Q, D) int16 for int8 rows, else float32; row_at, query_at (p,) int64. Sums
    are int32 for int8 rows, else float32.
    """
    if rows.shape[1] != matrix.shape[1]:
        raise DataError(f"rows have {rows.shape[1]} numbers, but queries have {matrix.shape[1]}")
    lanes = LANES[rows.dtype.name]
    out = np.empty((1, len(row_at)), np.int32 if rows.dtype == np.int8 else np.float32)
    _pairs(padded(rows, lanes), PairQueries(padded(matrix, lanes).reshape(-1), lanes), row_at, query_at, out)
    result: Array = out[0]
    return result


class PairQueries(NamedTuple):
    """Queries that are multiplied with single rows."""

    data: Array
    """The queries, one after the other, each padded to whole kernel steps."""
    lanes: int
    """Elements per kernel step."""


@njit(cache=True, nogil=True)
def _pairs(x: Array, queries: PairQueries, row_at: Array, query_at: Array, out: Array) -> None:
    depth = x.shape[1]
    for p in range(len(row_at)):
        for k in range(0, depth, DEPTH):
            steps = min(DEPTH, depth - k) // queries.lanes
            row = VectorPart(x, row_at[p] * depth + k, depth)
            query = QueryPanel(queries.data, query_at[p] * depth + k, steps)
            dot_block(row, query, SumPart(out, p, 0, k == 0), (1, 1))
