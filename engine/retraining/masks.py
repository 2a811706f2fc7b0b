"""The subsets to train on: random, clusters of similar texts, or given. Knows no model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...store.errors import DataError, SettingsError
from ...store.layout import Array


def random_masks(subsets: int, examples: int, fraction: float, seed: int) -> Array:
    """(S, N) boolean: each subset has round(fraction · N) examples, drawn without regard to the others."""
    count = _count(examples, fraction)
    random, found = np.random.default_rng(seed), np.zeros((subsets, examples), bool)
    for line in found:
        line[random.choice(examples, count, replace=False)] = True
    return found


def clustered_masks(subsets: int, labels: Array, fraction: float, seed: int) -> Array:
    """(S, N) boolean: whole clusters (`labels`, (N,)) in a random order until a subset has round(fraction · N) examples; of
    the last cluster as many as are missing. What redundancy and coverage do shows here, where single examples hide it.
    """
    count = _count(len(labels), fraction)
    random, found = np.random.default_rng(seed), np.zeros((subsets, len(labels)), bool)
    for line in found:
        for cluster in random.permutation(np.unique(labels)):
            members = random.permutation(np.flatnonzero(labels == cluster))
            line[members[: count - int(line.sum())]] = True
            if line.sum() == count:
                break
    return found


def text_clusters(texts: Sequence[str], clusters: int, seed: int) -> Array:
    """(N,) labels of texts: k-means on TF-IDF of words.

    Raises:
        SettingsError: scikit-learn is not there, or more clusters than texts.
    """
    try:
        from sklearn.cluster import MiniBatchKMeans
        from sklearn.feature_extraction.text import TfidfVectorizer
    except ImportError:
        raise SettingsError("clusters of texts need scikit-learn: pip install 'headwater[baselines]'") from None
    if clusters > len(texts):
        raise SettingsError(f"{clusters} clusters of {len(texts)} examples")
    rows = TfidfVectorizer(token_pattern=r"\w+", max_features=1 << 16, dtype=np.float32).fit_transform(texts)
    found: Array = MiniBatchKMeans(clusters, random_state=seed, n_init=3, batch_size=4096).fit_predict(rows)
    return found


def given_masks(masks: Array, examples: int) -> Array:
    """Masks from a file, for a corpus of so many examples.

    Raises:
        DataError: another number of examples.
    """
    if masks.shape[1] != examples:
        raise DataError(f"masks {masks.shape} are (subsets, examples), and the corpus has {examples} examples")
    return masks


def _count(examples: int, fraction: float) -> int:
    if not 0 < fraction <= 1:
        raise SettingsError(f"--fraction {fraction}: a share of the corpus, above 0 and at most 1")
    return max(1, round(fraction * examples))
