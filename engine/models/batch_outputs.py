"""The outputs of one batch: hidden states at target positions, and reductions of the logits, tile by tile.

The logits are computed tile by tile, and all reductions of a run share each tile: the head's product is computed once per
batch, and a (tokens, vocabulary) tensor never exists. Knows no model class, no text, no store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from ...store.errors import DataError, SettingsError
from ..interface.model_view import TILE_BYTES, LinearIO, ModelShape, OutputSpec, Reduction, UpperLayers
from ..sketches.residual import Loss

CACHED_BYTES = 2 << 20
"""A tile of this size stays in the CPU cache while reductions read it, which saves a quarter of the time at V = 4,096."""


@dataclass(frozen=True, slots=True)
class LinearHead:
    """The model's output head: z = softcap·tanh(scale·(W h + b)/softcap)."""

    model_shape: ModelShape
    weight: torch.Tensor
    """The weight W, (V, D)."""
    bias: torch.Tensor | None = None
    """The bias, (V,), or None."""
    scale: float = 1.0
    """Factor that multiplies the logits."""
    softcap: float = 0.0
    """Bound of the logits by tanh; 0 means no bound."""

    def logits(self, hidden: torch.Tensor, into: torch.Tensor | None = None) -> torch.Tensor:
        """(p, D) hidden states → (p, V) logits: the product in the model's dtype, everything after it in float32.

        `into` (p or more rows, V; float32) is an optional output buffer: reusing memory takes a third off the product's time
        for V = 4,096.
        """
        if into is None:
            z = torch.nn.functional.linear(hidden, self.weight, self.bias).float()
        elif self.bias is None:
            z = torch.mm(hidden, self.weight.t(), out=into[: len(hidden)])
        else:
            z = torch.addmm(self.bias, hidden, self.weight.t(), out=into[: len(hidden)])
        if self.scale != 1.0:
            z *= self.scale
        return z.div_(self.softcap).tanh_().mul_(self.softcap) if self.softcap else z

    def hidden_gradient(self, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Gradient of Σ -log softmax(z)_y with respect to hidden states: (p, D), targets (p,) → (p, D), in their dtype."""
        gradient, tile_rows = torch.empty_like(hidden), self.tile_rows()
        for first in range(0, len(hidden), tile_rows):
            rows = slice(first, first + tile_rows)
            z = self.logits(hidden[rows])
            r = torch.softmax(z, 1)
            r[torch.arange(len(r), device=r.device), targets[rows]] -= 1
            if self.softcap:
                r.mul_(z.div_(self.softcap).square_().neg_().add_(1))
            gradient[rows] = (r.mul_(self.scale).to(self.weight.dtype) @ self.weight).to(hidden.dtype)
            del z, r  # free them before the next tile is computed
        return gradient

    def tile(self, positions: int) -> torch.Tensor | None:
        """Buffer for one tile of logits of at most `positions` rows; None unless the product is computed in float32."""
        rows = min(self.tile_rows(), positions)
        return self.weight.new_empty(rows, self.model_shape.vocabulary) if self.weight.dtype == torch.float32 else None

    def tile_rows(self) -> int:
        """Positions per tile: at most `TILE_BYTES`; on a CPU at most `CACHED_BYTES` or 256 positions, so that a tile stays in
        cache.
        """
        row_bytes = 4 * self.model_shape.vocabulary
        max_rows = TILE_BYTES // row_bytes
        return max(
            16, max_rows if self.weight.device.type != "cpu" else min(max_rows, max(256, CACHED_BYTES // row_bytes))
        )


def merge_specs(specs: Sequence[OutputSpec]) -> OutputSpec:
    """Union of several specs without duplicates, plus the loss, which is stored for every example.

    Raises:
        SettingsError: two specs ask for different layers to continue the forward pass from.
    """
    layers = dict.fromkeys(layer for spec in specs for layer in spec.layers)
    reductions: dict[Reduction, None] = {Loss(): None}
    reductions.update(dict.fromkeys(reduction for spec in specs for reduction in spec.reductions))
    linear_layers = dict.fromkeys(name for spec in specs for name in spec.linear_layers)
    start_layers = {spec.upper_layers for spec in specs if spec.upper_layers >= 0}
    if len(start_layers) > 1:
        raise SettingsError(
            f"two methods run the upper layers from layers {' and '.join(map(str, sorted(start_layers)))}: "
            "use them in separate runs"
        )
    return OutputSpec(
        tuple(layers), tuple(reductions), tuple(linear_layers), start_layers.pop() if start_layers else -1
    )


@dataclass(frozen=True, slots=True)
class TargetPositions:
    """Target positions of a batch, packed example after example."""

    example_ids: torch.Tensor
    """(P,) index in the batch of the example of each position."""
    targets: torch.Tensor
    """(P,) token or class that each position should predict."""
    counts: Sequence[int]
    """Number of target positions of each example."""


@dataclass(frozen=True, slots=True)
class FurtherOutputs:
    """What was computed for a batch besides its hidden states."""

    logits: torch.Tensor | None = None
    """(P, V) float32: the logits, if they are given; None if the head computes them."""
    linear_io: Mapping[str, LinearIO] = field(default_factory=dict)
    """Linear layer → its inputs and output gradients."""
    upper_layers: UpperLayers | None = None
    """The batch at the layer from which the forward pass can be continued."""


HIDDEN_STATES_ALONE = FurtherOutputs()
"""No further outputs: hidden states only."""


class PackedOutputs:
    """Implementation of the protocol `BatchOutputs`: the outputs of one batch."""

    def __init__(
        self,
        head: LinearHead,
        hiddens: Mapping[int, torch.Tensor],
        positions: TargetPositions,
        spec: OutputSpec,
        further: FurtherOutputs = HIDDEN_STATES_ALONE,
    ) -> None:
        """`hiddens` maps layer to (P, D_layer)."""
        self.head, self.example_ids, self.targets = head, positions.example_ids, positions.targets
        self.examples, self.counts = len(positions.counts), list(positions.counts)
        self._hiddens, self._spec, self._logits = hiddens, spec, further.logits
        self._linear_io, self._upper_layers = further.linear_io, further.upper_layers
        self._reduced: dict[Reduction, tuple[torch.Tensor, ...]] | None = None

    def hidden(self, layer: int = -1) -> torch.Tensor:
        """(P, D_layer) hidden states; layer -1 is the input of the head."""
        return self._hiddens[layer]

    def reduced(self, reduction: Reduction) -> tuple[torch.Tensor, ...]:
        """The tensors of a reduction; the first call computes the reductions of all methods."""
        if self._reduced is None:
            self._reduced = self._reduce()
        return self._reduced[reduction]

    def logits(self, positions: torch.Tensor) -> torch.Tensor:
        """(p, V) float32 logits at the target positions whose numbers are given."""
        return self.head.logits(self.hidden()[positions]) if self._logits is None else self._logits[positions]

    def linear_io(self, name: str) -> LinearIO:
        """Inputs and output gradients of a linear layer."""
        return self._linear_io[name]

    def upper_layers(self) -> UpperLayers:
        """The batch at the layer that the spec names, from which the forward pass can be continued."""
        assert self._upper_layers is not None, "upper_layers was not in the OutputSpec"
        return self._upper_layers

    def losses(self) -> torch.Tensor:
        """(n,) mean negative log-likelihood of each example in nats; 0 for an example without target positions."""
        loss = self.reduced(Loss())[0]
        sums = torch.zeros(self.examples, device=loss.device).index_add_(0, self.example_ids, loss)
        return sums / torch.tensor(self.counts, device=loss.device).clamp(min=1)

    def _reduce(self) -> dict[Reduction, tuple[torch.Tensor, ...]]:
        reduced: dict[Reduction, list[tuple[torch.Tensor, ...]]] = {r: [] for r in self._spec.reductions}
        hidden, tile_rows = self.hidden(), self.head.tile_rows()
        tile = self.head.tile(len(hidden)) if self._logits is None else None
        for first in range(0, max(1, len(hidden)), tile_rows):
            rows = slice(first, first + tile_rows)
            logits = self.head.logits(hidden[rows], tile) if self._logits is None else self._logits[rows]  # (p, V)
            self._refuse_nonfinite(logits, first)
            for reduction, parts in reduced.items():
                parts.append(tuple(_without_view(tensor, logits) for tensor in reduction(logits, self.targets[rows])))
            del logits  # free the tile before the next one is computed
        return {reduction: _joined(reduced.pop(reduction)) for reduction in self._spec.reductions}

    def _refuse_nonfinite(self, logits: torch.Tensor, first: int) -> None:
        # only candidates: a sum of finite numbers may overflow too, so the rows' elements are tested next
        overflowing_rows = (~torch.isfinite(logits.sum(1))).nonzero()[:, 0]
        bad_rows = overflowing_rows[~torch.isfinite(logits[overflowing_rows]).all(1)]
        if len(bad_rows):
            raise NonFiniteLogits(int(self.example_ids[first + int(bad_rows[0])]))


class NonFiniteLogits(DataError):
    """NaN or Inf in the logits of one example of a batch; the caller, which knows the example's id, names it."""

    def __init__(self, example: int) -> None:
        """`example` is the index in the batch."""
        super().__init__(f"NaN or Inf in the logits of example {example} of the batch")
        self.example = example


def _without_view(tensor: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """The tensor, copied if it is a view of the tile, which the next tile overwrites."""
    return tensor.clone() if tensor.untyped_storage().data_ptr() == logits.untyped_storage().data_ptr() else tensor


def _joined(parts: list[tuple[torch.Tensor, ...]]) -> tuple[torch.Tensor, ...]:
    """Concatenate the tensors of all tiles along positions; narrower ones are padded with zeros on the right."""
    if len(parts) == 1:
        return parts[0]
    results = []
    for tensors in zip(*parts, strict=True):
        shape = [
            sum(len(t) for t in tensors),
            *(max(sizes) for sizes in zip(*(t.shape[1:] for t in tensors), strict=True)),
        ]
        joined_tensor, start = tensors[0].new_zeros(shape), 0
        for tensor in tensors:
            joined_tensor[(slice(start, start + len(tensor)), *map(slice, tensor.shape[1:]))] = tensor
            start += len(tensor)
        results.append(joined_tensor)
    return tuple(results)
