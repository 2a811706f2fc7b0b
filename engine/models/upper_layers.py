"""Runs the layers above a given one again, on changed hidden states.

The trunk itself runs, so that attention masks, position embeddings and the final norm are the model's own: the lower layers
pass their input through unchanged, and the layer in question gets the changed states. Knows a trunk; no method, no text.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

from ...store.errors import ModelError
from .transformers_types import HfModel, HookArgs

_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 5e-3}  # relative to the largest state


class TrunkUpperLayers:
    """A batch of n examples, right-padded to T tokens, at one layer of a trunk."""

    def __init__(self, trunk: HfModel, count: int, layer: int, ids: torch.Tensor, target_mask: torch.Tensor) -> None:
        """Run a trunk that has `count` layers and record the input of number `layer`; ids (n, T) int64, target_mask (n, T) bool.

        Raises:
            ModelError: the trunk has no list of `count` layers.
        """
        self._trunk, self._layers, self._layer = trunk, _layers_of(trunk, count), layer
        with torch.inference_mode(False), torch.no_grad():
            self._ids, self.target_mask = ids.clone(), target_mask.clone()
            recorded: dict[str, HookArgs] = {}
            with _recording_input(self._layers[layer], recorded), _recording_output(self._layers[0], recorded):
                output = trunk(input_ids=self._ids, use_cache=False).last_hidden_state
            self.states: torch.Tensor = recorded["input"]
            """(n, T, D') input of the layer."""
            self._wrapped = isinstance(recorded["output"], tuple)
            self.targets: torch.Tensor = torch.roll(self._ids, -1, 1)
            """(n, T) int64: the next token of each position."""
            self.hidden: torch.Tensor = output
            """(n, T, D) input of the head for the unchanged states."""

    def check(self) -> None:
        """Raise ModelError unless unchanged states reproduce the trunk's output within the dtype's tolerance."""
        all_rows = torch.arange(len(self._ids), device=self._ids.device)
        with torch.no_grad():
            recomputed = self.forward_from(self.states, all_rows)
        expected = self.hidden[self.target_mask].float()
        finite = torch.isfinite(expected).all(1)  # the caller, which knows their ids, reports non-finite examples
        if not finite.any():
            return
        expected, recomputed = expected[finite], recomputed[finite]
        difference, largest = float((recomputed.float() - expected).abs().max()), float(expected.abs().max())
        if not difference <= _TOLERANCE[recomputed.dtype] * largest:
            raise ModelError(
                f"the layers of {type(self._trunk).__name__} above {self._layer} cannot be run separately: use a method or "
                "setting that does not need them (such as stride.space logits)"
            )

    def forward_from(self, states: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
        """(P, D) input of the head at the target positions of examples `which` (m,), computed from their changed states
        (m, T, D'); differentiable with respect to the states.
        """
        with torch.inference_mode(False), ExitStack() as stack:
            for layer in self._layers[: self._layer]:
                stack.enter_context(_passing_through(layer, self._wrapped))
            stack.enter_context(_with_input(self._layers[self._layer], states))
            output = self._trunk(input_ids=self._ids[which], use_cache=False).last_hidden_state
        hidden: torch.Tensor = output[self.target_mask[which]]
        return hidden


def _layers_of(trunk: HfModel, count: int) -> torch.nn.ModuleList:
    """The trunk's list of layers, in order.

    Raises:
        ModelError: there is no list of `count` layers.
    """
    lists = (module for module in trunk.modules() if isinstance(module, torch.nn.ModuleList))
    layers = next((modules for modules in lists if len(modules) == count), None)  # the outermost comes first
    if layers is None:
        raise ModelError(f"{type(trunk).__name__} has no list of {count} layers that could be run again")
    return layers


@contextmanager
def _recording_input(layer: HfModel, recorded: dict[str, HookArgs]) -> Iterator[None]:
    """Record the input of a layer."""

    def hook(module: HfModel, args: HookArgs, kwargs: HookArgs) -> None:
        recorded["input"] = (args[0] if args else kwargs["hidden_states"]).detach()

    handle = layer.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _recording_output(layer: HfModel, recorded: dict[str, HookArgs]) -> Iterator[None]:
    """Record the output of a layer."""
    handle = layer.register_forward_hook(lambda module, args, output: recorded.__setitem__("output", output))
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _passing_through(layer: HfModel, wrapped: bool) -> Iterator[None]:
    """Make a layer return its input unchanged."""

    def forward(*args: HookArgs, **kwargs: HookArgs) -> HookArgs:
        states = args[0] if args else kwargs["hidden_states"]
        return (states,) if wrapped else states

    instance_forward = vars(layer).get("forward")  # a reference to the bound method would keep the layer alive
    layer.forward = forward
    try:
        yield
    finally:
        del layer.forward
        if instance_forward is not None:
            layer.forward = instance_forward


@contextmanager
def _with_input(layer: HfModel, states: torch.Tensor) -> Iterator[None]:
    """Replace the input of a layer."""

    def hook(module: HfModel, args: HookArgs, kwargs: HookArgs) -> HookArgs:
        return ((states, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": states})

    handle = layer.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
