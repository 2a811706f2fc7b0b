"""Softmax losses at each position, cross-entropy or drift (KL), and their gradients with respect to the logits.

On a processor one pass over a row that lies in its cache, with one exponential a number (torch's log_softmax, exp and what
follows them are half of a training step); elsewhere, and under a bound of the logits, torch. Knows a head's scale and bound; no
operator.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numba import njit

from ..interface.model_view import Head
from ..sketches.residual import exp

_SUM = 4096  # float32 terms, after which a sum is closed in float64


@dataclass(frozen=True, slots=True)
class Reference:
    """What the model itself says at T positions."""

    q: torch.Tensor
    """(T, V) float32: its probabilities."""
    entropy: torch.Tensor
    """(T,) float64: Σ q log q."""

    @classmethod
    def of(cls, logits: torch.Tensor) -> Reference:
        """Of its logits (T, V)."""
        if (
            logits.device.type == "cpu" and logits.is_contiguous()
        ):  # by the sums that p is made of: at α = 0 nothing is left
            q, entropy = logits.clone(), np.empty(len(logits))
            _softmax(q.numpy(), entropy)
            return cls(q, torch.from_numpy(entropy))
        told = torch.log_softmax(logits, 1)
        q = told.exp()
        return cls(q, (q * told).sum(1).double())


def loss_and_gradient(
    head: Head, logits: torch.Tensor, expected: torch.Tensor | Reference, weights: torch.Tensor
) -> tuple[float, torch.Tensor]:
    """Σ weight · −log p(y) of logits (…, V) float32 and targets (T,) int64, or Σ weight · KL(q ‖ p) of a reference; and its
    gradient by what the head's product gave; the logits are lost. Their positions are the T expected ones, over and over;
    weights (…,) float32.
    """
    rows, weight = logits.reshape(-1, logits.shape[-1]), weights.reshape(-1)
    if rows.device.type != "cpu" or head.softcap or not logits.is_contiguous():
        return _by_torch(head, rows, expected, weight, logits.shape)
    told = np.zeros(len(rows))
    if isinstance(expected, Reference):
        own, entropy = expected.q.numpy(), expected.entropy.numpy()
        _drift(rows.numpy(), own, entropy, weight.numpy(), np.float32(head.scale), told)
    else:
        _loss(rows.numpy(), expected.numpy(), weight.numpy(), np.float32(head.scale), told)
    return float(told.sum()), logits


def _by_torch(
    head: Head, rows: torch.Tensor, expected: torch.Tensor | Reference, weight: torch.Tensor, shape: torch.Size
) -> tuple[float, torch.Tensor]:
    error = torch.log_softmax(rows, 1)
    if isinstance(expected, Reference):
        apart = error.view(-1, *expected.q.shape)  # (k, T, V)
        each = (expected.entropy - torch.einsum("ktv,tv->kt", apart, expected.q)).reshape(-1)
        error = apart.exp_().sub_(expected.q).view_as(rows)
    else:
        at = expected.repeat(len(rows) // max(len(expected), 1))[:, None]
        each = -error.gather(1, at)[:, 0]
        error.exp_().scatter_add_(1, at, torch.full_like(at, -1, dtype=error.dtype))
    if head.softcap:
        error.mul_(1 - (rows / head.softcap) ** 2)
    error.mul_(head.scale * weight[:, None])
    return float((weight * each).sum()), error.view(shape)


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _loss(logits: Any, targets: Any, weights: Any, scale: Any, told: Any) -> None:
    """logits[i] ← scale·weight·(p − onehot), told[i] = weight · −log p_y.

    The target's p − 1 is made as minus the others' sum: where the model is sure, the difference would be rounding alone.
    """
    rows, width = logits.shape
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
            part: Any = np.float32(0)
            for j in range(first, min(first + _SUM, width)):
                part = part + row[j]
            others += part
        over = np.float32(scale * weight / (others + own))
        for j in range(width):
            row[j] *= over
        row[target] = -np.float32(others) * over
        told[i] = weight * (np.log(others + own) - at)


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _drift(logits: Any, expected: Any, entropy: Any, weights: Any, scale: Any, told: Any) -> None:
    """logits[i] ← scale·weight·(p − q), told[i] = weight · KL(q ‖ p); entropy: Σ q log q."""
    rows, width = logits.shape
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
            along: Any = np.float32(0)
            for j in range(first, min(first + _SUM, width)):
                along = along + own[j] * (row[j] - peak)
            inner += along
        for j in range(width):
            row[j] = exp(row[j] - peak)
        total = 0.0
        for first in range(0, width, _SUM):
            part: Any = np.float32(0)
            for j in range(first, min(first + _SUM, width)):
                part = part + row[j]
            total += part
        over = np.float32(1 / total)
        factor = np.float32(scale * weight)
        for j in range(width):
            row[j] = (row[j] * over - own[j]) * factor
        told[i] = weight * (entropy[i % len(expected)] - inner + np.log(total))


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _softmax(logits: Any, entropy: Any) -> None:
    """logits[i] ← q, entropy[i] = Σ q log q; exponentials and sums as in :func:`_drift`."""
    rows, width = logits.shape
    for i in range(rows):
        row = logits[i]
        peak = row[0]
        for j in range(width):
            peak = max(peak, row[j])
        held = row - peak
        for j in range(width):
            row[j] = exp(row[j] - peak)
        total = 0.0
        for first in range(0, width, _SUM):
            part: Any = np.float32(0)
            for j in range(first, min(first + _SUM, width)):
                part = part + row[j]
            total += part
        over = np.float32(1 / total)
        inner = 0.0
        for first in range(0, width, _SUM):
            along: Any = np.float32(0)
            for j in range(first, min(first + _SUM, width)):
                row[j] *= over
                along = along + row[j] * held[j]
            inner += along
        entropy[i] = inner - np.log(total)
