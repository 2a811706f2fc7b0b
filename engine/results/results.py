"""The best examples of each query: row numbers and scores. Knows no method and no file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ...store.layout import Array

RESULT_QUERIES = 32
"""Queries whose results are held with their texts at once."""


@dataclass(frozen=True, slots=True)
class Results:
    """The best examples of each query."""

    method: str
    """Name of the method."""
    queries: list[str]
    """(Q,) query ids."""
    rows: Array
    """(Q, k) int64 row numbers, best first."""
    scores: Array
    """(Q, k) float32."""
    exact: bool = True
    """Whether no other stored row scores higher; False where candidates were chosen by estimates."""
    recall: float = 1.0
    """The share of the best rows that is expected among these: 1 where exact, NaN where only estimates are stored."""
    error: Array | None = None
    """(Q, k) float32: of several seeds' mean scores the standard error."""
    rank_low: Array | None = None
    """(Q, k) int64: with it, the first rank among these that an example may have."""
    rank_high: Array | None = None
    """(Q, k) int64: and the last."""
    more: Mapping[str, Array] = field(default_factory=dict)
    """(Q, k) of further columns, such as `tie`."""
