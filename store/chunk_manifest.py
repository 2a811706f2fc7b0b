"""Manifests: the checksums of all chunks of one group in one shard, written once and named by their digest.

A checksum covers the committed rows of a chunk, not what its file holds behind them: rows are never changed, so that a manifest
stays true while the owner goes on to fill its last chunk. Of a full chunk of numbers it is the chunk's own CRC32C. Text is
compressed: a full chunk's checksum is that of its compressed bytes, which its file ends with, and of the last chunk, which is not
full, that of its strings (`text_checksum`). Knows no file.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numcodecs import VLenUTF8

from .checksums import crc32c
from .layout import Array
from .manifest import digest_of

_HEADER = 4  # bytes that say how many strings follow


@dataclass(frozen=True, slots=True)
class ArrayChecksums:
    """Checksums of one array's chunks."""

    rows: int
    """Committed rows; of a ragged column's values, elements."""
    sums: Array
    """(chunks,) uint32, little-endian."""

    def to_json(self) -> dict[str, Any]:
        """JSON values: the checksums in base64, 5.4 bytes a chunk."""
        return {"rows": self.rows, "crc32c": base64.b64encode(self.sums.astype("<u4").tobytes()).decode("ascii")}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ArrayChecksums:
        """Inverse of :meth:`to_json`.

        Raises:
            KeyError, TypeError, ValueError: the values are no checksums.
        """
        return cls(int(values["rows"]), np.frombuffer(base64.b64decode(values["crc32c"], validate=True), "<u4"))


@dataclass(frozen=True, slots=True)
class ChunkManifest:
    """What one group holds in one shard, at one commit."""

    rows: int = 0
    notes: Mapping[str, Any] = field(default_factory=dict)
    """JSON values that whoever resumes the group goes by: where the corpus was left, a digest of the examples so far."""
    arrays: Mapping[str, ArrayChecksums] = field(default_factory=dict)
    """By the array's path below the group's columns: `loss`, `token_ids/values`."""

    @property
    def digest(self) -> str:
        """The manifest's name."""
        return digest_of(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        arrays = {name: checksums.to_json() for name, checksums in self.arrays.items()}
        return {"rows": self.rows, "notes": dict(self.notes), "arrays": arrays}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ChunkManifest:
        """Inverse of :meth:`to_json`.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: the values are no manifest.
        """
        arrays = {name: ArrayChecksums.from_json(checksums) for name, checksums in values["arrays"].items()}
        return cls(int(values["rows"]), dict(values["notes"]), arrays)


def text_checksum(strings: Sequence[str] | Array) -> int:
    """CRC32C of some strings, each behind its length: what a chunk of them decompresses to."""
    encoded = bytes(VLenUTF8().encode(np.array(strings, dtype=object)))
    return crc32c(encoded[_HEADER:])
