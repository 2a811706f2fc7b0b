"""Manifests: the checksums of all chunks of one group in one shard, written once and named by their digest.

A checksum covers the committed rows of a chunk, not the rest of its file. Committed rows never change, so a manifest stays
valid while the owner continues to fill the last chunk. For a full chunk of numbers, the checksum is the CRC32C at the end of the
chunk's file. For a full chunk of text, which is compressed, it is also the one at the end of the file, computed from the
compressed bytes. For an unfinished last chunk of text, it is computed from the strings (`text_checksum`). Knows no file.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numcodecs import VLenUTF8

from .checksums import crc32c
from .layout import Array, Column
from .store_record import digest_of

_HEADER = 4  # bytes at the start of an encoded chunk that hold its number of strings


@dataclass(frozen=True, slots=True)
class ArrayChecksums:
    """Checksums of one array's chunks."""

    rows: int
    """Number of committed rows; for the values of a ragged column, number of committed elements."""
    sums: Array
    """CRC32C of each chunk: (chunks,) uint32."""

    def to_json(self) -> dict[str, Any]:
        """JSON values: the checksums in base64, little-endian, 5.4 bytes per chunk."""
        return {"rows": self.rows, "crc32c": base64.b64encode(self.sums.astype("<u4").tobytes()).decode("ascii")}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ArrayChecksums:
        """Inverse of :meth:`to_json`.

        Raises:
            KeyError, TypeError, ValueError: the values are not checksums.
        """
        return cls(int(values["rows"]), np.frombuffer(base64.b64decode(values["crc32c"], validate=True), "<u4"))


@dataclass(frozen=True, slots=True)
class ChunkManifest:
    """The rows of one group in one shard at one commit, and the checksums of their chunks."""

    rows: int = 0
    notes: Mapping[str, Any] = field(default_factory=dict)
    """JSON values for resuming the group: the place in the corpus, a digest of the examples so far."""
    arrays: Mapping[str, ArrayChecksums] = field(default_factory=dict)
    """Path of an array below the group's columns, such as `loss` or `token_ids/values` → its checksums."""

    @property
    def digest(self) -> str:
        """The manifest's name."""
        return digest_of(self.to_json())

    def sums_of(self, array: str, column: Column, rows: int) -> Array | None:
        """Checksums of the chunks that hold an array's first `rows` rows; None for an array that is not listed.

        If the manifest covers further rows, the checksum of a chunk that also holds some of those is left out.
        """
        known = self.arrays.get(array)
        if known is None:
            return None
        return known.sums if known.rows == rows else known.sums[: rows // column.chunk_rows]

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        arrays = {name: checksums.to_json() for name, checksums in self.arrays.items()}
        return {"rows": self.rows, "notes": dict(self.notes), "arrays": arrays}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ChunkManifest:
        """Inverse of :meth:`to_json`.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: the values are not a manifest.
        """
        arrays = {name: ArrayChecksums.from_json(checksums) for name, checksums in values["arrays"].items()}
        return cls(int(values["rows"]), dict(values["notes"]), arrays)


def text_checksum(strings: Sequence[str] | Array) -> int:
    """CRC32C of some strings, each preceded by its length, as in a decompressed chunk but without the chunk's header."""
    encoded = bytes(VLenUTF8().encode(np.array(strings, dtype=object)))
    return crc32c(encoded[_HEADER:])
