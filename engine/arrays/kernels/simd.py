"""LLVM vector instructions that Numba inlines into the kernels.

A compiler that is given scalar loops finds neither the register blocking of a product nor the byte shuffles of a table
look-up, so the innermost loops are emitted as what they should become, in generic vector types that LLVM lowers for any
processor. Each kernel's own emission stands in its file, beside the loops around it: Numba's cache sees edits of that file
alone, and none of this one (after one, `make clean`). Knows no kernel.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from llvmlite import ir
from numba.core import cgutils

from ....store.layout import Array

I8, I16, I32, F16, F32 = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.HalfType(), ir.FloatType()
ADDRESS = ir.IntType(64)


class VectorPart(NamedTuple):
    """Where a kernel reads or writes."""

    array: Array
    """Whole."""
    at: int
    """The first of its numbers."""
    pitch: int
    """How many numbers on the next line begins."""


def vector(kind: ir.Type, lanes: int) -> ir.VectorType:
    """The type of so many lanes."""
    return ir.VectorType(kind, lanes)


def mask(lanes: Iterable[int]) -> ir.Constant:
    """A shuffle's mask."""
    found = list(lanes)
    return ir.Constant(vector(I32, len(found)), found)


def place(b: ir.IRBuilder, base: ir.Value, *offsets: Any) -> ir.Value:
    """base + Σ offsets; each is a number, a value, or a product (value, number) of bytes."""
    for offset in offsets:
        if isinstance(offset, tuple):
            offset = b.mul(offset[0], ir.Constant(ADDRESS, offset[1]))
        elif isinstance(offset, int):
            offset = ir.Constant(ADDRESS, offset)
        base = b.add(base, offset)
    return base


def load(b: ir.IRBuilder, at: ir.Value, kind: ir.Type, lanes: int) -> ir.Value:
    """A vector from any address."""
    found = b.load(b.inttoptr(at, vector(kind, lanes).as_pointer()))
    found.align = 1
    return found


def store(b: ir.IRBuilder, value: ir.Value, at: ir.Value) -> None:
    """A vector to any address."""
    b.store(value, b.inttoptr(at, value.type.as_pointer())).align = 1


def data(context: Any, b: ir.IRBuilder, kind: Any, array: ir.Value) -> ir.Value:
    """The address of an array's first number."""
    return b.ptrtoint(context.make_array(kind)(context, b, array).data, ADDRESS)


def opened(context: Any, b: ir.IRBuilder, kind: Any, part: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value]:
    """A `VectorPart`'s address of the array's first number, its `at`, and its `pitch`."""
    array, at, pitch = cgutils.unpack_tuple(b, part, 3)
    return data(context, b, kind.types[0], array), at, pitch
