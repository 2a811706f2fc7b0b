"""Softmax losses at each position, cross-entropy or drift (KL), and their gradients with respect to the logits.

On a CPU one pass over a row in its cache, with one exponential per number (torch's log_softmax and exp are half of a training
step); on a GPU, and for bounded logits, torch. Knows a head's scale and bound; no operator.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numba import njit

from ...store.layout import Array
from ..interface.model_view import Head
from ..sketches.residual import exp

_SUM = 4096  # terms summed in float32 before the sum is added in float64


@dataclass(frozen=True, slots=True)
class Reference:
    """The unchanged model's probabilities at T positions."""

    q: torch.Tensor
    """(T, V) float32: the probabilities."""
    negative_entropy: torch.Tensor
    """(T,) float64: Σ q log q."""

    @classmethod
    def of(cls, logits: torch.Tensor) -> Reference:
        """The reference of the model's logits (T, V)."""
        if logits.device.type == "cpu" and logits.is_contiguous():  # summed as p in `_drift`: at α = 0 the drift is 0
            q = logits.clone()
            return cls(q, torch.from_numpy(_softmax(q.numpy())))
        log_q = torch.log_softmax(logits, 1)
        q = log_q.exp()
        return cls(q, (q * log_q).sum(1).double())


def loss_and_gradient(
    head: Head, logits: torch.Tensor, expected: torch.Tensor | Reference, weights: torch.Tensor
) -> tuple[float, torch.Tensor]:
    """Σ weight · −log p(y) for logits (…, V) float32 and targets (T,) int64, or Σ weight · KL(q ‖ p) for a reference; and its
    gradient with respect to the head's product, which overwrites the logits. `logits` may hold several operators' logits at the
    same T positions, one operator after the other; weights (…,) float32.
    """
    rows, weight = logits.reshape(-1, logits.shape[-1]), weights.reshape(-1)
    if rows.device.type != "cpu" or head.softcap or not logits.is_contiguous():
        return _by_torch(head, rows, expected, weight, logits.shape)
    scale = np.float32(head.scale)
    if isinstance(expected, Reference):
        losses = _drift(rows.numpy(), expected.q.numpy(), expected.negative_entropy.numpy(), weight.numpy(), scale)
    else:
        losses = _loss(rows.numpy(), expected.numpy(), weight.numpy(), scale)
    return float(losses.sum()), logits


def _by_torch(
    head: Head, rows: torch.Tensor, expected: torch.Tensor | Reference, weight: torch.Tensor, shape: torch.Size
) -> tuple[float, torch.Tensor]:
    error = torch.log_softmax(rows, 1)
    if isinstance(expected, Reference):
        log_p = error.view(-1, *expected.q.shape)  # (k, T, V)
        losses = (expected.negative_entropy - torch.einsum("ktv,tv->kt", log_p, expected.q)).reshape(-1)
        error = log_p.exp_().sub_(expected.q).view_as(rows)
    else:
        targets = expected.repeat(len(rows) // max(len(expected), 1))[:, None]
        losses = -error.gather(1, targets)[:, 0]
        error.exp_().scatter_add_(1, targets, torch.full_like(targets, -1, dtype=error.dtype))
    if head.softcap:
        error.mul_(1 - (rows / head.softcap) ** 2)
    error.mul_(head.scale * weight[:, None])
    return float((weight * losses).sum()), error.view(shape)


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _loss(logits: Array, targets: Array, weights: Array, scale: np.float32) -> Array:
    """logits[i] ← scale·weight·(p − onehot); returns weight · −log p_y, (rows,) float64.

    The target's p − 1 is computed as minus the sum of the others: where p is near 1 the difference would be mere rounding error.
    """
    rows, width = logits.shape
    losses = np.zeros(rows)
    for i in range(rows):
        row, weight = logits[i], weights[i]
        if weight == 0:
            for j in range(width):
                row[j] = 0
            continue
        target = targets[i % len(targets)]
        peak = row[0]
        for j in range(width):
            peak = max(peak, row[j])
        at = row[target] - peak
        for j in range(width):
            row[j] = exp(row[j] - peak)
        own = np.float64(row[target])
        row[target] = 0
        others = 0.0
        for first in range(0, width, _SUM):
            part = np.float32(0)
            for j in range(first, min(first + _SUM, width)):
                part = part + row[j]
            others += float(part)
        over = np.float32(scale * weight / (others + own))
        for j in range(width):
            row[j] *= over
        row[target] = -np.float32(others) * over
        losses[i] = weight * (np.log(others + own) - at)
    return losses


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _drift(logits: Array, expected: Array, negative_entropy: Array, weights: Array, scale: np.float32) -> Array:
    """logits[i] ← scale·weight·(p − q); returns weight · KL(q ‖ p), (rows,) float64. negative_entropy: Σ q log q."""
    rows, width = logits.shape
    losses = np.zeros(rows)
    for i in range(rows):
        row, weight, own = logits[i], weights[i], expected[i % len(expected)]
        if weight == 0:
            for j in range(width):
                row[j] = 0
            continue
        peak = row[0]
        for j in range(width):
            peak = max(peak, row[j])
        inner = 0.0  # Σ q (z − peak)
        for first in range(0, width, _SUM):
            along = np.float32(0)
            for j in range(first, min(first + _SUM, width)):
                along = along + own[j] * (row[j] - peak)
            inner += float(along)
        for j in range(width):
            row[j] = exp(row[j] - peak)
        total = 0.0
        for first in range(0, width, _SUM):
            part = np.float32(0)
            for j in range(first, min(first + _SUM, width)):
                part = part + row[j]
            total += float(part)
        over = np.float32(1 / total)
        factor = np.float32(scale * weight)
        for j in range(width):
            row[j] = (row[j] * over - own[j]) * factor
        losses[i] = weight * (negative_entropy[i % len(expected)] - inner + np.log(total))
    return losses


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _softmax(logits: Array) -> Array:
    """logits[i] ← q; returns Σ q log q, (rows,) float64. Exponentials and sums are those of :func:`_drift`."""
    rows, width = logits.shape
    negative_entropy = np.empty(rows)
    for i in range(rows):
        row = logits[i]
        peak = row[0]
        for j in range(width):
            peak = max(peak, row[j])
        shifted = row - peak
        for j in range(width):
            row[j] = exp(row[j] - peak)
        total = 0.0
        for first in range(0, width, _SUM):
            part = np.float32(0)
            for j in range(first, min(first + _SUM, width)):
                part = part + row[j]
            total += float(part)
        over = np.float32(1 / total)
        inner = 0.0
        for first in range(0, width, _SUM):
            along = np.float32(0)
            for j in range(first, min(first + _SUM, width)):
                row[j] *= over
                along = along + row[j] * shifted[j]
            inner += float(along)
        negative_entropy[i] = inner - np.log(total)
    return negative_entropy
