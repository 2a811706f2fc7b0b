"""LLVM vector instructions that Numba inlines into the kernels.

The compiler does not derive register blocking or byte shuffles from scalar loops, so the innermost loops are emitted directly
in generic vector types, which LLVM lowers for any processor. Each kernel's emission code is in the kernel's file, because
Numba's cache detects edits of that file only: after an edit of this file, run `make clean`. Knows no kernel.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, TypeAlias

import llvmlite.binding
from llvmlite import ir
from numba import config, types
from numba.core import cgutils
from numba.core.base import BaseContext

from ....store.layout import Array

I8, I16, I32, F16, F32 = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.HalfType(), ir.FloatType()
ADDRESS = ir.IntType(64)
Offset: TypeAlias = ir.Value | int | tuple[ir.Value, int]
"""Bytes: a number, an IR value, or a product of both."""


class VectorPart(NamedTuple):
    """A strided view of an array that a kernel reads or writes."""

    array: Array
    """The whole array."""
    at: int
    """Index of the first element."""
    pitch: int
    """Elements between the starts of consecutive rows."""


def target_has(feature: str) -> bool:
    """Whether the processor that Numba compiles for (NUMBA_CPU_NAME, or else this one) has an instruction set, by LLVM's name."""
    if config.CPU_NAME:
        return f"+{feature}" in (config.CPU_FEATURES or "").split(",")
    return bool(llvmlite.binding.get_host_cpu_features().get(feature))


def vector(kind: ir.Type, lanes: int) -> ir.VectorType:
    """The vector type of `lanes` elements of `kind`."""
    return ir.VectorType(kind, lanes)


def mask(lanes: Iterable[int]) -> ir.Constant:
    """The constant mask of a vector shuffle."""
    indices = list(lanes)
    return ir.Constant(vector(I32, len(indices)), indices)


def offset_address(b: ir.IRBuilder, base: ir.Value, *offsets: Offset) -> ir.Value:
    """base + Σ offsets."""
    for offset in offsets:
        if isinstance(offset, tuple):
            offset = b.mul(offset[0], ir.Constant(ADDRESS, offset[1]))
        elif isinstance(offset, int):
            offset = ir.Constant(ADDRESS, offset)
        base = b.add(base, offset)
    return base


def load(b: ir.IRBuilder, at: ir.Value, kind: ir.Type, lanes: int) -> ir.Value:
    """Load a vector from an address of any alignment."""
    loaded = b.load(b.inttoptr(at, vector(kind, lanes).as_pointer()))
    loaded.align = 1
    return loaded


def store(b: ir.IRBuilder, value: ir.Value, at: ir.Value) -> None:
    """Store a vector to an address of any alignment."""
    b.store(value, b.inttoptr(at, value.type.as_pointer())).align = 1


def data(context: BaseContext, b: ir.IRBuilder, kind: types.Type, array: ir.Value) -> ir.Value:
    """The address of an array's first element."""
    return b.ptrtoint(context.make_array(kind)(context, b, array).data, ADDRESS)


def unpack_part(context: BaseContext, b: ir.IRBuilder, kind: types.Type, part: ir.Value) -> tuple[ir.Value, ...]:
    """Unpack a `VectorPart`, or another tuple that starts with an array: address of the array's first element, other fields."""
    array, *fields = cgutils.unpack_tuple(b, part, len(kind.types))
    return data(context, b, kind.types[0], array), *fields
