"""What a method may see of a model and of one batch: shape, head, hidden states, gradients of linear layers.

Protocols and small values alone; `engine/models` and `engine/ingest` implement them. Knows no method, no model class, no file;
torch only as a type.
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
"""Examples in a batch at most, whatever its positions: with them, `scratch` bounds what grows by the example."""


@dataclass(frozen=True, slots=True)
class LinearLayer:
    """A linear map of the trunk."""

    name: str
    """Its module's name, such as layers.0.mlp.down_proj."""
    inputs: int
    """Width of what it reads."""
    outputs: int
    """Width of what it gives."""


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What can be known of a model before any forward pass."""

    hidden: int
    """Width D of the vector that the head reads."""
    vocabulary: int
    """Number V of rows of the head: tokens, or classes."""
    layers: int
    """Number of hidden layers below the last."""
    max_length: int
    """Longest example, in tokens."""
    linear_layers: tuple[LinearLayer, ...] = ()
    """Linear maps of the trunk, in the model's order; none where arrays stand in a model's place."""
    skipped_weights: tuple[str, ...] = ()
    """Names of the trunk's matrices that are in no linear map, such as experts in one tensor; out of reach."""

    def layers_matching(self, patterns: tuple[str, ...]) -> tuple[LinearLayer, ...]:
        """The linear maps whose names one of the patterns fits, such as *.mlp.*.

        Raises:
            SettingsError: there is none.
        """
        found = tuple(one for one in self.linear_layers if any(fnmatchcase(one.name, pattern) for pattern in patterns))
        if not found:
            there = (
                f"it has {', '.join(one.name for one in self.linear_layers[:8])} …"
                if self.linear_layers
                else "it has none"
            )
            raise SettingsError(f"no linear map of the model is named {' or '.join(patterns)}: {there}")
        return found


class Reduction(Hashable, Protocol):
    """What a method wants of the logits, which it never sees whole: a function of one tile of them.

    A frozen dataclass; equal reductions are computed once a batch, whoever asks.
    """

    def __call__(self, logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(p, V) logits in float32 and (p,) targets → tensors whose first axis is p, small in the others."""


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """What a method will ask of a readout, so that one forward pass serves all methods of a run."""

    layers: tuple[int, ...] = ()
    """Hidden layers besides the last: 0 is the embedding's output."""
    reductions: tuple[Reduction, ...] = ()
    """Reductions of the logits."""
    linear_layers: tuple[str, ...] = ()
    """Names of linear maps whose gradients are wanted: these cost a backward pass."""
    upper_layers: int = -1
    """Layer that is to be run again, with those above it, on changed states; -1: none."""

    def beyond(self, model: ModelShape) -> tuple[int, ...]:
        """Layers asked for that a model of these sizes does not have."""
        asked = (*self.layers, self.upper_layers) if self.upper_layers >= 0 else self.layers
        return tuple(layer for layer in asked if not 0 <= layer < model.layers)


@dataclass(frozen=True, slots=True)
class LinearIO:
    """What passed through one linear map, at all tokens of a batch (not the counted ones alone), example after example.

    The gradient of example i's loss, summed over its counted positions, with respect to the map's weight is
    Σ errors_t inputs_tᵀ over the tokens that i owns.
    """

    inputs: torch.Tensor
    """(T, inputs), in the model's dtype."""
    output_grads: torch.Tensor
    """(T, outputs): gradient of the summed loss with respect to what the map gave."""
    example_ids: torch.Tensor
    """(T,) int64, ascending."""


class UpperLayers(Protocol):
    """A batch of n examples at one layer, padded to T tokens, and what lies above it."""

    @property
    def states(self) -> torch.Tensor:
        """(n, T, D') what the layer reads."""

    @property
    def hidden(self) -> torch.Tensor:
        """(n, T, D) what the head reads."""

    @property
    def counted(self) -> torch.Tensor:
        """(n, T) bool: positions that count."""

    @property
    def targets(self) -> torch.Tensor:
        """(n, T) int64: what each position should predict, where it counts."""

    def forward_from(self, states: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
        """(P, D) what the head reads at the counted positions of examples `which` (m,), from their changed states (m, T, D');
        differentiable in them.
        """


class Head(Protocol):
    """The model's last map: z = softcap·tanh(scale·(W h + b)/softcap)."""

    @property
    def model_shape(self) -> ModelShape:
        """Its widths."""

    @property
    def weight(self) -> torch.Tensor:
        """W: (V, D), on the model's device."""

    @property
    def bias(self) -> torch.Tensor | None:
        """b: (V,), or none."""

    @property
    def scale(self) -> float:
        """Factor on the logits."""

    @property
    def softcap(self) -> float:
        """Bound of the logits by tanh; 0 for none."""


class BatchOutputs(Protocol):
    """What a model said of one batch: its counted positions, packed, example after example; padding never appears.

    With n examples and P counted positions (those whose next token counts: all of a text's, a prompted row's completion):
    """

    @property
    def examples(self) -> int:
        """n."""

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
        """(P, D_layer) hidden states in the model's dtype; -1 is what the head reads, after the final norm.

        Others must be in `OutputSpec`. All methods of a run share the tensor: nobody may change it.
        """

    def reduced(self, reduction: Reduction) -> tuple[torch.Tensor, ...]:
        """A reduction's tensors over all positions, first axis P; shared likewise. It must be in `OutputSpec`."""

    def linear_io(self, name: str) -> LinearIO:
        """What passed through a linear map of the trunk; shared likewise. It must be in `OutputSpec`."""

    def upper_layers(self) -> UpperLayers:
        """The batch at the layer that `OutputSpec` names, to be run again from there."""
