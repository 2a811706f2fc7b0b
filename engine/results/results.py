"""The best examples of each query: row numbers and scores. Knows no method and no file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ...store.layout import Array

RESULT_QUERIES = 32
"""Queries whose results are in memory with their texts at a time."""


@dataclass(frozen=True, slots=True)
class QueryText:
    """The text of a query."""

    prompt: str
    """Empty if the query is a text."""
    completion: str
    """What is asked about: the completion, or the text."""

    def __str__(self) -> str:
        return self.prompt + self.completion


def shared(first: Array, second: Array) -> float:
    """Mean over queries of the fraction of the rows (Q, k) that are in both."""
    each = [len(np.intersect1d(a, b)) / max(1, min(len(a), len(b))) for a, b in zip(first, second, strict=True)]
    return float(np.mean(each))


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
    """Whether no other stored row has a higher score; False if candidates were chosen by estimates."""
    recall: float = 1.0
    """Expected fraction of the best rows among these: 1 if exact, NaN if only sign bits are stored, which give estimates."""
    standard_error: Array | None = None
    """(Q, k) float32: standard error of scores combined over members; None for a single member."""
    rank_low: Array | None = None
    """(Q, k) int64: the best rank among these k examples consistent with the scores of all members; None for one."""
    rank_high: Array | None = None
    """(Q, k) int64: the worst rank among these k examples consistent with the scores of all members; None for one."""
    further_columns: Mapping[str, Array] = field(default_factory=dict)
    """Name → (Q, k) values, such as `tie`."""
