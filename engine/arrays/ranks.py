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
        raise DataError(f"columns to be correlated are {first.shape} and {second.shape}")
    one, other = (rankdata(values, axis=0) for values in (first, second))
    one, other = one - one.mean(0), other - other.mean(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Array = (one * other).sum(0) / np.sqrt((one**2).sum(0) * (other**2).sum(0))
    return found
