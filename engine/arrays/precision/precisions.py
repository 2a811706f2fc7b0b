"""The list of precisions, and what each stores of a row: floats, int8 with one scale per row, sign bits.

A form says which stored columns stand for one declared column, and turns rows into them. Reduced forms are columns that the
kernels read as they are, not codecs that are hidden from them. Knows no file, no kernel and no method.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ....store.errors import DataError, SettingsError, StoreDamaged
from ....store.layout import Array, Column, column
from ....store.manifest import GroupRecord
from . import signs
from .quantize import bf16_words, from_bf16, from_int8, int8_rows
from .rotation import Rotation, rotation

PRECISIONS = ("float32", "float16", "bf16", "int8", "sign")
Parts = Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class Precision(ABC):
    """How the rows of one declared column are stored."""

    declared: Column
    """What the method declares: its name, and the shape and precision of a row."""

    @property
    def depth(self) -> int:
        """D: numbers in a row."""
        return math.prod(self.declared.shape)

    @property
    def name(self) -> str:
        """Its name for people and commands: float16, bf16, int8, sign8192."""
        return self.columns[0].dtype

    @property
    @abstractmethod
    def columns(self) -> tuple[Column, ...]:
        """The stored columns; the first has the declared one's name."""

    @property
    def scanned(self) -> tuple[str, ...]:
        """Names of those that scores are made of."""
        return tuple(stored.name for stored in self.columns)

    @abstractmethod
    def encode(self, rows: Array) -> dict[str, Array]:
        """Rows (n, *row shape), floats → stored columns' rows.

        Raises:
            DataError: a number is not finite, or too large for the form.
        """

    def encode_bytes(self, rows: int) -> int:
        """Memory that `encode` takes for so many rows, what it gives included; at most."""
        return rows * 12 * self.depth

    @abstractmethod
    def decode(self, parts: Parts) -> Array:
        """Stored rows → (n, *row shape) float32.

        Raises:
            SettingsError: the form does not hold them.
        """


@dataclass(frozen=True, slots=True)
class Floats(Precision):
    """Rows as numbers of the declared precision."""

    @property
    def columns(self) -> tuple[Column, ...]:
        """The declared one."""
        return (self.declared,)

    def encode(self, rows: Array) -> dict[str, Array]:
        """Rounded to the precision."""
        with np.errstate(over="ignore"):
            stored = rows.astype(self.declared.dtype)
        return {self.declared.name: _finite(stored, stored)}

    def decode(self, parts: Parts) -> Array:
        """As they are."""
        return parts[self.declared.name].astype(np.float32)


@dataclass(frozen=True, slots=True)
class BFloat16(Precision):
    """Rows as the upper halves of float32 words, stored as uint16."""

    @property
    def name(self) -> str:
        """As promised."""
        return "bf16"

    @property
    def columns(self) -> tuple[Column, ...]:
        """Words."""
        return (column(self.declared.name, self.declared.shape, "uint16"),)

    def encode(self, rows: Array) -> dict[str, Array]:
        """Rounded to nearest."""
        stored = bf16_words(rows)
        return {self.declared.name: _finite(stored, from_bf16(stored))}

    def decode(self, parts: Parts) -> Array:
        """The numbers that the words stand for."""
        return from_bf16(parts[self.declared.name])


@dataclass(frozen=True, slots=True)
class Int8(Precision):
    """Rows as int8 with a float32 scale, and a bound of what the rounding lost."""

    @property
    def columns(self) -> tuple[Column, ...]:
        """The integers; `.scale`; `.error`, ‖turned row − scale · integers‖₂ at most."""
        name = self.declared.name
        return (column(name, self.declared.shape, "int8"), column(f"{name}.scale", (), "float32"),
                column(f"{name}.error", (), "float32"))  # fmt: skip

    @property
    def scanned(self) -> tuple[str, ...]:
        """Without the error."""
        return (self.declared.name, f"{self.declared.name}.scale")

    def encode(self, rows: Array) -> dict[str, Array]:
        """See :func:`int8_rows`."""
        _finite(rows, rows)
        stored = int8_rows(rows.reshape(len(rows), -1))
        name = self.declared.name
        return {name: stored[0].reshape(rows.shape), f"{name}.scale": stored[1], f"{name}.error": stored[2]}

    def decode(self, parts: Parts) -> Array:
        """scale · integers, turned back."""
        values, scale = parts[self.declared.name], parts[f"{self.declared.name}.scale"]
        return from_int8(values.reshape(len(values), -1), scale).reshape(values.shape)


@dataclass(frozen=True, slots=True)
class Sign(Precision):
    """Rows as the signs of `bits` coordinates of a random rotation, with a float32 scale."""

    bits: int = 8192
    """Kept of each row; a multiple of 128."""
    seed: int = 0
    """Of the rotation."""

    @property
    def name(self) -> str:
        """With its bits."""
        return f"sign{self.bits}"

    @property
    def columns(self) -> tuple[Column, ...]:
        """Packed signs; `.scale`, the row's norm with the estimate's factor."""
        name = self.declared.name
        return column(name, (self.bits // 8,), "uint8"), column(f"{name}.scale", (), "float32")

    def encode(self, rows: Array) -> dict[str, Array]:
        """See :func:`signs.sign_rows`."""
        stored, scale = signs.sign_rows(_finite(rows, rows).reshape(len(rows), -1), self.rotation())
        return {self.declared.name: stored, f"{self.declared.name}.scale": scale}

    def encode_bytes(self, rows: int) -> int:
        """Norms in float64, the rotated rows and their signs."""
        return rows * (12 * self.depth + 7 * self.bits) + 20 * self.rotation().size

    def rotation(self) -> Rotation:
        """The rotation of rows and queries."""
        return rotation(self.depth, self.bits, self.seed)

    def decode(self, parts: Parts) -> Array:
        """Never."""
        raise SettingsError(f"rows stored as signs cannot be had back: {self.declared.name} is scored by inner product")


def precision_of(precision: str, declared: Column, bits: int = 8192) -> Precision:
    """The form by its name; "auto" is the declared precision. Rows of a single number, and of integers, stay as declared.

    Raises:
        SettingsError: no such form, or bits that it cannot have.
    """
    if precision not in ("auto", *PRECISIONS):
        raise SettingsError(f"no precision {precision!r}; there are auto, {', '.join(PRECISIONS)}")
    if precision == "sign" and (bits < signs.BITS or bits % signs.BITS or bits > 1 << 20):
        raise SettingsError(f"sign bits come in multiples of {signs.BITS}, up to {1 << 20}; not {bits}")
    if precision == "auto" or not declared.shape or np.dtype(declared.dtype).kind != "f":
        return Floats(declared)
    if precision in ("float32", "float16"):
        return Floats(column(declared.name, declared.shape, precision))
    return {"bf16": BFloat16(declared), "int8": Int8(declared), "sign": Sign(declared, bits)}[precision]


def recorded_precisions(record: GroupRecord) -> dict[str, Precision]:
    """Declared column → its form, as a group's record in a store tells.

    Raises:
        StoreDamaged: the stored columns are not those that the precision means.
    """
    precision = "unknown"
    try:
        precision, bits = record.settings.get("precision", "auto"), record.settings.get("bits", 8192)
        if type(bits) is not int:
            raise TypeError(f"bits {bits!r}")
        forms = {c.name: precision_of(precision, c, bits) for c in record.declared}
    except (SettingsError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise StoreDamaged(f"the store's root describes no form of its rows: {error}") from None
    stored = {c.name: (c.shape, c.dtype) for c in record.columns}
    for part in (part for form in forms.values() for part in form.columns):
        if stored.get(part.name) != (part.shape, part.dtype):
            raise StoreDamaged(f"column {part.name} is not stored as the precision {precision} says: "
                               f"{stored.get(part.name)}, not {(part.shape, part.dtype)}")  # fmt: skip
    return forms


def _finite(stored: Array, values: Array) -> Array:
    if not np.isfinite(values).all():
        raise DataError("a number is not finite, or too large for the precision that it is stored in")
    return stored
