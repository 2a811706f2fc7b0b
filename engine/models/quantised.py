"""Checkpoints of 8-bit, 4-bit and other quantised weights: transformers loads them with the library of their kind, and their
hidden states and float head are read. Knows no file, no method and no store.

Tested with bitsandbytes on a CPU, in 8 and 4 bits. Other kinds (GPTQ, AWQ, FP8, …) and quantised weights on a GPU are untested.
"""

from __future__ import annotations

import logging

import torch

from ...store.errors import ModelError
from .batch_outputs import LinearHead
from .transformers_types import HfConfig


def quantisation_of(config: HfConfig) -> str:
    """How a config says that its weights are quantised, such as "bitsandbytes, 4 bits"; "" if they are not."""
    settings = getattr(config, "quantization_config", None)
    if settings is None:
        return ""
    values = settings if isinstance(settings, dict) else settings.to_dict()
    method = values.get("quant_method") or "an unnamed method"
    kind = str(getattr(method, "value", method))
    bits = 4 if values.get("load_in_4bit") else 8 if values.get("load_in_8bit") else values.get("bits")
    return f"{kind}, {bits} bits" if isinstance(bits, int) else kind


def silence_kernels() -> None:
    """Silence what bitsandbytes logs at each product: that it casts inputs, or lacks a faster kernel."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def require_float_head(weight: torch.Tensor, path: str, kind: str) -> None:
    """Raise ModelError if a quantised model's head is quantised, too."""
    if not weight.is_floating_point() or weight.ndim != 2:
        raise ModelError(
            f"{path} ({kind}) has a quantised head ({weight.dtype}), but headwater reads the head's own numbers: quantise the "
            "model without its lm_head, or give it unquantised"
        )


def note_on(kind: str, head: LinearHead) -> str:
    """What the user should know of a quantised model."""
    dtype = str(head.weight.dtype).removeprefix("torch.")
    return (
        f"weights are quantised ({kind}): hidden states are those of the quantised model, and may depend a little on the batch; "
        f"the head is read as {dtype}"
    )
