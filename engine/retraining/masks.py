"""The subsets to train on: random, clusters of similar texts, or given. Knows no model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...store.errors import DataError, SettingsError
from ...store.layout import Array


def random_masks(subsets: int, examples: int, fraction: float, seed: int) -> Array:
    """(S, N) bool: each subset has round(fraction · N) examples, drawn independently of the other subsets."""
    count = _count(examples, fraction)
    generator, masks = np.random.default_rng(seed), np.zeros((subsets, examples), bool)
    for mask in masks:
        mask[generator.choice(examples, count, replace=False)] = True
    return masks


def clustered_masks(subsets: int, labels: Array, fraction: float, seed: int) -> Array:
    """(S, N) bool: whole clusters (`labels`, (N,)) in random order until a subset has round(fraction · N) examples; the last
    cluster is cut. Redundancy and coverage have effects on such subsets that subsets of single examples hide.
    """
    count = _count(len(labels), fraction)
    generator, masks = np.random.default_rng(seed), np.zeros((subsets, len(labels)), bool)
    for mask in masks:
        for cluster in generator.permutation(np.unique(labels)):
            members = generator.permutation(np.flatnonzero(labels == cluster))
            mask[members[: count - int(mask.sum())]] = True
            if mask.sum() == count:
                break
    return masks


def text_clusters(texts: Sequence[str], clusters: int, seed: int) -> Array:
    """(N,) cluster labels of texts: k-means on TF-IDF of words.

    Raises:
        SettingsError: scikit-learn is not installed, or there are more clusters than texts.
    """
    try:
        from sklearn.cluster import MiniBatchKMeans
        from sklearn.feature_extraction.text import TfidfVectorizer
    except ImportError:
        raise SettingsError("clusters of texts need scikit-learn: pip install 'headwater[baselines]'") from None
    if clusters > len(texts):
        raise SettingsError(f"--clusters {clusters}: expected at most {len(texts)}, the number of examples")
    features = TfidfVectorizer(token_pattern=r"\w+", max_features=1 << 16, dtype=np.float32).fit_transform(texts)
    labels: Array = MiniBatchKMeans(clusters, random_state=seed, n_init=3, batch_size=4096).fit_predict(features)
    return labels


def require_masks_match(masks: Array, examples: int) -> Array:
    """Masks (S, N) for a corpus of N examples, checked.

    Raises:
        DataError: the number of examples differs.
    """
    if masks.shape[1] != examples:
        raise DataError(f"masks {masks.shape} are (subsets, examples), and the corpus has {examples} examples")
    return masks


def _count(examples: int, fraction: float) -> int:
    if not 0 < fraction <= 1:
        raise SettingsError(f"--fraction {fraction}: expected a fraction of the corpus, above 0 and at most 1")
    return max(1, round(fraction * examples))
