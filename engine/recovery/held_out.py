"""Splits measurements into those that are solved from and those that are held out to judge the solution. Knows no solver."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...store.errors import DataError
from ...store.layout import Array
from ..runtime.hashing import hashed


@dataclass(frozen=True, slots=True)
class HeldOutSplit:
    """Measurements, of which some are held out."""

    y: Array
    """(Q, K) float64."""
    held_out: Array
    """(K,) bool."""

    @property
    def train(self) -> Array:
        """(Q, K) float64: y, NaN where it is held out."""
        return np.where(self.held_out, np.nan, self.y)

    @property
    def train_count(self) -> int:
        """Number of valid measurements that are not held out."""
        return int((~np.isnan(self.train).all(0)).sum())

    def errors(self, predictions: Array) -> Array:
        """(Q, h): squared errors of predictions (Q, K) at the held-out measurements."""
        squared: Array = (predictions - self.y)[:, self.held_out] ** 2
        return squared

    def base(self) -> Array:
        """(Q, h): squared errors of the mean of the other measurements; 0 where they are mere rounding errors."""
        train = self.train
        means = train[:, ~np.isnan(train).all(0)].mean(1)[:, None]
        squared: Array = (self.y[:, self.held_out] - means) ** 2
        squared[squared.max(1) <= (1e-14 * np.nanmax(np.abs(self.y), 1)) ** 2] = 0
        return squared


def split_measurements(y: Array, fraction: float, seed: int) -> HeldOutSplit:
    """Hold out a seeded sample of the valid measurements of y (Q, K), a fraction of them.

    Raises:
        DataError: too few measurements remain to solve from, or to hold out.
    """
    valid = np.asarray(~np.isnan(y).all(0))
    order = np.argsort(hashed(seed, "held out", len(valid)), kind="stable")
    order = order[valid[order]]
    held_out = np.zeros(len(valid), bool)
    held_out[order[: round(fraction * len(order))]] = True
    split = HeldOutSplit(y, held_out)
    if split.train_count < 2 or not held_out.any():
        raise DataError(f"{y.shape[1]} measurements are too few to hold out {fraction:.0%} and solve from the rest")
    return split
