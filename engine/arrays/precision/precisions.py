"""The list of precisions, and what each stores of a row: floats, int8 with one scale per row, sign bits.

A precision maps one declared column to the stored columns and encodes and decodes rows. Kernels read reduced precisions
directly, without decoding them first. Knows no file, no kernel and no method.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ....store.errors import DataError, SettingsError, StoreDamaged
from ....store.layout import Array, Column, column
from ....store.store_record import GroupRecord
from . import signs
from .quantize import bf16_words, from_bf16, from_int8, int8_rows
from .rotation import Rotation, rotation

PRECISIONS = ("float32", "float16", "bf16", "int8", "sign")
Parts = Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class Precision(ABC):
    """How the rows of one declared column are stored."""

    declared: Column
    """The column that the method declares: name, row shape and dtype."""

    @property
    def depth(self) -> int:
        """D: number of values in a row."""
        return math.prod(self.declared.shape)

    @property
    def name(self) -> str:
        """Name shown to users and accepted by commands: float16, bf16, int8, sign8192."""
        return self.columns[0].dtype

    @property
    @abstractmethod
    def columns(self) -> tuple[Column, ...]:
        """The stored columns; the first has the declared one's name."""

    @property
    def scanned(self) -> tuple[str, ...]:
        """Names of the stored columns from which scores are computed."""
        return tuple(stored.name for stored in self.columns)

    @abstractmethod
    def encode(self, rows: Array) -> dict[str, Array]:
        """Encode float rows (n, *row shape) into rows of the stored columns.

        Raises:
            DataError: a number is not finite, or too large for the precision.
        """

    def encode_bytes(self, rows: int) -> int:
        """Upper bound of the memory of `encode` for `rows` rows, in bytes, output included."""
        return rows * 12 * self.depth

    @abstractmethod
    def decode(self, parts: Parts) -> Array:
        """Decode stored rows to (n, *row shape) float32.

        Raises:
            SettingsError: the precision cannot be decoded.
        """


@dataclass(frozen=True, slots=True)
class Floats(Precision):
    """Rows as numbers of the declared precision."""

    @property
    def columns(self) -> tuple[Column, ...]:
        """The declared column itself."""
        return (self.declared,)

    def encode(self, rows: Array) -> dict[str, Array]:
        """Round rows to the declared dtype."""
        with np.errstate(over="ignore"):
            stored = rows.astype(self.declared.dtype)
        return {self.declared.name: _finite(stored, stored)}

    def decode(self, parts: Parts) -> Array:
        """Convert the stored values to float32."""
        return parts[self.declared.name].astype(np.float32)


@dataclass(frozen=True, slots=True)
class BFloat16(Precision):
    """Rows as the upper halves of float32 words, stored as uint16."""

    @property
    def name(self) -> str:
        """The name bf16; the stored dtype is uint16."""
        return "bf16"

    @property
    def columns(self) -> tuple[Column, ...]:
        """One uint16 column of bf16 bit patterns."""
        return (column(self.declared.name, self.declared.shape, "uint16"),)

    def encode(self, rows: Array) -> dict[str, Array]:
        """Round to nearest, ties to even."""
        stored = bf16_words(rows)
        return {self.declared.name: _finite(stored, from_bf16(stored))}

    def decode(self, parts: Parts) -> Array:
        """Expand bf16 bit patterns to float32."""
        return from_bf16(parts[self.declared.name])


@dataclass(frozen=True, slots=True)
class Int8(Precision):
    """Rows as int8 with a float32 scale, and an upper bound of the rounding error."""

    @property
    def columns(self) -> tuple[Column, ...]:
        """The integers; `.scale`; `.error`, an upper bound of ‖rotated row − scale · integers‖₂."""
        name = self.declared.name
        return (column(name, self.declared.shape, "int8"), column(f"{name}.scale", (), "float32"),
                column(f"{name}.error", (), "float32"))  # fmt: skip

    @property
    def scanned(self) -> tuple[str, ...]:
        """The integers and scales; scores do not need the error column."""
        return (self.declared.name, f"{self.declared.name}.scale")

    def encode(self, rows: Array) -> dict[str, Array]:
        """See :func:`int8_rows`."""
        _finite(rows, rows)
        stored = int8_rows(rows.reshape(len(rows), -1))
        name = self.declared.name
        return {name: stored[0].reshape(rows.shape), f"{name}.scale": stored[1], f"{name}.error": stored[2]}

    def decode(self, parts: Parts) -> Array:
        """Multiply integers by their scale and undo the rotation."""
        values, scale = parts[self.declared.name], parts[f"{self.declared.name}.scale"]
        return from_int8(values.reshape(len(values), -1), scale).reshape(values.shape)


@dataclass(frozen=True, slots=True)
class Sign(Precision):
    """Rows as the signs of `bits` coordinates of a random rotation, with a float32 scale."""

    bits: int = 8192
    """Sign bits stored per row; a multiple of 128."""
    seed: int = 0
    """Seed of the rotation."""

    @property
    def name(self) -> str:
        """`sign` followed by the number of bits."""
        return f"sign{self.bits}"

    @property
    def columns(self) -> tuple[Column, ...]:
        """Packed signs; `.scale`, the factor that turns a sum over signs into an estimated inner product."""
        name = self.declared.name
        return column(name, (self.bits // 8,), "uint8"), column(f"{name}.scale", (), "float32")

    def encode(self, rows: Array) -> dict[str, Array]:
        """See :func:`signs.sign_rows`."""
        stored, scale = signs.sign_rows(_finite(rows, rows).reshape(len(rows), -1), self.rotation())
        return {self.declared.name: stored, f"{self.declared.name}.scale": scale}

    def encode_bytes(self, rows: int) -> int:
        """Float64 norms, rotated rows and packed signs, in bytes."""
        return rows * (12 * self.depth + 7 * self.bits) + 20 * self.rotation().size

    def rotation(self) -> Rotation:
        """The random rotation applied to rows and queries."""
        return rotation(self.depth, self.bits, self.seed)

    def decode(self, parts: Parts) -> Array:
        """Raise SettingsError: sign bits do not determine the row."""
        raise SettingsError(
            f"column {self.declared.name} is stored as sign bits, which cannot be decoded: "
            f"store the method as float16, bf16 or int8"
        )


def precision_of(precision: str, declared: Column, bits: int = 8192) -> Precision:
    """The precision of a given name; "auto" is the declared dtype. Scalar and integer columns keep their declared dtype.

    Raises:
        SettingsError: unknown precision name, or an invalid number of bits.
    """
    if precision not in ("auto", *PRECISIONS):
        raise SettingsError(f"unknown precision {precision!r}", hint=f"choose from auto, {', '.join(PRECISIONS)}")
    if precision == "sign" and (bits < signs.BITS or bits % signs.BITS or bits > 1 << 20):
        raise SettingsError(
            f"the number of sign bits must be a multiple of {signs.BITS}, at most {1 << 20}; got {bits}"
        )
    if precision == "auto" or not declared.shape or np.dtype(declared.dtype).kind != "f":
        return Floats(declared)
    if precision in ("float32", "float16"):
        return Floats(column(declared.name, declared.shape, precision))
    return {"bf16": BFloat16(declared), "int8": Int8(declared), "sign": Sign(declared, bits)}[precision]


def recorded_precisions(record: GroupRecord) -> dict[str, Precision]:
    """Declared column → its precision, read from a group's record in a store.

    Raises:
        StoreDamaged: the stored columns do not match the recorded precision.
    """
    name = "unknown"
    try:
        name, bits = record.settings.get("precision", "auto"), record.settings.get("bits", 8192)
        if type(bits) is not int:
            raise TypeError(f"bits {bits!r}")
        precisions = {c.name: precision_of(name, c, bits) for c in record.declared}
    except (SettingsError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise StoreDamaged(f"the store's root does not describe the precision of its rows: {error}") from None
    stored = {c.name: (c.shape, c.dtype) for c in record.columns}
    for part in (part for precision in precisions.values() for part in precision.columns):
        if stored.get(part.name) != (part.shape, part.dtype):
            raise StoreDamaged(f"column {part.name} is not stored as the precision {name} requires: "
                               f"{stored.get(part.name)}, not {(part.shape, part.dtype)}")  # fmt: skip
    return precisions


def _finite(stored: Array, values: Array) -> Array:
    if not np.isfinite(values).all():
        raise DataError("a number is not finite, or too large for the precision that it is stored in")
    return stored
