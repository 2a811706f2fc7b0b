"""CRC32C: of bytes, and of a whole from its parts' sums. Knows nothing of files.

Parts of a chunk are read and summed apart, in any order and by several threads; the chunk's own sum follows from theirs,
because a CRC is linear over GF(2): appending n zero bytes multiplies it by a 32 × 32 matrix of bits (Adler's `crc32_combine`
in zlib is built on the same fact).
"""

from __future__ import annotations

import struct
from functools import lru_cache

import crc32c as library

from .layout import Array

_POLYNOMIAL = 0x82F63B78  # Castagnoli's, bits reversed
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


@lru_cache(maxsize=64)
def _zeros(count: int) -> _Matrix:
    """What `count` zero bytes do to a CRC: a power of what one does, by squaring."""
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
    found = 0
    for column in matrix:
        if not vector:
            break
        if vector & 1:
            found ^= column
        vector >>= 1
    return found
