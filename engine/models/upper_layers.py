"""Runs the layers above a given one again, on changed hidden states.

The trunk itself runs: its lower layers hand on what they are given, and the layer in question is given the changed states, so
that masks, positions and the last norm are the model's own, whatever they are. Knows a trunk; no method, no text.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from ...store.errors import ModelError
from .transformers_types import HfModel

_APART = {torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 5e-3}  # of the largest state, by rounding


class TrunkUpperLayers:
    """A batch of n examples, right-padded to T tokens."""

    def __init__(self, trunk: HfModel, count: int, layer: int, ids: torch.Tensor, counted: torch.Tensor) -> None:
        """Run a trunk of `count` layers, and note what `layer` is given; ids and counted (n, T).

        Raises:
            ModelError: the trunk has no such list of layers.
        """
        self._trunk, self._layers, self._layer = trunk, _layers_of(trunk, count), layer
        with torch.inference_mode(False), torch.no_grad():
            self._ids, self.counted = ids.clone(), counted.clone()
            seen: dict[str, Any] = {}
            with _watching(self._layers[layer], seen), _noting(self._layers[0], seen):
                whole = trunk(input_ids=self._ids, use_cache=False).last_hidden_state
            self.states: torch.Tensor = seen["given"]
            """(n, T, D') what the layer reads."""
            self._wrapped = isinstance(seen["gave"], tuple)
            self.targets: torch.Tensor = torch.roll(self._ids, -1, 1)
            """(n, T) int64."""
            self.hidden: torch.Tensor = whole
            """(n, T, D) what the head reads, unchanged."""

    def check(self) -> None:
        """Raise ModelError unless the same states lead to the same end."""
        every = torch.arange(len(self._ids), device=self._ids.device)
        with torch.no_grad():
            again = self.forward_from(self.states, every)
        known = self.hidden[self.counted].float()
        finite = torch.isfinite(known).all(1)  # of what is not, whoever knows the example's name says it
        if not finite.any():
            return
        known, again = known[finite], again[finite]
        if not float((again.float() - known).abs().max()) <= _APART[again.dtype] * float(known.abs().max()):
            raise ModelError(
                f"the layers of {type(self._trunk).__name__} above {self._layer} cannot be run again on their own"
            )

    def forward_from(self, states: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
        """(P, D) what the head reads at the counted positions of examples `which` (m,), from their changed states (m, T, D');
        differentiable in them.
        """
        with torch.inference_mode(False), ExitStack() as stack:
            for layer in self._layers[: self._layer]:
                stack.enter_context(_handing_on(layer, self._wrapped))
            stack.enter_context(_given(self._layers[self._layer], states))
            out = self._trunk(input_ids=self._ids[which], use_cache=False).last_hidden_state
        found: torch.Tensor = out[self.counted[which]]
        return found


def _layers_of(trunk: HfModel, count: int) -> Any:
    """The trunk's layers, in order.

    Raises:
        ModelError: there is no list of so many.
    """
    lists = (module for module in trunk.modules() if isinstance(module, torch.nn.ModuleList))
    found = next((one for one in lists if len(one) == count), None)  # the outermost comes first
    if found is None:
        raise ModelError(f"{type(trunk).__name__} has no list of {count} layers that could be run again")
    return found


@contextmanager
def _watching(layer: Any, seen: dict[str, Any]) -> Iterator[None]:
    """Note what a layer is given."""

    def hook(module: Any, given: Any, named: Any) -> None:
        seen["given"] = (given[0] if given else named["hidden_states"]).detach()

    handle = layer.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _noting(layer: Any, seen: dict[str, Any]) -> Iterator[None]:
    """Note what a layer gives."""
    handle = layer.register_forward_hook(lambda module, given, gave: seen.__setitem__("gave", gave))
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _handing_on(layer: Any, wrapped: bool) -> Iterator[None]:
    """A layer that gives what it is given."""

    def forward(*given: Any, **named: Any) -> Any:
        states = given[0] if given else named["hidden_states"]
        return (states,) if wrapped else states

    own = vars(layer).get("forward")  # a bound method that were kept here would keep the layer alive
    layer.forward = forward
    try:
        yield
    finally:
        del layer.forward
        if own is not None:
            layer.forward = own


@contextmanager
def _given(layer: Any, states: torch.Tensor) -> Iterator[None]:
    """A layer that reads other states than it is given."""

    def hook(module: Any, given: Any, named: Any) -> Any:
        return ((states, *given[1:]), named) if given else (given, {**named, "hidden_states": states})

    handle = layer.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
