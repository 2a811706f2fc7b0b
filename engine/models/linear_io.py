"""Inputs and output gradients of the trunk's linear layers, by one backward pass.

No parameter's gradient is ever made: with its inputs and errors at hand, a method takes of an example's gradient, which is a
sum of outer products, what it wants. Knows no method and no text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from ...store.errors import ModelError
from ..interface.model_view import LinearIO, LinearLayer
from .batch_outputs import LinearHead
from .transformers_types import HfModel


def linear_layers_of(trunk: HfModel) -> dict[str, tuple[Any, LinearLayer]]:
    """Name → module and widths of a trunk's linear maps, torch's and GPT-2's (Conv1D), in the model's order."""
    found = {}
    for name, module in trunk.named_modules():
        weight: Any = getattr(module, "weight", None)
        if isinstance(module, torch.nn.Linear):
            found[name] = (module, LinearLayer(name, weight.shape[1], weight.shape[0]))
        elif type(module).__name__ == "Conv1D" and weight is not None and weight.ndim == 2:
            found[name] = (module, LinearLayer(name, weight.shape[0], weight.shape[1]))
    return found


def skipped_weights(trunk: HfModel) -> tuple[str, ...]:
    """Names of a trunk's matrices, and stacks of them, that belong to no linear map and to no embedding."""
    maps, found = linear_layers_of(trunk), []
    for name, weight in trunk.named_parameters():
        owner = name.rpartition(".")[0]
        if weight.ndim > 1 and owner not in maps and not isinstance(trunk.get_submodule(owner), torch.nn.Embedding):
            found.append(name)
    return tuple(found)


def forward_with_linear_io(
    trunk: HfModel,
    head: LinearHead,
    ids: torch.Tensor,
    counted: torch.Tensor,
    real: torch.Tensor,
    names: Sequence[str],
    layers: bool,
) -> tuple[Any, dict[str, LinearIO]]:
    """The trunk's output for ids (n, T), and a trace of each named map over the tokens where `real` (n, T).

    The loss is the sum over positions where `counted` of the next token's negative log-likelihood. Works under
    `torch.inference_mode` too.

    Raises:
        ModelError: a map is not used, or not at every token, as the experts of a mixture are.
    """  # fmt: skip
    maps = linear_layers_of(trunk)
    with torch.inference_mode(False), torch.enable_grad():
        ids, counted, real = ids.clone(), counted.clone(), real.clone()
        with _watched(trunk, {name: maps[name][0] for name in names}) as (inputs, errors):
            out = trunk(input_ids=ids, use_cache=False, output_hidden_states=layers)
            hidden = out.last_hidden_state
            whole = torch.zeros_like(hidden)
            whole[counted] = head.error(hidden.detach()[counted], torch.roll(ids, -1, 1)[counted])
            hidden.backward(whole)
    example_ids = torch.arange(len(ids), device=ids.device)[:, None].expand_as(real)[real]
    return out, {name: _trace(name, inputs, errors, real, example_ids) for name in names}


def _trace(
    name: str,
    inputs: dict[str, torch.Tensor],
    errors: dict[str, torch.Tensor],
    real: torch.Tensor,
    example_ids: torch.Tensor,
) -> LinearIO:
    if name not in inputs or name not in errors:
        raise ModelError(f"the model does not use its linear map {name}: leave it out by the method's setting layers")
    if inputs[name].shape[:2] != real.shape:
        raise ModelError(f"the linear map {name} is not used at every token (it saw {tuple(inputs[name].shape)}): "
                         "leave it out by the method's setting layers")  # fmt: skip
    return LinearIO(inputs[name][real], errors[name][real], example_ids)


@contextmanager
def _watched(
    trunk: HfModel, modules: dict[str, Any]
) -> Iterator[tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]]:
    """Hooks that note what the modules read and what flows back; the embeddings become the graph's beginning."""
    inputs: dict[str, torch.Tensor] = {}
    errors: dict[str, torch.Tensor] = {}

    def watch(name: str) -> Callable[[Any, Any, Any], None]:
        def hook(module: Any, given: Any, gave: Any) -> None:
            if name in inputs:
                raise ModelError(
                    f"the model uses its linear map {name} more than once: leave it out by the setting layers"
                )
            inputs[name] = given[0].detach()
            if gave.requires_grad:
                gave.register_hook(lambda error: errors.__setitem__(name, error.detach()))

        return hook

    embeddings = trunk.get_input_embeddings()
    hooks = [embeddings.register_forward_hook(lambda module, given, gave: gave.detach().requires_grad_())]
    hooks += [module.register_forward_hook(watch(name)) for name, module in modules.items()]
    try:
        yield inputs, errors
    finally:
        for hook in hooks:
            hook.remove()
