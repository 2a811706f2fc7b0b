"""How often the top examples come from the right module: for a method, for BM25 and by chance.

Knows no model, no store, no method.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from typing import Any

from .docstring_corpus import module_of

DEPTH = 5
"""Examples looked at behind the first."""


@dataclass(frozen=True, slots=True)
class Hits:
    """Shares of the questions."""

    name: str
    """Of what ranked."""
    first: float
    """Whose first example is from the right module."""
    among: float
    """Who have one from the right module among the first `DEPTH`."""


def hits(name: str, questions: Sequence[str], answers: Sequence[Sequence[str]]) -> Hits:
    """For questions' ids, and for each the ids of its examples, best first."""
    first = among = 0
    for question, ids in zip(questions, answers, strict=True):
        right = [module_of(example) == module_of(question) for example in ids[:DEPTH]]
        first += right[:1] == [True]
        among += any(right)
    return Hits(name, first / len(questions), among / len(questions))


def chance(questions: Sequence[str], corpus: Sequence[str]) -> Hits:
    """Expected for examples drawn at random without return: m/N, and 1 − C(N−m, 5)/C(N, 5), in the mean."""
    sizes, total = Counter(module_of(example) for example in corpus), len(corpus)
    depth = min(DEPTH, total)
    right = [sizes[module_of(question)] for question in questions]
    first = sum(m / total for m in right) / len(right)
    among = sum(1 - comb(total - m, depth) / comb(total, depth) for m in right) / len(right)
    return Hits("chance", first, among)


def bm25(corpus: Sequence[dict[str, str]], queries: Sequence[str]) -> list[list[str]]:
    """The ids of the `DEPTH` texts that BM25 (its defaults: Lucene's, English stop words out) ranks first for each query."""
    import bm25s

    quiet: Any = {"show_progress": False}
    index = bm25s.BM25()
    index.index(bm25s.tokenize([record["text"] for record in corpus], **quiet), **quiet)
    found, _ = index.retrieve(bm25s.tokenize(list(queries), **quiet), k=min(DEPTH, len(corpus)), **quiet)
    return [[corpus[row]["id"] for row in rows] for rows in found]
