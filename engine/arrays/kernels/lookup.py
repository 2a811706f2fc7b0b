"""Inner products of integer queries with sign bits, by table look-up. Knows nothing of columns.

Four sign bits choose one of sixteen sums of a query's four numbers; a byte shuffle looks up 32 rows' sums at once. Measured on
one core with AVX2 (`examples/benchmarks/sign_kernels.py`), in 10⁹ (bit · query) per second for 64 and 1,000 queries: tables 229
and 256; popcounts of four bit planes of the query 68 and 55; signs unpacked to ±1 bytes for the int8 product 38 and 50. For
a single query bit planes are the fastest (45 against 31), limited by memory bandwidth.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.core.base import BaseContext
from numba.core.typing import BaseContext as BaseTypingContext
from numba.core.typing import Signature
from numba.extending import intrinsic

from ....store.layout import Array
from .packing import PackedQueries
from .product import Emitter, Values, multiply
from .simd import ADDRESS, I8, I16, VectorPart, data, load, mask, offset_address, store, target_has, unpack_part, vector

TILE = 256
"""Rows per pass over the queries' tables."""
_COLUMNS = 1024  # nibbles (256 steps of four) that are summed in 16 bits before the sums are added to 32-bit ones
_GROUPS = 2  # of 32 rows, per call of the kernel


class SignQueries:
    """Queries as look-up tables, or as packed integers if the processor has no byte shuffle; the sums are the same."""

    def __init__(self, matrix: Array, *, tables: bool | None = None) -> None:
        """`matrix` (Q, bits) int16; the magnitudes of any four neighbours sum to at most 63. `tables`: whether to use look-up
        tables; None: if the processor supports them.
        """
        self.count, self.bits = matrix.shape
        self._packed: PackedQueries | None = None
        if has_byte_shuffle() if tables is None else tables:
            self._tables, offset = _tables(matrix)
            self._shift = np.int32(2) * offset + matrix.sum(1, dtype=np.int32)
        else:
            self._packed = PackedQueries(matrix, "int8")

    def _unpacked(self, signs: Array, start: int, out: Array) -> None:
        assert self._packed is not None
        plus_minus = np.unpackbits(signs, axis=1, bitorder="little").view(np.int8) * np.int8(2) - np.int8(1)
        part = np.empty((self.count, len(signs)), np.int32)
        multiply(plus_minus, self._packed, part)
        out[:, start : start + len(signs)] = part

    def multiply(self, signs: Array, out: Array) -> None:
        """out[:, :n] = Σ_i ±q_i, int32; signs (n, bits/8) uint8, out (Q, ≥ n)."""
        if self._packed is not None:
            for start in range(0, len(signs), _UNPACKED_ROWS):
                self._unpacked(signs[start : start + _UNPACKED_ROWS], start, out)
            return
        columns = self.bits // 4
        nibbles, part = np.empty((TILE // 32, columns, 32), np.uint8), np.empty((2, 2, 2, 16), np.uint16)
        for start in range(0, len(signs), TILE):
            tile = signs[start : start + TILE]
            if len(tile) % 64:
                tile = np.concatenate([tile, np.zeros((-len(tile) % 64, tile.shape[1]), np.uint8)])
            looked_up = np.empty((self.count, len(tile)), np.int32)
            _look_up_tile(np.ascontiguousarray(tile), self._tables, nibbles, part, looked_up)
            count = min(TILE, len(signs) - start)
            _signed(looked_up, count, self._shift, start, out)


_UNPACKED_ROWS = 64  # rows that are unpacked per step


def query_bytes(queries: int, bits: int) -> int:
    """Upper bound of the memory of `SignQueries`, in bytes, temporaries of their construction included."""
    return queries * (4 * bits + 40 * bits) + 64 * bits


def scratch_bytes(queries: int, bits: int) -> int:
    """Scratch memory of one `multiply`, in bytes."""
    return TILE * (bits // 4 + bits + 4 * queries)


def _tables(matrix: Array) -> tuple[Array, Array]:
    """(Q, bits) int16 → uint8 (Q, bits/4, 16): sums of the values that a nibble selects, shifted to ≥ 0; and (Q,) shifts."""
    fours = matrix.reshape(len(matrix), -1, 4)
    bits = (np.arange(16)[:, None] >> np.arange(4)) & 1  # (16, 4)
    offset = -np.minimum(fours, 0).sum(2)  # (Q, bits/4)
    tables = np.empty((*offset.shape, 16), np.uint8)
    for nibble in range(16):
        tables[:, :, nibble] = (fours * bits[nibble]).sum(2) + offset
    return tables, offset.sum(1, dtype=np.int32)


def has_byte_shuffle() -> bool:
    """Whether table look-ups can be compiled: AVX2's shuffle of bytes, sixteen-entry tables looked up 32 at a time."""
    return target_has("avx2")


class TablePart(NamedTuple):
    """The tables of consecutive columns, of one query or two."""

    array: Array
    """All tables."""
    at: int
    """Index of the first entry."""
    pitch: int
    """Entries between the starts of consecutive queries."""
    steps: int
    """Steps of four columns."""


@intrinsic(prefer_literal=True)
def look_up(
    typing: BaseTypingContext, x: types.Type, tables: types.Type, out: types.Type, queries: types.Type
) -> tuple[Signature, Emitter]:
    """out[c, g, h, l] = Σ over 4·steps columns of table[c][column][x[g][column][2l + h]]: sums of looked-up bytes, in 16 bits.

    x: a `VectorPart` of uint8 nibbles, two groups of 32 rows × columns, a group every `pitch`; tables: a `TablePart` of uint8
    ≤ 63, sixteen per column; queries: literally 1 or 2; out: uint16 (queries, groups, 2, 16), even rows before odd ones.

    Four look-ups are added in bytes (4 · 63 < 256), and 256 such steps in 16 bits. Both halves of a pair of bytes are summed
    together as one 16-bit number, and the upper half again alone: the lower half's sum is the difference.
    """
    pairs = [(g, c) for g in range(_GROUPS) for c in range(queries.literal_value)]

    def generate(context: BaseContext, b: ir.IRBuilder, signature: Signature, values: list[ir.Value]) -> ir.Value:
        rows, (tables_at, start, stride, steps) = (
            unpack_part(context, b, signature.args[i], values[i]) for i in (0, 1)
        )
        zero, eight = ir.Constant(vector(I16, 16), None), ir.Constant(vector(I16, 16), [8] * 16)
        both, upper = ({pair: cgutils.alloca_once_value(b, zero) for pair in pairs} for _ in range(2))
        for slot in (*both.values(), *upper.values()):
            b.store(zero, slot)
        with cgutils.for_range(b, steps, intp=ADDRESS) as loop:
            total = _emit_step(b, loop.index, rows, (tables_at, start, stride), pairs)
            for pair in pairs:
                pair_sums = b.bitcast(total[pair], vector(I16, 16))
                b.store(b.add(b.load(both[pair]), pair_sums), both[pair])
                b.store(b.add(b.load(upper[pair]), b.lshr(pair_sums, eight)), upper[pair])
        out_at = data(context, b, signature.args[2], values[2])
        for g, c in pairs:
            odd = b.load(upper[g, c])
            even = b.sub(b.load(both[g, c]), b.shl(odd, eight))
            for half, value in enumerate((even, odd)):
                store(b, value, offset_address(b, out_at, 64 * (c * _GROUPS + g) + 32 * half))
        return context.get_dummy_value()

    return types.void(x, tables, out, queries), generate


def _emit_step(
    b: ir.IRBuilder, step: ir.Value, rows: Values, tables: Values, pairs: Sequence[tuple[int, int]]
) -> dict[tuple[int, int], ir.Value]:
    """(group, query) → 32 bytes: the sums of four columns' looked-up entries."""
    (x, at, pitch), (tables_at, start, stride) = rows, tables
    bytes_, total = vector(I8, 32), dict[tuple[int, int], ir.Value]()
    kind = ir.FunctionType(bytes_, [bytes_, bytes_])
    shuffle = cgutils.get_or_insert_function(b.module, kind, "llvm.x86.avx2.pshuf.b")
    for column in range(4):
        nibbles = [
            load(b, offset_address(b, x, at, (pitch, g), (step, 128), 32 * column), I8, 32) for g in range(_GROUPS)
        ]
        for c in sorted({c for _, c in pairs}):
            spot = offset_address(b, tables_at, start, (stride, c), (step, 64), 16 * column)
            table = load(b, spot, I8, 16)
            table = b.shuffle_vector(table, table, mask([*range(16), *range(16)]))
            for g in range(_GROUPS):
                looked_up = b.call(shuffle, [table, nibbles[g]])
                total[g, c] = b.add(total[g, c], looked_up) if column else looked_up
    return total


@intrinsic
def spread(typing: BaseTypingContext, rows: types.Type, out: types.Type, to: types.Type) -> tuple[Signature, Emitter]:
    """32 rows × 16 bytes of a `VectorPart` → out[to:], 32 columns of nibbles × 32 rows, low ones first.

    Two transpositions of 16 × 16 bytes by interleaving, in registers.
    """

    def generate(context: BaseContext, b: ir.IRBuilder, signature: Signature, values: list[ir.Value]) -> ir.Value:
        x, at, stride = unpack_part(context, b, signature.args[0], values[0])
        out_at, to = data(context, b, signature.args[1], values[1]), values[2]
        halves = []
        for half in (0, 16):
            lines = [load(b, offset_address(b, x, at, (stride, half + i)), I8, 16) for i in range(16)]
            for _ in range(4):
                lines = [
                    b.shuffle_vector(lines[i], lines[i + 8], mask(k for j in range(at, at + 8) for k in (j, 16 + j)))
                    for i in range(8)
                    for at in (0, 8)
                ]
            halves.append(lines)
        bytes_ = vector(I8, 32)
        low, four = ir.Constant(bytes_, [15] * 32), ir.Constant(bytes_, [4] * 32)
        for i in range(16):
            column = b.shuffle_vector(halves[0][i], halves[1][i], mask(range(32)))
            store(b, b.and_(column, low), offset_address(b, out_at, to, 64 * i))
            store(b, b.lshr(column, four), offset_address(b, out_at, to, 64 * i + 32))
        return context.get_dummy_value()

    return types.void(rows, out, types.intp), generate


@njit(cache=True, nogil=True)
def _look_up_tile(signs: Array, tables: Array, nibbles: Array, part: Array, out: Array) -> None:
    """Sums of table entries, int32 (Q, n), of n rows, a multiple of 64: each two groups of 32 rows with two queries."""
    rows, width = signs.shape
    queries, columns = tables.shape[0], tables.shape[1]
    for group in range(rows // 32):
        for byte in range(0, width, 16):
            lines = VectorPart(signs, 32 * group * width + byte, width)
            spread(lines, nibbles, (group * columns + 2 * byte) * 32)
    for start in range(0, columns, _COLUMNS):
        steps = min(_COLUMNS, columns - start) // 4
        for q in range(0, queries, 2):
            table = TablePart(tables, (q * columns + start) * 16, columns * 16, steps)
            for group in range(0, rows // 32, 2):
                rows_at = VectorPart(nibbles, (group * columns + start) * 32, columns * 32)
                if q + 1 < queries:
                    look_up(rows_at, table, part, 2)
                else:
                    look_up(rows_at, table, part, 1)
                _carry(part, 32 * group, start == 0, out[q : q + 2])


@njit(cache=True, nogil=True)
def _carry(part: Array, row: int, fresh: bool, out: Array) -> None:
    """Add 16-bit sums (query, group, even or odd, pair) to 32-bit ones (queries, rows)."""
    for c in range(len(out)):
        for g in range(2):
            for half in range(2):
                for pair in range(16):
                    at = row + 32 * g + 2 * pair + half
                    value = np.int32(part[c, g, half, pair])
                    out[c, at] = value if fresh else out[c, at] + value


@njit(cache=True, nogil=True)
def _signed(sums: Array, count: int, shift: Array, start: int, out: Array) -> None:
    """Convert sums over set bits, shifted by the tables' offset, to signed sums over all bits (+ if set, − if not)."""
    for q in range(sums.shape[0]):
        for i in range(count):
            out[q, start + i] = np.int32(2) * sums[q, i] - shift[q]
