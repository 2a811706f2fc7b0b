"""How often the top examples come from the right module: for a method, for BM25 and by chance.

Knows no model, no store, no method.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

from .docstring_corpus import module_of

DEPTH = 5
"""Number of top examples that count."""


@dataclass(frozen=True, slots=True)
class HitRates:
    """Hit rates of one ranking, as fractions of the questions."""

    name: str
    """Name of the ranking."""
    first: float
    """Fraction of questions whose first example is from the question's module."""
    among: float
    """Fraction of questions with such an example among the first `DEPTH`."""


def hit_rates(name: str, questions: Sequence[str], answers: Sequence[Sequence[str]]) -> HitRates:
    """Hit rates for the ids of questions and, for each, the ids of its examples, best first."""
    first = among = 0
    for question, ids in zip(questions, answers, strict=True):
        is_hit = [module_of(example) == module_of(question) for example in ids[:DEPTH]]
        first += is_hit[:1] == [True]
        among += any(is_hit)
    return HitRates(name, first / len(questions), among / len(questions))


def chance(questions: Sequence[str], corpus: Sequence[str]) -> HitRates:
    """Expected hit rates of examples drawn at random without replacement: means of m/N and of 1 − C(N−m, 5)/C(N, 5)."""
    sizes, total = Counter(module_of(example) for example in corpus), len(corpus)
    depth = min(DEPTH, total)
    module_sizes = [sizes[module_of(question)] for question in questions]
    first = sum(m / total for m in module_sizes) / len(module_sizes)
    among = sum(1 - comb(total - m, depth) / comb(total, depth) for m in module_sizes) / len(module_sizes)
    return HitRates("chance", first, among)


def bm25(corpus: Sequence[dict[str, str]], queries: Sequence[str]) -> list[list[str]]:
    """Ids of the `DEPTH` texts that BM25 (defaults: Lucene's variant, English stop words removed) ranks first per query."""
    import bm25s

    index = bm25s.BM25()
    index.index(bm25s.tokenize([record["text"] for record in corpus], show_progress=False), show_progress=False)
    query_tokens = bm25s.tokenize(list(queries), show_progress=False)
    ranked_rows, _ = index.retrieve(query_tokens, k=min(DEPTH, len(corpus)), show_progress=False)
    return [[corpus[row]["id"] for row in rows] for rows in ranked_rows]
