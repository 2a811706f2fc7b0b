"""Hidden states of some examples, read through a model or from arrays. Knows a provider."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ...store.errors import DataError
from ...store.layout import Array
from ..ingest.examples import Example, batches
from ..ingest.provider import Provider
from ..interface.model_view import OutputSpec
from ..models.batch_outputs import merge_specs

BATCH_TOKENS = 4096
"""Padded tokens of a batch."""


def states_of(provider: Provider, part: list[Example], layer: int) -> tuple[Array, dict[str, torch.Tensor]]:
    """How many positions each of some examples has (n,); and, in their order, `hidden` (P, D), `targets` (P,) and of a layer that
    is not the last `inner` (P, D'), in the model's dtype, on the host.

    Raises:
        DataError: a hidden state is not finite.
    """
    counts, wanted = np.array([example.counted for example in part], np.int64), [one for one in part if one.counted]
    empty = provider.head.weight.new_zeros(0, provider.head.model_shape.hidden, device="cpu")
    none = {"hidden": empty, "targets": torch.zeros(0, dtype=torch.int64)} | ({"inner": empty} if layer >= 0 else {})
    if not wanted:
        return counts, none
    parts: dict[str, list[Any]] = {name: [None] * len(wanted) for name in none}
    for batch in batches(wanted, max(BATCH_TOKENS, *(one.length for one in wanted))):
        for name, values in _batch_states(provider, [wanted[at] for at in batch], layer).items():
            for at, value in zip(batch, values, strict=True):
                parts[name][at] = value
    return counts, {name: torch.cat(values) for name, values in parts.items()}


def _batch_states(provider: Provider, batch: list[Example], layer: int) -> dict[str, tuple[torch.Tensor, ...]]:
    """Tensors of each example of a batch."""
    with torch.inference_mode():
        outputs = provider.read(batch, merge_specs([OutputSpec(layers=(layer,) if layer >= 0 else ())]))
        dtype, tensors = provider.head.weight.dtype, {"hidden": outputs.hidden(), "targets": outputs.targets}
        if layer >= 0:
            tensors["inner"] = outputs.hidden(layer)
        finite = torch.isfinite(tensors["hidden"].float().sum(1))
        if not finite.all():
            raise DataError(
                f"a hidden state of example {batch[int(outputs.example_ids[int(finite.int().argmin())])].id} is not finite"
            )
    told = {name: (value if name == "targets" else value.to(dtype)).cpu() for name, value in tensors.items()}
    return {name: torch.split(value, [example.counted for example in batch]) for name, value in told.items()}
