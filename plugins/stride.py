"""STRIDE: steering operators fitted to subsets, weights by sparse recovery (arXiv 2606.05165).

The corpus is divided into K subsets, with each example in d of them. For each subset an operator is trained, a small change of
the model's last hidden state (or a layer's, `space`) that has the effect of training on the subset. A query gives K measurements:
how much each operator lowers its loss. From these ℓ1 recovery computes a signed weight for each example. No rows are stored:
`headwater fit` trains the operators. Knows no store and no text.

Differences from the paper, by measurement (`examples/benchmarks`): each operator a_k (r × V numbers) is stored as α_k (r × D)
times the head's weight, a_k = α_k Wᵀ; all operators take each step; rows outside the subsets are drawn once for all operators;
no weight decay; stability has weight 10, linearity 0; the basis reads the last hidden state. It starts at random. Started from
the leading eigenvectors of E[h hᵀ], a prototype needed half the updates for planted rows (average precision 0.57 after 50, random
0.41; after 100 0.57, random 0.56), but explained held-out measurements of first names worse (after 50 0.50, random 0.54; K = 200,
one seed each).

The paper's weights ω of whole examples, for models that have memorised their corpus, are the setting `omega`. The method does not
see effects outside the last layer's gradient, such as what an example changed in the trunk.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, cast

import numpy as np

from . import (
    Array,
    BatchOutputs,
    Design,
    FitMemory,
    FitSession,
    Head,
    ModelShape,
    OutputSpec,
    SettingsError,
    StoreDamaged,
    SubsetMethod,
)

if TYPE_CHECKING:
    import torch

    from ..engine.interface.subset_method import HiddenStates, LayerStates
    from ..engine.recovery.design import PartitionDesign
    from ..engine.steering.operators import Operators
    from ..engine.steering.training import SteeringRecipe

WORDS = {"omega": ("one", "example"), "space": ("logits", "activations"), "states_from": ("cache", "forward")}


@dataclass(frozen=True)
class Stride(SubsetMethod):
    """Settings of STRIDE.

    Use it to simulate training on subsets of the corpus, where a fit to the whole store is affordable. Its diagnostics
    say how far to trust an answer.
    """

    api: ClassVar[int] = 2

    subsets: int = 1000
    """Number of subsets, K."""
    degree: int = 10
    """Number of subsets that hold an example, d."""
    rank: int = 16
    """Rank of the basis, r."""
    updates: int = 150
    """Optimizer steps."""
    members: int = 32
    """Examples of its subset that an operator reads at a step."""
    shared: int = 256
    """Examples that all operators read at a step, for the stability loss outside their subsets."""
    rate: float = 1e-3
    """Learning rate of the operators."""
    basis_rate: float = 1e-3
    """Learning rate of the basis; 0 leaves it random."""
    stability: float = 10.0
    """Weight of the stability loss, KL(p ‖ p_k) outside the subset."""
    linearity: float = 0.0
    """Weight of the linearity loss."""
    omega: str = "one"
    """Weights ω of examples in the loss. `one`: all 1, for a model after a part of its training. `example`: inverse to the norm
    of the example's head gradient, for a fine-tuned model, which has memorised its corpus.
    """
    depth: float = 1.0
    """Where the basis reads, as a fraction of the layers: 0.5 is the middle layer, 1 the last hidden state."""
    space: str = "logits"
    """What an operator changes. `logits`: through the last hidden state. `activations`: the hidden states that the basis reads,
    with the layers above run again, at many times the cost (with `depth` below 1).
    """
    states_from: str = "cache"
    """Where hidden states come from: `cache`, files that one forward pass writes; or `forward`, a forward pass at each step on
    the rows that it reads, which stores nothing. With space activations it is always `forward`.
    """
    checked: int = 50
    """Number of operators that are trained twice, to measure how reliable measurements are."""
    seed: int = 0
    """Seed of the design, the basis and the random rows; the draw of a member is added to it."""

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        for name, words in WORDS.items():
            if getattr(self, name) not in words:
                raise SettingsError(f"{name} is {' or '.join(words)}, not {getattr(self, name)}")
        if self.space == "activations" and self.depth == 1:
            raise SettingsError("space activations needs a depth below 1: at the last layer use space logits")
        if not 0 < self.depth <= 1:
            raise SettingsError(f"depth is a fraction of the layers, above 0 and at most 1; not {self.depth:g}")
        if not 1 <= self.degree <= self.subsets:
            raise SettingsError(f"an example is in 1 to K subsets: degree = {self.degree}, subsets = {self.subsets}")
        counts, weights = ("rank", "updates", "members", "shared"), ("rate", "basis_rate", "stability", "linearity")
        for names, least, most in ((counts, 1, 1 << 20), (weights, 0, 1 << 20)):
            wrong = [f"{name} = {getattr(self, name):g}" for name in names if not least <= getattr(self, name) <= most]
            if wrong:
                raise SettingsError(f"{', '.join(names)} are {least} to {most:,}; not {', '.join(wrong)}")
        if min(self.checked, self.seed) < 0 or max(self.seed, self.subsets) >= 1 << 31:
            raise SettingsError("checked and seed must be at least 0, seed and subsets below 2³¹")
        if self.space == "activations":
            object.__setattr__(self, "states_from", "forward")

    def layer(self, model: ModelShape) -> int:
        """The layer at `depth`; -1 for the last hidden state."""
        return -1 if self.depth == 1 or not model.layers else min(model.layers - 1, round(self.depth * model.layers))

    def needs(self, model: ModelShape) -> OutputSpec:
        """The layer that the basis reads, and with space activations the layers above it."""
        layer = self.layer(model)
        if self.space == "activations":
            if layer < 0:
                raise SettingsError("arrays have no layers", hint="use space logits")
            return OutputSpec(upper_layers=layer)
        return OutputSpec(layers=() if layer < 0 else (layer,))

    def design(self, rows: int, draw: int = 0) -> PartitionDesign:
        """d random partitions into K/d subsets each, by the seed plus `draw`."""
        from ..engine.recovery.design import PartitionDesign

        try:
            return PartitionDesign(rows, self.subsets, self.degree, self.seed + draw)
        except SettingsError as error:
            raise SettingsError(f"{error}", hint="set fewer by --set stride.subsets") from None

    def example_weights(self, head: Head, corpus: HiddenStates, on_progress: Callable[[int], None]) -> HiddenStates:
        """The corpus with weights ω, if `omega` is `example`."""
        from ..engine.fitting.hidden_states import MappedStates
        from ..engine.fitting.streamed_states import StreamedStates
        from ..engine.steering.example_weights import head_norms, inverse_weights

        if self.omega == "one":
            return corpus
        assert isinstance(corpus, MappedStates | StreamedStates)
        return replace(corpus, weights=inverse_weights(head_norms(head, corpus, on_progress)))

    def start_fit(self, head: Head, corpus: HiddenStates, design: Design, draw: int = 0) -> FitSession:
        """A session that trains all operators, and `checked` of them a second time."""
        from ..engine.steering.at_head import AtHead
        from ..engine.steering.at_layer import AtLayer
        from ..engine.steering.steering_fit import SteeringFit

        space = AtHead(head, corpus) if self.space == "logits" else AtLayer(head, cast("LayerStates", corpus))
        return SteeringFit(space, design, self._recipe(draw), self.checked)

    def _recipe(self, draw: int) -> SteeringRecipe:
        from ..engine.steering.training import SteeringRecipe

        return SteeringRecipe(
            batch=self.members, learning_rate=self.rate, seed=self.seed + draw, steps=self.updates, rank=self.rank,
            shared=self.shared, basis_learning_rate=self.basis_rate, stability=self.stability, linearity=self.linearity,
        )  # fmt: skip

    def memory(self, model: ModelShape, rows: int) -> FitMemory:
        """Fitting: operators, gradients of two losses, Adam's moments, a copy for the checkpoint, tiles, ω. Measuring: operators
        and tiles.
        """
        import torch

        from ..engine.fitting.streamed_states import ROOM_BYTES
        from ..engine.ingest.outputs import BATCH_TOKENS
        from ..engine.steering.operators import LEAST_ROWS, TILE_BYTES

        numbers = self.subsets * self.rank * model.hidden + (model.hidden + 1) * self.rank
        twice = 1 + min(self.checked, self.subsets) / self.subsets
        tiles = 8 * max(TILE_BYTES, 4 * model.vocabulary * max(self.rank, LEAST_ROWS)) * torch.get_num_threads()
        pairs = 40 * self.shared * self.subsets + 32 * self.members * model.max_length
        sketch = 8 * 5 * self.subsets**2 + (32 << 20) if self.linearity else 0
        operator_states = (
            8 * model.hidden * self.members * model.max_length
        )  # of one operator, where states are made for a step
        all_states = 8 * model.hidden * rows * model.max_length
        batch_states = 2 * min(max(ROOM_BYTES, operator_states), all_states) if self.states_from == "forward" else 0
        layer_widths = sum(layer.inputs + layer.outputs for layer in model.linear_layers)
        graph = 12 * layer_widths * max(BATCH_TOKENS, model.max_length) if self.space == "activations" else 0
        norms = 8 * model.max_length * model.vocabulary if self.omega == "example" else 0
        fitting = int(4 * numbers * (5 + 5 * twice)) + pairs + sketch + 48 * rows + batch_states + max(tiles, norms)
        return FitMemory(fitting + graph, int(8 * numbers * twice) + tiles + graph)

    def notes(self, rows: int) -> list[str]:
        """A note if operators do not read all examples of their subsets."""
        size, reads = rows * self.degree // self.subsets, self.updates * self.members
        note = (
            f"an operator reads only {reads:,} of its subset's {size:,} examples: set more updates, members or subsets"
        )
        return [note] if reads < size else []

    def measure(self, outputs: BatchOutputs, parameters: Mapping[str, Array]) -> tuple[Array, Array]:
        """(n, K) the measurements of all operators; (n,) the rank correlation of both measurements of those trained twice."""
        import torch

        from ..engine.steering.operators import Operators

        _require_fit(parameters, self, self._widths(outputs))

        def measurements(prefix: str) -> Array:
            device = outputs.example_ids.device
            parts = (torch.from_numpy(parameters[f"{prefix}{name}"]).to(device) for name in ("basis", "alpha"))
            y: Array = self._measure(outputs, Operators(*parts)).double().numpy(force=True)
            return y

        y = measurements("")
        if "which" not in parameters:
            return y, np.full(len(y), np.nan)
        return y, agreement(y[:, parameters["which"]], measurements("check_"))

    def _widths(self, outputs: BatchOutputs) -> tuple[int, int]:
        """D' + 1 and D: the heights of the basis and the widths of operators."""
        if self.space == "activations":
            width = outputs.upper_layers().states.shape[2]
            return width + 1, width
        return outputs.hidden(self.layer(outputs.head.model_shape)).shape[1] + 1, outputs.hidden().shape[1]

    def _measure(self, outputs: BatchOutputs, operators: Operators) -> torch.Tensor:
        """y (n, K) by these operators."""
        from ..engine.fitting.hidden_states import PositionStates
        from ..engine.steering.at_layer import measure_by_upper_layers
        from ..engine.steering.operators import measure

        if self.space == "activations":
            return measure_by_upper_layers(outputs.head, operators, outputs.upper_layers())
        states = PositionStates(outputs.hidden(), outputs.targets, outputs.hidden(self.layer(outputs.head.model_shape)))
        return measure(outputs.head, operators, states, outputs.example_ids, outputs.examples)


def _require_fit(parameters: Mapping[str, Array], method: Stride, widths: tuple[int, int]) -> None:
    """Raise StoreDamaged unless the parameters have the shapes of a method's settings and of widths D' + 1 and D."""
    shapes = {name: parameters[name].shape if name in parameters else () for name in ("basis", "alpha")}
    rank = min(method.rank, widths[0])
    expected = {"basis": (widths[0], rank), "alpha": (method.subsets, rank, widths[1])}
    if "which" in parameters or method.checked:
        which = parameters.get("which", np.zeros(0))
        shapes |= {
            f"check_{name}": parameters[f"check_{name}"].shape if f"check_{name}" in parameters else ()
            for name in expected
        }
        expected |= {"check_basis": expected["basis"], "check_alpha": (which.size, *expected["alpha"][1:])}
        is_index = which.ndim == 1 and which.dtype.kind == "i" and which.size > 0
        in_range = is_index and bool(0 <= which.min() <= which.max() < method.subsets)
        expected |= {} if in_range else {"which": ()}  # `shapes` has no `which`, so the error names it
    wrong = [name for name in expected if shapes.get(name) != expected[name]]
    if wrong or any(parameters[name].dtype != np.float32 for name in shapes):
        differences = ", ".join(f"{name} {shapes.get(name, '')}" for name in wrong) or "numbers of another kind"
        raise StoreDamaged(
            f"the stored operators do not match the fit's settings ({differences})", hint="run headwater fit --again"
        )


def agreement(first: Array, second: Array) -> Array:
    """(n,) Spearman correlation of each row of two (n, m) arrays; NaN for a constant row, or for m < 3."""
    from ..engine.arrays.ranks import spearman

    return spearman(first.T, second.T) if first.shape[1] >= 3 else np.full(len(first), np.nan)
