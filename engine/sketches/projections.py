"""Gradients of linear layers, sketched on both sides: Σ_t (S_out e_t)(S_in a_t)ᵀ for each example. Knows no method.

A layer's gradient is Σ_t e_t a_tᵀ, with inputs a and output gradients e. With independent CountSketches of both sides the inner
product of two sketched gradients is unbiased for that of the gradients (Pham & Pagh 2013: a sketch of outer products), and
sketches of several layers may be added, because independent sketches are uncorrelated.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from ...store.errors import SettingsError
from ..interface.model_view import BATCH_EXAMPLES, BatchOutputs, LinearLayer, ModelShape
from .count_sketch import count_sketch


@dataclass(frozen=True, slots=True)
class Projection:
    """The input and output sketch of one layer."""

    name: str
    """Name of the layer."""
    inputs: torch.Tensor
    """(inputs, k) float32, one ±1 per row."""
    errors: torch.Tensor
    """(outputs, k) float32, one ±1 per row."""


def projections(maps: Sequence[LinearLayer], k: int, seed: int, device: torch.device) -> tuple[Projection, ...]:
    """Sketches with `k` buckets per side for each layer, seeded by its name."""
    return tuple(
        Projection(
            layer.name,
            count_sketch(layer.inputs, k, seed, f"gradient.in.{layer.name}", device).matrix(),
            count_sketch(layer.outputs, k, seed, f"gradient.out.{layer.name}", device).matrix(),
        )
        for layer in maps
    )


def projected(outputs: BatchOutputs, layers: Sequence[Projection]) -> Iterator[torch.Tensor]:
    """(n, k²) float32 for each layer in turn: the examples' sketched gradients of the loss summed over target positions."""
    for layer in layers:
        linear_io = outputs.linear_io(layer.name)
        left, right = linear_io.output_grads.float() @ layer.errors, linear_io.inputs.float() @ layer.inputs
        yield outer_sums(left, right, linear_io.example_ids, outputs.examples).flatten(1)


def outer_sums(left: torch.Tensor, right: torch.Tensor, example_ids: torch.Tensor, examples: int) -> torch.Tensor:
    """(n, a, b): Σ left_t right_tᵀ over the positions of each example; left (T, a), right (T, b), example_ids (T,) ascending."""
    out = torch.zeros(examples, left.shape[1], right.shape[1], device=left.device)
    ends = torch.cumsum(torch.bincount(example_ids, minlength=examples), 0).tolist()
    for example, (start, stop) in enumerate(zip([0, *ends], ends, strict=False)):
        torch.mm(left[start:stop].T, right[start:stop], out=out[example])
    return out


def direction(x: torch.Tensor, part: torch.Tensor | None = None) -> torch.Tensor:
    """A vector x scaled to unit norm, without a floor; 0 stays 0. With a part of x, that part divided by x's norm."""
    largest = x.abs().max().clamp(min=1e-38)
    scaled = x / largest
    norm: torch.Tensor = scaled.norm()
    return (scaled if part is None else part / largest) / norm.clamp(min=1)


def weighted_rows(table: torch.Tensor, index: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Σ_k value[p, k]·table[index[p, k]] → (p, table width), without the (p, k, width) array."""
    if not index.numel() or not table.shape[1]:
        return torch.zeros(len(index), table.shape[1], device=table.device)
    return torch.nn.functional.embedding_bag(index, table, per_sample_weights=value, mode="sum")


def projection_bytes(model_shape: ModelShape, maps: Sequence[LinearLayer], k: int, positions: int, numbers: int) -> int:
    """Memory in bytes of the sketches, one layer's sketched tokens (prompt tokens included), and rows of `numbers` values."""
    tables = sum(4 * k * (layer.inputs + layer.outputs) + 48 * max(layer.inputs, layer.outputs) for layer in maps)
    widest = max(layer.inputs + layer.outputs for layer in maps)
    tokens = max(positions, model_shape.max_length)
    return tables + 4 * tokens * (widest + 2 * k) + 4 * (2 * numbers + k * k) * min(positions, BATCH_EXAMPLES)


def require_sketch(name: str, k: int) -> None:
    """Raise SettingsError unless 1 ≤ k ≤ 4096."""
    if not 1 <= k <= 4096:
        raise SettingsError(f"{name} needs 1 ≤ k ≤ 4096")


def unit(rows: torch.Tensor, parts: torch.Tensor | None = None) -> torch.Tensor:
    """Rows (n, D) scaled to unit norm; rows of 0 stay 0. With `parts` (n, D): `parts` divided by the norms of `rows`."""
    largest = rows.abs().amax(1, keepdim=True).clamp(min=1e-38)
    scaled = rows / largest
    norms: torch.Tensor = scaled.norm(dim=1, keepdim=True)
    return (scaled if parts is None else parts / largest) / norms.clamp(min=1e-38)
