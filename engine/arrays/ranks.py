"""Spearman's rank correlation of columns. Knows arrays alone."""

from __future__ import annotations

import numpy as np

from ...store.errors import DataError
from ...store.layout import Array


def spearman(first: Array, second: Array) -> Array:
    """(Q,) Spearman's rank correlation of columns: first, second (S, Q). Pearson's of mean ranks (Spearman 1904); NaN where
    a column is constant or S < 2.

    Raises:
        DataError: the shapes differ.
    """
    from scipy.stats import rankdata

    if first.shape != second.shape:
        raise DataError(f"columns to be correlated must have equal shapes; got {first.shape} and {second.shape}")
    x, y = (rankdata(values, axis=0) for values in (first, second))
    x, y = x - x.mean(0), y - y.mean(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        correlations: Array = (x * y).sum(0) / np.sqrt((x**2).sum(0) * (y**2).sum(0))
    return correlations
