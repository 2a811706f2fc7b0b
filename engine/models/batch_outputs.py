"""The outputs of one batch: hidden states at target positions, and reductions of the logits, tile by tile.

The logits are made tile by tile and shared by all reductions of a run, so that the head's product is computed once a
batch and tokens × vocabulary is never whole. Knows no model class, no text, no store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from ...store.errors import DataError, SettingsError
from ..interface.model_view import LinearIO, ModelShape, OutputSpec, Reduction, UpperLayers
from ..sketches.residual import Loss

TILE_BYTES = 48 << 20
"""Float32 logits in a tile: a few hundred rows of a large vocabulary, enough for the product's full speed."""
CACHED_BYTES = 2 << 20
"""A tile of at most this much is read by the reductions from the processor's cache: a quarter less time for V = 4,096."""


@dataclass(frozen=True, slots=True)
class LinearHead:
    """z = softcap·tanh(scale·(W h + b)/softcap): the last map of the model, as the model itself computes it."""

    model_shape: ModelShape
    weight: torch.Tensor
    """(V, D)."""
    bias: torch.Tensor | None = None
    """(V,) or none."""
    scale: float = 1.0
    """Factor on the logits."""
    softcap: float = 0.0
    """Bound of the logits by tanh; 0 for none."""

    def logits(self, hidden: torch.Tensor, into: torch.Tensor | None = None) -> torch.Tensor:
        """(p, D) → (p, V): the product in the model's dtype, everything after in float32.

        `into` ((p or more, V) float32) is where the result may be put: memory that was used before takes a third off the
        product's time for V = 4,096.
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

    def error(self, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """(p, D), (p,) → (p, D) gradient of Σ -log softmax(z)_y with respect to the hidden states, in their dtype."""
        found, step = torch.empty_like(hidden), self.tile_rows()
        for first in range(0, len(hidden), step):
            part = slice(first, first + step)
            z = self.logits(hidden[part])
            r = torch.softmax(z, 1)
            r[torch.arange(len(r), device=r.device), targets[part]] -= 1
            if self.softcap:
                r.mul_(z.div_(self.softcap).square_().neg_().add_(1))
            found[part] = (r.mul_(self.scale).to(self.weight.dtype) @ self.weight).to(hidden.dtype)
            del z, r  # or two tiles more would be held while the next is made
        return found

    def tile(self, positions: int) -> torch.Tensor | None:
        """Memory for the logits of so many positions at most a tile; none where the product is not made in float32."""
        rows = min(self.tile_rows(), positions)
        return self.weight.new_empty(rows, self.model_shape.vocabulary) if self.weight.dtype == torch.float32 else None

    def tile_rows(self) -> int:
        """Positions in a tile; on a CPU no more than the product needs for its speed, so that small tiles stay in cache."""
        row = 4 * self.model_shape.vocabulary
        most = TILE_BYTES // row
        return max(16, most if self.weight.device.type != "cpu" else min(most, max(256, CACHED_BYTES // row)))


def merged_specs(needs: Sequence[OutputSpec]) -> OutputSpec:
    """What several methods need together, each thing once, and the loss, which every example is stored with."""
    layers = dict.fromkeys(layer for need in needs for layer in need.layers)
    reductions: dict[Reduction, None] = {Loss(): None}
    reductions.update(dict.fromkeys(reduction for need in needs for reduction in need.reductions))
    linear_layers = dict.fromkeys(name for need in needs for name in need.linear_layers)
    above = {need.upper_layers for need in needs if need.upper_layers >= 0}
    if len(above) > 1:
        raise SettingsError(f"layers above {' and '.join(map(str, sorted(above)))} cannot be run again in one pass")
    return OutputSpec(tuple(layers), tuple(reductions), tuple(linear_layers), above.pop() if above else -1)


@dataclass(frozen=True, slots=True)
class Positions:
    """The positions of a batch that count, example after example."""

    example_ids: torch.Tensor
    """(P,) the example of each, by its place in the batch."""
    targets: torch.Tensor
    """(P,) the token or class that each should predict."""
    counts: Sequence[int]
    """How many each example has, in order."""


class PackedOutputs:
    """A batch as the contract's `BatchOutputs` promises it."""

    def __init__(
        self,
        head: LinearHead,
        hiddens: Mapping[int, torch.Tensor],
        positions: Positions,
        needs: OutputSpec,
        logits: torch.Tensor | None = None,
        traces: Mapping[str, LinearIO] | None = None,
        upper_layers: UpperLayers | None = None,
    ) -> None:
        """`hiddens` maps layer to (P, D_layer); `logits` (P, V) float32 where they were given instead of following from the
        head.
        """
        self.head, self.example_ids, self.targets = head, positions.example_ids, positions.targets
        self.examples, self.counts = len(positions.counts), list(positions.counts)
        self._hiddens, self._needs, self._logits = hiddens, needs, logits
        self._traces, self._upper_layers = traces or {}, upper_layers
        self._reduced: dict[Reduction, tuple[torch.Tensor, ...]] | None = None

    def hidden(self, layer: int = -1) -> torch.Tensor:
        """(P, D_layer)."""
        return self._hiddens[layer]

    def reduced(self, reduction: Reduction) -> tuple[torch.Tensor, ...]:
        """The reduction's tensors; the first call computes those of all methods."""
        if self._reduced is None:
            self._reduced = self._reduce()
        return self._reduced[reduction]

    def linear_io(self, name: str) -> LinearIO:
        """What passed through a linear map."""
        return self._traces[name]

    def upper_layers(self) -> UpperLayers:
        """The batch at a layer."""
        assert self._upper_layers is not None, "what lies above a layer was not in Needs"
        return self._upper_layers

    def losses(self) -> torch.Tensor:
        """(n,) mean negative log-likelihood of each example in nats; 0 where nothing counts."""
        loss = self.reduced(Loss())[0]
        sums = torch.zeros(self.examples, device=loss.device).index_add_(0, self.example_ids, loss)
        return sums / torch.tensor(self.counts, device=loss.device).clamp(min=1)

    def _reduce(self) -> dict[Reduction, tuple[torch.Tensor, ...]]:
        kept: dict[Reduction, list[tuple[torch.Tensor, ...]]] = {r: [] for r in self._needs.reductions}
        hidden, step = self.hidden(), self.head.tile_rows()
        tile = self.head.tile(len(hidden)) if self._logits is None else None
        for first in range(0, max(1, len(hidden)), step):
            part = slice(first, first + step)
            logits = self.head.logits(hidden[part], tile) if self._logits is None else self._logits[part]  # (p, V)
            self._refuse_nonfinite(logits, first)
            for reduction, parts in kept.items():
                parts.append(tuple(_apart(tensor, logits) for tensor in reduction(logits, self.targets[part])))
            del logits  # or two tiles would be held while the next is made
        return {reduction: _joined(kept.pop(reduction)) for reduction in self._needs.reductions}

    def _refuse_nonfinite(self, logits: torch.Tensor, first: int) -> None:
        suspects = (~torch.isfinite(logits.sum(1))).nonzero()[:, 0]  # a sum of finite numbers may still overflow
        bad = suspects[~torch.isfinite(logits[suspects]).all(1)]
        if len(bad):
            raise NonFiniteLogits(int(self.example_ids[first + int(bad[0])]))


class NonFiniteLogits(DataError):
    """NaN or Inf in the logits of one example of a batch; whoever knows its name says it."""

    def __init__(self, example: int) -> None:
        """`example` counts within the batch."""
        super().__init__(f"NaN or Inf in the logits of example {example} of the batch")
        self.example = example


def _apart(tensor: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """The tensor, copied if it is a view of the tile that the next one will overwrite."""
    return tensor.clone() if tensor.untyped_storage().data_ptr() == logits.untyped_storage().data_ptr() else tensor


def _joined(parts: list[tuple[torch.Tensor, ...]]) -> tuple[torch.Tensor, ...]:
    """Tiles' tensors joined along positions; where their widths differ, zeros are added on the right."""
    if len(parts) == 1:
        return parts[0]
    joined = []
    for tensors in zip(*parts, strict=True):
        shape = [
            sum(len(t) for t in tensors),
            *(max(sizes) for sizes in zip(*(t.shape[1:] for t in tensors), strict=True)),
        ]
        whole, at = tensors[0].new_zeros(shape), 0
        for tensor in tensors:
            whole[(slice(at, at + len(tensor)), *map(slice, tensor.shape[1:]))] = tensor
            at += len(tensor)
        joined.append(whole)
    return tuple(joined)
