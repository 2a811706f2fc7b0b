"""`tfidf`, `bm25`: word overlap without a model. TF-IDF cosine (Salton & Buckley 1988) and BM25 (Robertson & Zaragoza 2009), the
baselines that other methods should beat.

TF-IDF is scikit-learn's (sublinear term counts, unit norms), BM25 is Lucene's variant of bm25s, with default settings otherwise.
A text is prompt and completion together, in the corpus and in the queries; words are runs of letters and digits, in lower case.
No model is loaded. Both libraries keep all words of a corpus in memory, which the memory plan includes. Knows no store.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from . import Array, SettingsError, TextSimilarity

_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class TfIdf(TextSimilarity):
    """Settings of TF-IDF.

    Use it as a second measure of common words beside `bm25`.
    """

    api: ClassVar[int] = 2

    features: int = 1 << 18
    """Size of the vocabulary: the most frequent words of the corpus."""

    def memory(self, rows: int, tokens: int, queries: int) -> int:
        """All words of the corpus, the vocabulary, and the queries."""
        return 100 * tokens + 100 * rows + 64 * self.features + 16 * queries * self.features // 64

    def score_texts(self, queries: Sequence[str], texts: Callable[[], Iterator[Sequence[str]]]) -> Iterator[Array]:
        """Cosines of TF-IDF vectors."""
        try:
            from sklearn.feature_extraction.text import TfidfVectorizer
        except ImportError:
            raise SettingsError("tfidf needs scikit-learn: pip install 'headwater[baselines]'") from None
        index = TfidfVectorizer(
            token_pattern=_WORD.pattern, max_features=self.features, sublinear_tf=True, dtype=np.float32
        )
        try:
            index.fit(text for part in texts() for text in part)
        except ValueError:  # scikit-learn raises it for an empty vocabulary
            raise SettingsError("the corpus holds no word: tfidf has nothing to compare") from None
        query_matrix = index.transform(queries).T.tocsc()
        for part in texts():
            yield np.asarray((index.transform(part) @ query_matrix).toarray(), np.float32)


@dataclass(frozen=True)
class Bm25(TextSimilarity):
    """Settings of BM25.

    Use it beside any other method: it needs no model, and where an example's words give the answer away, it is hard to
    beat.
    """

    api: ClassVar[int] = 2

    k1: float = 1.5
    """Saturation of term counts: with a smaller value further occurrences of a word add less."""
    b: float = 0.75
    """Strength of the length normalisation, 0 to 1."""

    def memory(self, rows: int, tokens: int, queries: int) -> int:
        """All words of the corpus as numbers, the index, and all scores."""
        return 150 * tokens + 100 * rows + 8 * rows * queries

    def score_texts(self, queries: Sequence[str], texts: Callable[[], Iterator[Sequence[str]]]) -> Iterator[Array]:
        """BM25 scores; a word that a query repeats counts repeatedly."""
        import bm25s

        words = [_words(text) for part in texts() for text in part]
        if not any(words):
            raise SettingsError("the corpus holds no word: bm25 has nothing to compare")
        index = bm25s.BM25(k1=self.k1, b=self.b)
        index.index(words, show_progress=False)
        vocabulary = index.vocab_dict
        queries_words = [[word for word in _words(query) if word in vocabulary] for query in queries]
        zeros = np.zeros(len(words), np.float32)
        scores = np.empty((len(words), len(queries_words)), np.float32)
        for column, query_words in zip(scores.T, queries_words, strict=True):
            column[:] = index.get_scores(query_words) if query_words else zeros
        first = 0
        for part in texts():
            yield scores[first : first + len(part)].astype(np.float32)
            first += len(part)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())
