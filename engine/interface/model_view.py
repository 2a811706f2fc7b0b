"""What a method may read of a model and of one batch: shape, head, hidden states, gradients of linear layers.

Protocols and small values, which `engine/models` and `engine/ingest` implement. Knows no method, no model class, no file; torch
only as a type.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Protocol

from ...store.errors import SettingsError

if TYPE_CHECKING:  # listing methods reads this module, and must load neither torch nor NumPy
    import torch


BATCH_EXAMPLES = 256
"""Largest number of examples in a batch: `scratch` uses it to bound memory that grows with the number of examples."""

TILE_BYTES = 48 << 20
"""Bytes of float32 logits per tile: a few hundred rows of a large vocabulary, enough for the product's full speed."""


def tile_bytes(vocabulary: int) -> int:
    """Largest size in bytes of the tile of float32 logits that a reduction is given: 48 MiB, or 16 positions."""
    return max(TILE_BYTES, 16 * 4 * vocabulary)


@dataclass(frozen=True, slots=True)
class LinearLayer:
    """A linear layer of the trunk."""

    name: str
    """Name of its module, such as layers.0.mlp.down_proj."""
    inputs: int
    """Width of its input."""
    outputs: int
    """Width of its output."""


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The sizes of a model, known before any forward pass."""

    hidden: int
    """Width D of the last hidden state, which the head reads."""
    vocabulary: int
    """Number V of rows of the head's weight: tokens, or classes."""
    layers: int
    """Number of the model's layers. Hidden states 0 (the embeddings' output) to layers - 1 can be read besides the last one."""
    max_length: int
    """Longest example, in tokens."""
    linear_layers: tuple[LinearLayer, ...] = ()
    """Linear layers of the trunk, in the model's order; empty for arrays in place of a model."""
    skipped_weights: tuple[str, ...] = ()
    """Names of the trunk's matrices outside linear layers, such as experts in one tensor; methods get no gradients of them."""

    def layers_matching(self, patterns: tuple[str, ...]) -> tuple[LinearLayer, ...]:
        """The linear layers whose names match one of the patterns, such as *.mlp.*.

        Raises:
            SettingsError: no layer matches.
        """
        layers = self.linear_layers
        matches = tuple(layer for layer in layers if any(fnmatchcase(layer.name, pattern) for pattern in patterns))
        if not matches:
            names = f"it has {', '.join(layer.name for layer in layers[:8])} …" if layers else "it has none"
            raise SettingsError(f"no linear layer of the model is named {' or '.join(patterns)}: {names}")
        return matches


class Reduction(Hashable, Protocol):
    """A function of a tile of logits: methods see the logits only tile by tile.

    A frozen dataclass. Equal reductions are computed once per batch, for all methods that declare them.
    """

    def __call__(self, logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(p, V) logits in float32 and (p,) targets → tensors whose first axis is p, small in the others."""


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """The outputs of a batch that a method reads, so that one forward pass serves all methods of a run."""

    layers: tuple[int, ...] = ()
    """Layers whose hidden states are read, besides the last one; 0 is the embeddings' output."""
    reductions: tuple[Reduction, ...] = ()
    """Reductions of the logits."""
    linear_layers: tuple[str, ...] = ()
    """Names of linear layers whose gradients are read: they cost a backward pass."""
    upper_layers: int = -1
    """Layer whose states a method changes and from which it runs the model again; -1: none."""

    def beyond(self, model: ModelShape) -> tuple[int, ...]:
        """The declared layers that a model of this shape does not have."""
        layers = (*self.layers, self.upper_layers) if self.upper_layers >= 0 else self.layers
        return tuple(layer for layer in layers if not 0 <= layer < model.layers)


@dataclass(frozen=True, slots=True)
class LinearIO:
    """Inputs and output gradients of one linear layer, at all tokens of a batch (not only at target positions), example after
    example.

    The gradient of example i's loss, summed over its target positions, with respect to the layer's weight is
    Σ_t output_grads_t inputs_tᵀ over the tokens t of example i.
    """

    inputs: torch.Tensor
    """(T, inputs), in the model's dtype."""
    output_grads: torch.Tensor
    """(T, outputs): gradient of the summed loss with respect to the layer's output."""
    example_ids: torch.Tensor
    """(T,) int64, ascending: the example in the batch that a token belongs to."""


class UpperLayers(Protocol):
    """A batch of n examples at one layer, padded to T tokens, and the layers above it."""

    @property
    def states(self) -> torch.Tensor:
        """The layer's input: (n, T, D')."""

    @property
    def hidden(self) -> torch.Tensor:
        """The last hidden state, which the head reads: (n, T, D)."""

    @property
    def target_mask(self) -> torch.Tensor:
        """(n, T) bool: the target positions."""

    @property
    def targets(self) -> torch.Tensor:
        """(n, T) int64: the next token, at target positions."""

    def forward_from(self, states: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
        """(P, D) the last hidden state at the target positions of examples `which` (m,), computed from their changed states
        (m, T, D') and differentiable in them.
        """


class Head(Protocol):
    """The model's last linear layer, hidden state → logits: z = softcap·tanh(scale·(W h + b)/softcap)."""

    @property
    def model_shape(self) -> ModelShape:
        """The model's sizes."""

    @property
    def weight(self) -> torch.Tensor:
        """The weight W: (V, D), on the model's device."""

    @property
    def bias(self) -> torch.Tensor | None:
        """The bias b: (V,), or None."""

    @property
    def scale(self) -> float:
        """Factor of the logits."""

    @property
    def softcap(self) -> float:
        """Bound of the logits by tanh; 0: no bound."""


class BatchOutputs(Protocol):
    """A model's outputs for a batch of n examples at its P target positions, packed, example after example, without padding.

    Target positions are those whose next token counts towards the loss: all of a text's, the completion's of an example with a
    prompt.
    """

    @property
    def examples(self) -> int:
        """n: number of examples."""

    @property
    def head(self) -> Head:
        """The model's head."""

    @property
    def example_ids(self) -> torch.Tensor:
        """(P,) int64, ascending: the example in the batch that a position belongs to."""

    @property
    def targets(self) -> torch.Tensor:
        """(P,) int64: the next token, or the label."""

    def hidden(self, layer: int = -1) -> torch.Tensor:
        """(P, D_layer) hidden states in the model's dtype; -1 is the last one, after the final norm, which the head reads.

        Other layers must be declared in `OutputSpec`. All methods of a run share the tensor: do not change it.
        """

    def reduced(self, reduction: Reduction) -> tuple[torch.Tensor, ...]:
        """A reduction's tensors over all target positions, first axis P; shared. It must be declared in `OutputSpec`."""

    def logits(self, positions: torch.Tensor) -> torch.Tensor:
        """(p, V) float32: the logits at some target positions, whose numbers are `positions` (p,) int64; computed at each call.

        For statistics over a few positions of each example. `sketch` should use reductions, which share the head's product with
        all methods of a run.
        """

    def linear_io(self, name: str) -> LinearIO:
        """Inputs and output gradients of a linear layer of the trunk; shared. It must be declared in `OutputSpec`."""

    def upper_layers(self) -> UpperLayers:
        """The batch at the layer that `OutputSpec` declares, and the layers above it."""
