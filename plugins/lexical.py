"""`tfidf`, `bm25`: word overlap without a model. TF-IDF cosine (Salton & Buckley 1988) and BM25 (Robertson & Zaragoza 2009),
what every method must beat.

Kept: scikit-learn's TF-IDF (sublinear term counts, unit norms) and bm25s's BM25 (Lucene's variant) with their defaults else.
Dropped: nothing. Texts are prompt and completion together, in the corpus as in the queries; words are runs of letters and
digits, in lower case. No model is read. Both libraries count a corpus's words in memory, which the plan says.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from . import Array, SettingsError, TextSimilarity

_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class TfIdf(TextSimilarity):
    """Settings of TF-IDF."""

    api: ClassVar[int] = 2

    features: int = 1 << 18
    """Words that are known, the most frequent of the corpus."""

    def memory(self, rows: int, tokens: int, queries: int) -> int:
        """All words as scikit-learn counts them, in memory; the vocabulary; the queries."""
        return 100 * tokens + 100 * rows + 64 * self.features + 16 * queries * self.features // 64

    def score_texts(self, queries: Sequence[str], texts: Callable[[], Iterator[Sequence[str]]]) -> Iterator[Array]:
        """Cosines."""
        try:
            from sklearn.feature_extraction.text import TfidfVectorizer
        except ImportError:
            raise SettingsError("tfidf needs scikit-learn: pip install 'headwater[baselines]'") from None
        index = TfidfVectorizer(
            token_pattern=_WORD.pattern, max_features=self.features, sublinear_tf=True, dtype=np.float32
        )
        try:
            index.fit(text for part in texts() for text in part)
        except ValueError:  # of an empty vocabulary
            raise SettingsError("the corpus holds no word: tfidf has nothing to compare") from None
        asked = index.transform(queries).T.tocsc()
        for part in texts():
            yield np.asarray((index.transform(part) @ asked).toarray(), np.float32)


@dataclass(frozen=True)
class Bm25(TextSimilarity):
    """Settings of BM25."""

    api: ClassVar[int] = 2

    k1: float = 1.5
    """How soon more of a word adds nothing."""
    b: float = 0.75
    """How much long texts are held back."""

    def memory(self, rows: int, tokens: int, queries: int) -> int:
        """All words' numbers and the index, which are in memory, and all scores."""
        return 150 * tokens + 100 * rows + 8 * rows * queries

    def score_texts(self, queries: Sequence[str], texts: Callable[[], Iterator[Sequence[str]]]) -> Iterator[Array]:
        """BM25, over the words of a query, each as often as it stands there."""
        import bm25s

        words = [_words(text) for part in texts() for text in part]
        if not any(words):
            raise SettingsError("the corpus holds no word: bm25 has nothing to compare")
        quiet: Any = {"show_progress": False}
        index = bm25s.BM25(k1=self.k1, b=self.b)
        index.index(words, **quiet)
        known = index.vocab_dict
        asked = [[word for word in _words(query) if word in known] for query in queries]
        none = np.zeros(len(words), np.float32)
        scores = np.empty((len(words), len(asked)), np.float32)
        for column, one in zip(scores.T, asked, strict=True):
            column[:] = index.get_scores(one) if one else none
        first = 0
        for part in texts():
            yield scores[first : first + len(part)].astype(np.float32)
            first += len(part)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())
