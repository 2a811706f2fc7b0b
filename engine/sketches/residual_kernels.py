"""Kernels of the whole residual r = softmax(z) − onehot(y) on the CPU: as it is, or in buckets. Knows arrays alone.

The target's p − 1 is computed as minus the sum of the others: for confident predictions the difference would be rounding error.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from ...store.layout import Array
from .residual import exp

_LANES = 16  # sums side by side, in a fixed order: fast-math sums differ between a kernel compiled now and one from the cache


@njit(cache=True)
def _exponentials(row: Array, target: int, out: Array) -> tuple[float, float]:
    """out = exp(row − max), 0 at the target; returns the target's, and the sum of the others in float64."""
    width = len(row)
    peaks = np.full(_LANES, row[0])
    for j in range(0, width - _LANES + 1, _LANES):
        for lane in range(_LANES):
            peaks[lane] = max(peaks[lane], row[j + lane])
    peak = peaks.max()
    for j in range(width - width % _LANES, width):
        peak = max(peak, row[j])
    for j in range(width):
        out[j] = exp(row[j] - peak)
    own, others = np.float64(out[target]), 0.0
    out[target] = 0
    for first in range(0, width, 4096):
        last = min(first + 4096, width)
        lanes = np.zeros(_LANES, np.float32)
        for j in range(first, last - _LANES + 1, _LANES):
            for lane in range(_LANES):
                lanes[lane] += out[j + lane]
        for j in range(last - (last - first) % _LANES, last):
            lanes[0] += out[j]
        for lane in range(_LANES):
            others += np.float64(lanes[lane])
    return own, others


@njit(cache=True, parallel=True)
def whole_residuals(logits: Array, targets: Array, out: Array) -> None:
    """out[i] = softmax(logits[i]) − onehot(targets[i]): (p, V) float32."""
    for i in prange(len(logits)):
        residual, target = out[i], targets[i]
        own, others = _exponentials(logits[i], target, residual)
        over = np.float32(1 / (others + own))
        for j in range(len(residual)):
            residual[j] *= over
        residual[target] = -np.float32(others) * over


@njit(cache=True, parallel=True)
def bucketed_residuals(logits: Array, targets: Array, bucket: Array, sign: Array, out: Array) -> None:
    """out[i] = CountSketch of softmax(logits[i]) − onehot(targets[i]); four copies of the buckets avoid dependent additions."""
    rows, width = logits.shape
    whole = width // 4 * 4
    for i in prange(rows):
        target, probabilities = targets[i], np.empty(width, np.float32)
        own, others = _exponentials(logits[i], target, probabilities)
        sums = np.zeros((4, out.shape[1]), np.float32)
        for j in range(0, whole, 4):
            for lane in range(4):
                sums[lane, bucket[j + lane]] += sign[j + lane] * probabilities[j + lane]
        for j in range(whole, width):
            sums[0, bucket[j]] += sign[j] * probabilities[j]
        sums[0, bucket[target]] -= sign[target] * np.float32(others)
        over = np.float32(1 / (others + own))
        for k in range(out.shape[1]):
            out[i, k] = ((sums[0, k] + sums[1, k]) + (sums[2, k] + sums[3, k])) * over
