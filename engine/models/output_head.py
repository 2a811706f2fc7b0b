"""The output head of a transformers model, and the check that it reproduces the model's logits.

Also the memory of weights and of a forward pass. Knows no file, no tokenizer and no store.
"""

from __future__ import annotations

import torch

from ...store.errors import ModelError
from ..interface.model_view import ModelShape
from .batch_outputs import LinearHead
from .linear_io import linear_layers_of, skipped_weights
from .quantised import quantisation_of, require_float_head
from .transformers_types import HfConfig, HfModel

_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 6e-2, torch.float16: 1e-2}

_ROUNDED = 0.1
"""Largest mean change of hidden states by the rounding of quantised layers, as a part of their mean."""


def output_head(model: HfModel, config: HfConfig) -> LinearHead:
    """The head of a causal language model, with the scale and soft-cap of its config.

    Raises:
        ModelError: it is not a linear layer.
    """
    output = model.get_output_embeddings()
    if output is None or not hasattr(output, "weight"):
        raise ModelError(f"{type(model).__name__} has no linear language-model head")
    kind = quantisation_of(config)
    if kind:
        require_float_head(output.weight, type(model).__name__, kind)
    text = config.get_text_config()
    context = getattr(text, "max_position_embeddings", None) or getattr(text, "n_positions", None) or 2048
    layers = int(getattr(text, "num_hidden_layers", 0))
    linear_layers = tuple(layer for _, layer in linear_layers_of(model.base_model).values())
    model_shape = ModelShape(
        output.weight.shape[1],
        output.weight.shape[0],
        layers,
        int(context),
        linear_layers,
        skipped_weights(model.base_model),
    )
    scale = float(getattr(text, "logit_scale", None) or 1.0) / float(getattr(text, "logits_scaling", None) or 1.0)
    softcap = float(getattr(text, "final_logit_softcapping", None) or 0.0)
    return LinearHead(model_shape, output.weight.detach(), getattr(output, "bias", None), scale, softcap)


def check_head(model: HfModel, head: LinearHead, path: str, *, quantised: bool = False) -> None:
    """Raise ModelError if the head does not reproduce the model's own logits, or if the trunk is not causal.

    `quantised`: later tokens may change hidden states by as much as rounding to 8 bits, whose scales depend on the batch.
    """
    length = min(8, head.model_shape.max_length)
    ids = torch.arange(2 * length, device=head.weight.device).reshape(2, length) % head.model_shape.vocabulary
    with torch.inference_mode():
        model_logits = model(input_ids=ids, use_cache=False).logits.float()
        hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
        shorter = model.base_model(input_ids=ids[:, : (length + 1) // 2], use_cache=False).last_hidden_state
        if hidden.shape[-1] != head.model_shape.hidden:
            raise ModelError(
                f"{path}: the trunk's width {hidden.shape[-1]} is not the head's {head.model_shape.hidden}"
            )
        head_logits = head.logits(hidden)
    if not torch.isfinite(model_logits).all():
        return  # the first batch raises an error that names the example
    tolerance = _TOLERANCE[head.weight.dtype]
    causal = _ROUNDED if quantised else tolerance
    if float((hidden[:, : shorter.shape[1]] - shorter).abs().mean()) > causal * float(hidden.abs().mean()):
        raise ModelError(
            f"{path} is not causal: its states depend on later tokens; headwater supports causal language models only"
        )
    largest = float(model_logits.abs().max()) or 1.0
    difference = float((model_logits - head_logits).abs().max())
    if not difference <= tolerance * largest:
        raise ModelError(f"{path}: its logits are not W h + b with the scale and soft-cap of its config (they differ by "
                         f"{difference:.3g} of {largest:.3g}); the head of {type(model).__name__} is not supported")  # fmt: skip


def weight_bytes(model: HfModel) -> int:
    """Bytes of a model's parameters; shared ones count once."""
    return sum(p.numel() * p.element_size() for p in {id(p): p for p in model.parameters()}.values())


def activation_bytes(config: HfConfig, dtype: torch.dtype) -> int:
    """Bytes per padded token of a forward pass without gradients: one layer's widest tensors and the residual stream."""
    text = config.get_text_config()
    hidden = int(getattr(text, "hidden_size", 0) or getattr(text, "n_embd", 0))
    inner = int(getattr(text, "intermediate_size", 0) or getattr(text, "n_inner", 0) or 4 * hidden)
    return (10 * hidden + 4 * inner) * max(4, dtype.itemsize)
