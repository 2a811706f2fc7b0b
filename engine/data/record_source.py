"""Records that do not lie in a file: of a list, a table, a data set of another library, or one string. Knows no format, no
document and no model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from .urls import shown


@dataclass(frozen=True, slots=True)
class RecordSource:
    """Records that can be read several times, each time from any record on."""

    name: str
    """Name in messages and ids."""
    digest: str
    """Hex digest of the records' contents: records with another digest are another corpus."""
    size: int
    """Number of records, or 0 if it is not known before they are read."""
    records: Callable[[int], Iterator[Mapping[str, object]]]
    """The records from a 0-based number on, each as field name → value."""
    plain: bool = False
    """Whether the records are texts that stand for themselves: {"text": …}, read by no template."""
    address: str = ""
    """Where the same records can be opened again, such as `hf:NAME?split=train`; empty: nowhere."""


Data: TypeAlias = str | RecordSource
"""Where a corpus or queries are read: a path, folder, glob or URL; or records."""


def name_of_data(data: Data) -> str:
    """The path or URL of data without its secrets, or the name of records, for messages."""
    return shown(data) if isinstance(data, str) else data.name
