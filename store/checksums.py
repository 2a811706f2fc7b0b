"""CRC32C checksums: of bytes, and of a whole from the checksums of its parts. Knows nothing of files.

Parts of a chunk are read and checksummed separately, in any order and by several threads; the chunk's checksum follows from
theirs, because a CRC is linear over GF(2): appending n zero bytes multiplies it by a 32 × 32 matrix of bits (Adler's
`crc32_combine` in zlib is built on the same fact).
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from functools import lru_cache

import crc32c as library

from .layout import Array

_POLYNOMIAL = 0x82F63B78  # Castagnoli's, bits reversed
_UNJOINED = 1024  # parts that are kept before neighbours are joined
_Matrix = tuple[int, ...]  # 32 columns of 32 bits


def crc32c(data: Array | bytes, crc: int = 0) -> int:
    """CRC32C (Castagnoli) of an array's bytes, continuing from `crc`."""
    if isinstance(data, bytes):
        return int(library.crc32c(data, crc))
    return int(library.crc32c(data.reshape(-1).view("uint8").data, crc))


def checksum_bytes(crc: int) -> bytes:
    """The four bytes that the `crc32c` codec appends: little-endian."""
    return struct.pack("<I", crc)


def joined(first: int, second: int, length: int) -> int:
    """CRC32C of A + B from those of A and B; `length` is B's, in bytes."""
    return _times(_zeros(length), first) ^ second


class Pieces:
    """CRC32C of one whole from those of its parts, which come in any order. If parts overlap, the later one counts: the earlier
    is from a read that was given up.
    """

    def __init__(self, length: int) -> None:
        """`length` in bytes."""
        self._length, self._summed = length, 0
        self._parts: dict[int, tuple[int, int]] = {}  # first byte to (bytes, sum), in the order of arrival

    def add(self, first: int, length: int, crc: int) -> int | None:
        """Add a part; returns the whole's checksum once all parts are there. Only then, or after many parts, are they joined."""
        before = self._parts.pop(first, None)
        self._summed += length - (before[0] if before else 0)
        self._parts[first] = (length, crc)
        if self._summed < self._length and len(self._parts) < _UNJOINED:
            return None
        self._join()
        whole = self._parts.get(0)
        return whole[1] if whole and whole[0] == self._length else None

    def _join(self) -> None:
        """Remove what later parts overlap, and merge adjacent parts."""
        apart: list[tuple[int, int, int]] = []
        for first, (length, crc) in reversed(self._parts.items()):
            at = bisect_left(apart, (first,))
            clear_below = not at or apart[at - 1][0] + apart[at - 1][1] <= first
            if clear_below and (at == len(apart) or first + length <= apart[at][0]):
                apart.insert(at, (first, length, crc))
        merged: list[tuple[int, int, int]] = []
        for first, length, crc in apart:
            if merged and merged[-1][0] + merged[-1][1] == first:
                start, before_length, before = merged.pop()
                first, length, crc = start, before_length + length, joined(before, crc, length)
            merged.append((first, length, crc))
        self._parts = {first: (length, crc) for first, length, crc in merged}
        self._summed = sum(length for _, length, _ in merged)


@lru_cache(maxsize=64)
def _zeros(count: int) -> _Matrix:
    """The matrix by which `count` appended zero bytes multiply a CRC: the matrix of one zero byte to the power `count`, by
    repeated squaring.
    """
    power = (_POLYNOMIAL, *(1 << bit for bit in range(31)))  # one zero bit
    for _ in range(3):
        power = _product(power, power)
    result: _Matrix = tuple(1 << bit for bit in range(32))
    while count:
        if count & 1:
            result = _product(power, result)
        power, count = _product(power, power), count >> 1
    return result


def _product(left: _Matrix, right: _Matrix) -> _Matrix:
    return tuple(_times(left, column) for column in right)


def _times(matrix: _Matrix, vector: int) -> int:
    product = 0
    for column in matrix:
        if not vector:
            break
        if vector & 1:
            product ^= column
        vector >>= 1
    return product
