"""Computes hidden states of some examples, through a model or from arrays. Knows a provider."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ...store.layout import Array
from ..ingest.examples import Example
from ..ingest.outputs import batching_for, outputs
from ..ingest.provider import Provider
from ..interface.model_view import OutputSpec
from ..models.batch_outputs import PackedOutputs, merge_specs


def states_of(provider: Provider, part: list[Example], layer: int) -> tuple[Array, dict[str, torch.Tensor]]:
    """How many positions each of some examples has (n,); and, in their order, `hidden` (P, D), `targets` (P,) and of a layer that
    is not the last `inner` (P, D'), in the model's dtype, on the host.

    Raises:
        DataError: a hidden state is not finite.
    """
    counts, wanted = (
        np.array([example.target_count for example in part], np.int64),
        [one for one in part if one.target_count],
    )
    empty = provider.head.weight.new_zeros(0, provider.head.model_shape.hidden, device="cpu")
    none = {"hidden": empty, "targets": torch.zeros(0, dtype=torch.int64)} | ({"inner": empty} if layer >= 0 else {})
    if not wanted:
        return counts, none
    parts: dict[str, list[Any]] = {name: [None] * len(wanted) for name in none}
    spec = merge_specs([OutputSpec(layers=(layer,) if layer >= 0 else ())])

    def states(read: PackedOutputs) -> dict[str, tuple[torch.Tensor, ...]]:
        """Tensors of each example of a batch."""
        dtype, tensors = provider.head.weight.dtype, {"hidden": read.hidden(), "targets": read.targets}
        if layer >= 0:
            tensors["inner"] = read.hidden(layer)
        host = {name: (value if name == "targets" else value.to(dtype)).cpu() for name, value in tensors.items()}
        return {name: torch.split(value, read.counts) for name, value in host.items()}

    for batch, tensors in outputs(provider, wanted, spec, states, batching_for(wanted, noun="example", logits=False)):
        for name, values in tensors.items():
            for at, value in zip(batch, values, strict=True):
                parts[name][at] = value
    return counts, {name: torch.cat(values) for name, values in parts.items()}
