"""Computes the hidden states of examples through a provider. Knows no method and no file."""

from __future__ import annotations

import numpy as np
import torch

from ...store.layout import Array
from ..ingest.examples import Example
from ..ingest.outputs import batching_for, outputs
from ..ingest.provider import Provider
from ..interface.model_view import OutputSpec
from ..models.batch_outputs import PackedOutputs, merge_specs


def states_of(provider: Provider, examples: list[Example], layer: int) -> tuple[Array, dict[str, torch.Tensor]]:
    """(n,) number of target positions of each example; and, in the order of the examples, `hidden` (P, D), `targets` (P,) and, if
    `layer` is not -1, its states as `inner` (P, D'), in the model's dtype, on the host.

    Raises:
        DataError: a hidden state is not finite.
    """
    counts = np.array([example.target_count for example in examples], np.int64)
    with_targets = [example for example in examples if example.target_count]
    empty = provider.head.weight.new_zeros(0, provider.head.model_shape.hidden, device="cpu")
    no_states = {"hidden": empty, "targets": torch.zeros(0, dtype=torch.int64)} | (
        {"inner": empty} if layer >= 0 else {}
    )
    if not with_targets:
        return counts, no_states
    by_example: list[dict[str, torch.Tensor]] = [{} for _ in with_targets]
    spec = merge_specs([OutputSpec(layers=(layer,) if layer >= 0 else ())])

    def states(batch_outputs: PackedOutputs) -> dict[str, tuple[torch.Tensor, ...]]:
        """Tensors of each example of a batch."""
        dtype, tensors = (
            provider.head.weight.dtype,
            {"hidden": batch_outputs.hidden(), "targets": batch_outputs.targets},
        )
        if layer >= 0:
            tensors["inner"] = batch_outputs.hidden(layer)
        host = {name: (value if name == "targets" else value.to(dtype)).cpu() for name, value in tensors.items()}
        return {name: torch.split(value, batch_outputs.counts) for name, value in host.items()}

    batching = batching_for(with_targets, noun="example", logits=False)
    for batch, tensors in outputs(provider, with_targets, spec, states, batching):
        for name, values in tensors.items():
            for at, value in zip(batch, values, strict=True):
                by_example[at][name] = value
    return counts, {name: torch.cat([tensors[name] for tensors in by_example]) for name in no_states}
