"""Reductions of the logits: losses, and residuals r = softmax(z/τ) − onehot(y) of the most probable tokens and y only.

On the CPU Numba kernels compute them in a fifteenth of the time of the head's matrix product (torch's logsumexp and topk take a
third), on other devices torch operations; both are tested against the same oracle. Knows no model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numba import njit, prange

from ...store.layout import Array

_NEAR, _FINE = 40, 16  # width of the fine range below the maximum in nats, and bins per nat
_FAR, _COARSE = 48, 8  # width of the coarse range below that in nats, and bins per nat
_BINS = _NEAR * _FINE + _FAR * _COARSE
_STRIDE = 16  # every 16th logit is sampled
_LOWEST = np.finfo(np.float32).min
_LEAST = np.float32(1e-36)
"""Smaller probabilities are set to 0, because float32 would become denormal and lose precision."""


@dataclass(frozen=True, slots=True)
class Loss:
    """Negative log-likelihood of the target, in nats: (p,)."""

    def __call__(self, logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(p, V), (p,) → ((p,),)."""
        if logits.device.type != "cpu":
            return (torch.nn.functional.cross_entropy(logits, targets, reduction="none"),)
        out = np.empty(len(targets), np.float32)
        _losses(logits.numpy(), targets.numpy(), out)
        return (torch.from_numpy(out),)


@dataclass(frozen=True, slots=True)
class SparseResidual:
    """The truncated residual of RISE (arXiv 2604.16197; items 1–3 in `plugins/rise.py`)."""

    tau: float
    """Temperature: s = z/τ."""
    top: int
    """Number of largest logits that the softmax runs over; 0 for all."""
    mass: float
    """The support is the shortest list of most likely tokens whose probabilities sum to at least this."""
    least: int
    """Smallest number of tokens in the support, which always includes the target."""

    def __call__(self, logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(p, V), (p,) → indices (p, k) int64 and values (p, k) float32, k the largest support; both are 0 in unused slots."""
        top = min(self.top or logits.shape[1], logits.shape[1])
        if logits.device.type != "cpu":
            return self.by_torch(logits, targets, top)
        index = np.zeros((len(targets), top), np.int64)
        value = np.zeros((len(targets), top), np.float32)
        rule = SupportRule(np.float32(self.tau), self.mass, self.least)
        width = _support(logits.numpy(), targets.numpy(), rule, index, value)
        return torch.from_numpy(index[:, :width].copy()), torch.from_numpy(value[:, :width].copy())

    def by_torch(self, logits: torch.Tensor, targets: torch.Tensor, top: int) -> tuple[torch.Tensor, ...]:
        """The same reduction by torch operations, on any device."""
        top_logits, index = torch.topk(logits, top, dim=1)  # (p, k), descending
        own = index == targets[:, None]
        absent = ~own.any(1)
        index[absent, -1] = targets[absent]
        top_logits[absent, -1] = logits[absent, targets[absent]]
        own[absent, -1] = True
        p = torch.exp((top_logits - top_logits.amax(1, keepdim=True)) / self.tau)
        p = p.masked_fill(p < float(_LEAST), 0.0)
        p = p / (p.sum(1, keepdim=True) + 1e-8)
        before = torch.cumsum(p.double(), 1) - p.double()  # mass of the slots ahead of each
        support = (before < self.mass) | (torch.arange(top, device=p.device) < self.least) | own
        p = p * support
        others = torch.where(own, 0, p)
        value = torch.where(own, -others.sum(1, keepdim=True), others) / p.sum(1, keepdim=True)
        width = int(support.sum(1).max()) if len(targets) else 0
        order = torch.argsort((~support).to(torch.uint8), dim=1, stable=True)[:, :width]
        return (index * support).gather(1, order), (value * support).gather(1, order)


@njit(cache=True, fastmath=True, inline="always")
def exp(x: np.float32) -> np.float32:
    """e^x for x ≤ 0 in float32 by 2^(k+f), a polynomial in f: vectorises, relative error below 3e-7."""
    z = max(x * np.float32(1.4426950408889634), np.float32(-126.0))
    k = np.floor(z + np.float32(0.5))
    f = z - k  # in [−½, ½], which the polynomial is for
    p = np.float32(1.535336188319500e-4)
    p = p * f + np.float32(1.339887440266574e-3)
    p = p * f + np.float32(9.618437357674640e-3)
    p = p * f + np.float32(5.550332471162809e-2)
    p = p * f + np.float32(2.402264791363012e-1)
    p = p * f + np.float32(6.931472028550421e-1)
    p = p * f + np.float32(1.0)
    bits = (np.int32(k) + np.int32(127)) << np.int32(23)
    power: np.float32 = p * np.int32(bits).view(np.float32)
    return power


@njit(cache=True, fastmath=True, parallel=True)
def _losses(logits: Array, targets: Array, out: Array) -> None:
    """out[i] = logsumexp(logits[i]) − logits[i, targets[i]]; float32 partial sums of 4,096 terms are added in float64 for
    accuracy.
    """
    rows, width = logits.shape
    for i in prange(rows):
        row = logits[i]
        peak = row[0]
        for j in range(width):
            peak = max(peak, row[j])
        total = 0.0
        for first in range(0, width, 4096):
            part: np.float32 = np.float32(0)
            for j in range(first, min(first + 4096, width)):
                part = part + exp(row[j] - peak)
            total += float(part)
        out[i] = np.log(total) + (np.float64(peak) - np.float64(row[targets[i]]))


@njit(cache=True, fastmath=True)
def _bins(values: Array, peak: np.float32, tau: np.float32, bins: Array) -> None:
    """Assign values to histogram bins by (peak − z)/τ in nats: fine bins near the peak, coarse bins far from it, and a last bin
    for values of zero probability.
    """
    scale = min(np.float32(1.0) / tau, np.float32(1e30))  # finite, so that 0 · scale is 0
    for j in range(len(values)):
        nats = (peak - values[j]) * scale
        near, far = min(nats, np.float32(_NEAR)), min(max(nats - np.float32(_NEAR), np.float32(0)), np.float32(_FAR))
        bins[j] = np.int32(near * np.float32(_FINE) + far * np.float32(_COARSE))


@njit(cache=True)
def _sampled_threshold(row: Array, top: int) -> np.float32:
    """A threshold that about 1.5 · `top` values of `row` reach, estimated from every 16th value; the lowest float32 for
    short rows, where sampling does not pay."""
    rank = (3 * top // 2 + 32) // _STRIDE + 1  # + 32: so that a small sample rarely reaches fewer than `top` values
    if len(row) < 32 * top:
        return _LOWEST
    best = np.full(rank, _LOWEST)
    for j in range(0, len(row), _STRIDE):
        if row[j] > best[-1]:
            at = rank - 1
            while at and best[at - 1] < row[j]:
                best[at] = best[at - 1]
                at -= 1
            best[at] = row[j]
    threshold: np.float32 = best[-1]
    return threshold


@njit(cache=True)
def _reaching(row: Array, least: np.float32, order: Array, values: Array) -> int:
    """Write indices and values of all entries ≥ `least` to `order` and `values`; returns their number.

    Comparisons are written to bytes; eight zero bytes are skipped at a time.
    """
    width, count = len(row), 0
    reaches = np.empty((width + 7) // 8 * 8, np.uint8)
    reaches[width:] = 0
    for j in range(width):
        reaches[j] = row[j] >= least
    eights = reaches.view(np.uint64)
    for e in range(len(eights)):
        if eights[e]:
            for j in range(8 * e, 8 * e + 8):
                if reaches[j]:
                    order[count], values[count] = j, row[j]
                    count += 1
    return count


@njit(cache=True)
def _sort_bin(row: Array, order: Array) -> None:
    """Sort indices into `row` by descending value, in place and stable: insertion sort for up to 48 entries, merge sort
    for more.
    """
    if len(order) > 48:
        order[:] = order[np.argsort(-row[order], kind="mergesort")]
        return
    for k in range(1, len(order)):
        index_to_insert, at = order[k], k
        while at and row[order[at - 1]] < row[index_to_insert]:
            order[at] = order[at - 1]
            at -= 1
        order[at] = index_to_insert


@njit(cache=True)
def _largest(row: Array, tau: np.float32, top: int, token_ids: Array, logits: Array) -> int:
    """Write the indices of the `top` largest of `row`, descending, ties by index, to `token_ids`, and their values to `logits`;
    returns their number.

    A sampled threshold selects a few hundred of V logits; a histogram of (max − z)/τ orders them, so that only entries within
    a bin are sorted. Logits whose probability underflows float32 are ignored.
    """
    candidates, values = np.empty(len(row), np.int32), np.empty(len(row), np.float32)
    least = _sampled_threshold(row, top)
    candidate_count = _reaching(row, least, candidates, values) if least > _LOWEST else 0
    if candidate_count < top:
        candidate_count = len(row)
        for j in range(candidate_count):
            candidates[j], values[j] = j, row[j]
    values = values[:candidate_count]
    bins = np.empty(candidate_count, np.int32)
    _bins(values, values.max(), tau, bins)
    counts = np.zeros(_BINS + 1, np.int32)
    for j in range(candidate_count):
        counts[bins[j]] += 1
    last, binned = 0, counts[0]
    while binned < top and last + 1 < _BINS:
        last += 1
        binned += counts[last]
    ends = np.cumsum(counts[: last + 1])
    place = ends - counts[: last + 1]  # where each bin's next index goes
    order = np.empty(binned, np.int64)
    for j in range(candidate_count):
        if bins[j] <= last:
            order[place[bins[j]]] = j
            place[bins[j]] += 1
    for b in range(last + 1):
        if counts[b] > 1:
            _sort_bin(values, order[ends[b] - counts[b] : ends[b]])
    count: int = min(top, binned)
    for k in range(count):
        token_ids[k], logits[k] = candidates[order[k]], values[order[k]]
    return count


@njit(cache=True)
def _unnormalised(values: Array, tau: np.float32) -> None:
    """exp((z − max)/τ) in place; the maximum is computed, because the target may be out of order."""
    peak = values.max()
    for k in range(len(values)):
        p = exp(max((values[k] - peak) / tau, np.float32(-100)))
        values[k] = p if p >= _LEAST else np.float32(0)


class SupportRule(NamedTuple):
    """Which of the largest logits are in a residual's support; the fields of `SparseResidual`."""

    tau: np.float32
    mass: float
    least: int


@njit(cache=True)
def _one_support(row: Array, target: int, rule: SupportRule, index: Array, value: Array) -> int:
    """One position's residual into `index`, `value`; returns the number of slots used.

    The target's p − 1 is computed as minus the sum of the others: for confident predictions the difference would be rounding
    error alone, which RISE's normalisation would scale up to unit norm.
    """
    token_ids = np.empty(len(index), np.int64)
    count: int = _largest(row, rule.tau, len(index), token_ids, value)
    own = -1
    for k in range(count):
        if token_ids[k] == target:
            own = k
    if own < 0:
        own = count if count < len(index) else count - 1
        count = own + 1
        token_ids[own], value[own] = target, row[target]
    _unnormalised(value[:count], rule.tau)
    total = 1e-8
    for k in range(count):
        total += value[k]
    ahead, support_mass, others, used = 0.0, 0.0, 0.0, 0
    for k in range(count):
        p = np.float64(value[k]) / total
        if ahead < rule.mass or k < rule.least or k == own:
            index[used], value[used] = token_ids[k], p
            support_mass += p
            others += 0.0 if k == own else p
            used += 1
        ahead += p
    for k in range(used):
        value[k] = (-others if index[k] == target else value[k]) / support_mass
    value[used:count] = 0
    return used


@njit(cache=True, parallel=True)
def _support(logits: Array, targets: Array, rule: SupportRule, index: Array, value: Array) -> int:
    """All positions' residuals; returns the largest support size."""
    used = np.zeros(len(targets), np.int64)
    for i in prange(len(targets)):
        used[i] = _one_support(logits[i], targets[i], rule, index[i], value[i])
    return int(used.max()) if len(used) else 0
