"""Inputs and output gradients of the trunk's linear layers, by one backward pass.

No parameter gradient is computed: the gradient of an example's loss with respect to a layer's weight is a sum of outer products
of output gradients and inputs, from which a method computes what it needs. Knows no method and no text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from ...store.errors import ModelError
from ..interface.model_view import LinearIO, LinearLayer
from .batch_outputs import LinearHead
from .transformers_types import HfModel, HfOutput, HookArgs


def linear_layers_of(trunk: HfModel) -> dict[str, tuple[torch.nn.Module, LinearLayer]]:
    """Name → (module, widths) of a trunk's linear layers, torch's and GPT-2's (Conv1D), in the model's order."""
    layers: dict[str, tuple[torch.nn.Module, LinearLayer]] = {}
    for name, module in trunk.named_modules():
        weight: torch.Tensor | None = getattr(module, "weight", None)
        if isinstance(module, torch.nn.Linear):
            layers[name] = (module, LinearLayer(name, module.in_features, module.out_features))
        elif type(module).__name__ == "Conv1D" and weight is not None and weight.ndim == 2:
            layers[name] = (module, LinearLayer(name, weight.shape[0], weight.shape[1]))
    return layers


def skipped_weights(trunk: HfModel) -> tuple[str, ...]:
    """Names of a trunk's weight matrices, or stacks of them, that are in no linear layer and no embedding."""
    layers, skipped = linear_layers_of(trunk), []
    for name, weight in trunk.named_parameters():
        module_name = name.rpartition(".")[0]
        if (
            weight.ndim > 1
            and module_name not in layers
            and not isinstance(trunk.get_submodule(module_name), torch.nn.Embedding)
        ):
            skipped.append(name)
    return tuple(skipped)


@dataclass(frozen=True, slots=True)
class PaddedTokens:
    """Token ids of a batch of n examples, padded to T tokens."""

    ids: torch.Tensor
    """The token ids, (n, T) int64."""
    token_mask: torch.Tensor
    """(n, T) bool: False at padding."""
    target_mask: torch.Tensor
    """(n, T) bool: the target positions."""


def forward_with_linear_io(
    trunk: HfModel, head: LinearHead, tokens: PaddedTokens, names: Sequence[str], all_hidden_states: bool
) -> tuple[HfOutput, dict[str, LinearIO]]:
    """Run the trunk forward and backward; returns its output, and the `LinearIO` of each named layer over all tokens but padding.

    The loss is the negative log-likelihood of the next token, summed over the target positions. Also works under
    `torch.inference_mode`.

    Raises:
        ModelError: a layer is not used, or not at every token, such as the experts of a mixture.
    """  # fmt: skip
    modules = linear_layers_of(trunk)
    with torch.inference_mode(False), torch.enable_grad():
        ids, target_mask, token_mask = tokens.ids.clone(), tokens.target_mask.clone(), tokens.token_mask.clone()
        with _recording(trunk, {name: modules[name][0] for name in names}) as (inputs, output_grads):
            outputs = trunk(input_ids=ids, use_cache=False, output_hidden_states=all_hidden_states)
            hidden = outputs.last_hidden_state
            output_gradient = torch.zeros_like(hidden)
            output_gradient[target_mask] = head.hidden_gradient(
                hidden.detach()[target_mask], torch.roll(ids, -1, 1)[target_mask]
            )
            hidden.backward(output_gradient)
    example_ids = torch.arange(len(ids), device=ids.device)[:, None].expand_as(token_mask)[token_mask]
    return outputs, {name: _linear_io(name, inputs, output_grads, token_mask, example_ids) for name in names}


def _linear_io(
    name: str,
    inputs: dict[str, torch.Tensor],
    output_grads: dict[str, torch.Tensor],
    token_mask: torch.Tensor,
    example_ids: torch.Tensor,
) -> LinearIO:
    if name not in inputs or name not in output_grads:
        raise ModelError(
            f"the model does not use its linear layer {name}: exclude it with the method's setting `layers`"
        )
    if inputs[name].shape[:2] != token_mask.shape:
        raise ModelError(f"the linear layer {name} is not used at every token (its input is {tuple(inputs[name].shape)}): "
                         "exclude it with the method's setting `layers`")  # fmt: skip
    return LinearIO(inputs[name][token_mask], output_grads[name][token_mask], example_ids)


@contextmanager
def _recording(
    trunk: HfModel, modules: dict[str, torch.nn.Module]
) -> Iterator[tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]]:
    """Hooks that record each module's input and output gradient; the graph starts at the embeddings' output."""
    inputs: dict[str, torch.Tensor] = {}
    output_grads: dict[str, torch.Tensor] = {}

    def record(name: str) -> Callable[[HfModel, HookArgs, HookArgs], None]:
        def hook(module: HfModel, args: HookArgs, output: HookArgs) -> None:
            if name in inputs:
                raise ModelError(
                    f"the model uses its linear layer {name} more than once: exclude it with the setting `layers`"
                )
            inputs[name] = args[0].detach()
            if output.requires_grad:
                output.register_hook(lambda grad: output_grads.__setitem__(name, grad.detach()))

        return hook

    embeddings = trunk.get_input_embeddings()
    hooks = [embeddings.register_forward_hook(lambda module, args, output: output.detach().requires_grad_())]
    hooks += [module.register_forward_hook(record(name)) for name, module in modules.items()]
    try:
        yield inputs, output_grads
    finally:
        for hook in hooks:
            hook.remove()
