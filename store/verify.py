"""Whether a store is whole: every chunk there, of its size, equal to its checksum. Knows nothing of what rows mean."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .errors import StoreDamaged
from .feature_store import FeatureStore
from .files import checksum_bytes, crc32c
from .layout import CHECKSUM_BYTES, is_plain
from .reader import ColumnReader, ZarrColumn, open_column


@dataclass(frozen=True, slots=True)
class Damage:
    """One chunk that is not what was written."""

    column: str
    """The array's path below the root."""
    chunk: int
    """The chunk's number."""
    first: int
    """First row that it holds."""
    last: int
    """Last row that it holds."""
    why: str
    """What is wrong, in words."""

    def __str__(self) -> str:
        return f"{self.column} chunk {self.chunk} (rows {self.first} to {self.last}) {self.why}"


def chunk_count(store: FeatureStore) -> int:
    """Number of chunks that hold committed rows."""
    return sum(-(-store.rows(group) // column.chunk_rows) for group in store.groups for column in store.columns(group))


def verify(store: FeatureStore) -> Iterator[Damage | None]:
    """Check every chunk that holds committed rows; yields one item a chunk, `None` where it is whole."""
    for group in store.groups:
        for declared in store.columns(group):
            column = open_column(store, group, declared.name)
            has_files = not store.remote and is_own(store, group, declared.name)
            for chunk in range(-(-column.rows // column.column.chunk_rows)):
                why = _file_fault(store, column, chunk) if has_files else _decode_fault(column, chunk)
                first, end = column.column.rows_of(chunk, column.rows)
                yield Damage(column.name, chunk, first, end - 1, why) if why else None


def is_own(store: FeatureStore, group: str, name: str) -> bool:
    """Whether a column's chunk files end in the checksum that headwater writes."""
    metadata = store.array_metadata(group, name)
    return is_plain(metadata) or metadata["codecs"][-1]["name"] == "crc32c"


def _file_fault(store: FeatureStore, column: ColumnReader, chunk: int) -> str | None:
    path = store.path / column.name / column.column.chunk_key(chunk)
    if not path.exists():
        return "is missing"
    size = path.stat().st_size
    expected = None if column.column.is_text else column.column.chunk_bytes + CHECKSUM_BYTES
    if size <= CHECKSUM_BYTES or (expected is not None and size != expected and not isinstance(column, ZarrColumn)):
        return f"has {size} bytes, not {expected or 'a chunk'}"
    crc, left = 0, size - CHECKSUM_BYTES
    with path.open("rb") as file:
        while left:
            part = np.frombuffer(file.read(min(left, 1 << 22)), np.uint8)
            crc, left = crc32c(part, crc), left - len(part)
        return None if checksum_bytes(crc) == file.read() else "differs from its checksum"


def _decode_fault(column: ColumnReader, chunk: int) -> str | None:
    first, end = column.column.rows_of(chunk, column.rows)
    try:
        column.gather(np.arange(first, end))
    except StoreDamaged as error:
        return str(error).split(") ", 1)[1].removesuffix(": run headwater verify")
    return None
