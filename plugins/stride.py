"""STRIDE: steering operators fitted to subsets, weights by sparse recovery (arXiv 2606.05165).

K subsets of the corpus, each example in d of them; for each subset an operator that changes the model's last hidden state (or a
layer's, `space`) a little, as training on the subset would change the model; a query's K measurements, how much each operator
lowers its loss; and from these, by ℓ1 recovery, a signed weight of every example. No row is stored: `headwater fit` trains the
operators.

Ours and not the paper's, as measured (`examples/benchmarks`): operators are factored through the head, a_k = α_k Wᵀ; every
operator takes every step; positions outside are drawn once for all operators; weight decay none; stability weighs 10, linearity
nothing; the basis reads the last hidden state.

Kept: whole-example weights ω for models that know their corpus by heart (`omega`). Dropped: what is in no subset's last-layer
gradient, such as what an example did to the trunk.
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
    """Settings of STRIDE."""

    api: ClassVar[int] = 2

    subsets: int = 1000
    """K."""
    degree: int = 10
    """d: subsets of an example."""
    rank: int = 16
    """r of the basis."""
    updates: int = 150
    """Steps, of every operator."""
    members: int = 32
    """Examples of its subset that an operator sees in a step, at most."""
    shared: int = 256
    """Positions outside, drawn for all operators at each step."""
    rate: float = 1e-3
    """Adam's, of the operators."""
    basis_rate: float = 1e-3
    """Of the basis; 0 keeps a random one."""
    stability: float = 10.0
    """Weight of KL(p ‖ p_k) outside."""
    linearity: float = 0.0
    """Weight of the linearity loss."""
    omega: str = "one"
    """`one`: examples count alike, for a model trained part-way; `example`: against their gradient at the head, for a tuned
    one."""
    depth: float = 1.0
    """Share of the layers below what the basis reads; 1 is the last hidden state."""
    space: str = "logits"
    """What an operator changes: the `logits`, or the `activations` that the basis reads, with the layers above run again, at many
    times the cost (`depth` below 1: at 1 both are one).
    """
    states_from: str = "cache"
    """Where hidden states come from: a `cache` of files beside the store, one pass for all steps; or a `forward` pass at every
    step on the rows drawn, which leaves nothing on disk. Space activations runs the model again, so there it is `forward`.
    """
    checked: int = 50
    """Operators that are trained twice, to see how reliable measurements are; 0 saves their time."""
    bases: tuple[str, ...] = ()
    """Models (or, of arrays, files) in place of the store's: each has a design of its own, and weights are averaged."""
    seed: int = 0
    """Of the design, the basis and what is drawn; base b has seed + b."""

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        for name, words in WORDS.items():
            if getattr(self, name) not in words:
                raise SettingsError(f"{name} is {' or '.join(words)}, not {getattr(self, name)}")
        if self.space == "activations" and self.depth == 1:
            raise SettingsError("space activations needs a depth below 1: of the last layer it is the logits' space")
        if not 0 < self.depth <= 1:
            raise SettingsError(f"depth is a share of the layers, above 0 and up to 1; not {self.depth:g}")
        if not 1 <= self.degree <= self.subsets:
            raise SettingsError(f"an example is in 1 to K subsets: degree = {self.degree}, subsets = {self.subsets}")
        counts, weights = ("rank", "updates", "members", "shared"), ("rate", "basis_rate", "stability", "linearity")
        for names, least, most in ((counts, 1, 1 << 20), (weights, 0, 1 << 20)):
            wrong = [f"{name} = {getattr(self, name):g}" for name in names if not least <= getattr(self, name) <= most]
            if wrong:
                raise SettingsError(f"{', '.join(names)} are {least} to {most:,}; not {', '.join(wrong)}")
        if min(self.checked, self.seed) < 0 or max(self.seed, self.subsets) >= 1 << 31:
            raise SettingsError("checked and seed are 0 at least, seed and subsets below 2³¹")
        if not all(isinstance(base, str) for base in self.bases):
            raise SettingsError(f"bases are folders or files, not {self.bases}")
        if self.space == "activations":
            object.__setattr__(self, "states_from", "forward")

    @property
    def base_models(self) -> tuple[str, ...]:
        """As set."""
        return self.bases

    def layer(self, model: ModelShape) -> int:
        """What `depth` means for a model."""
        return -1 if self.depth == 1 or not model.layers else min(model.layers - 1, round(self.depth * model.layers))

    def needs(self, model: ModelShape) -> OutputSpec:
        """The layer that the basis reads, and where it is changed what lies above."""
        layer = self.layer(model)
        if self.space == "activations":
            if layer < 0:
                raise SettingsError("arrays have no layers: their space is logits")
            return OutputSpec(upper_layers=layer)
        return OutputSpec(layers=() if layer < 0 else (layer,))

    def design(self, rows: int, base: int = 0) -> PartitionDesign:
        """d random partitions into K/d subsets each, under the base's seed."""
        from ..engine.recovery.design import PartitionDesign

        try:
            return PartitionDesign(rows, self.subsets, self.degree, self.seed + base)
        except SettingsError as error:
            raise SettingsError(f"{error}; -o stride.subsets says fewer") from None

    def example_weights(self, head: Head, corpus: HiddenStates, on_progress: Callable[[int], None]) -> HiddenStates:
        """With ω, where examples weigh."""
        from ..engine.fitting.hidden_states import MemoryStates
        from ..engine.fitting.streamed_states import StreamedStates
        from ..engine.steering.example_weights import head_norms, inverse_weights

        if self.omega == "one":
            return corpus
        assert isinstance(corpus, MemoryStates | StreamedStates)
        return replace(corpus, weights=inverse_weights(head_norms(head, corpus, on_progress)))

    def start_fit(self, head: Head, corpus: HiddenStates, design: Design, base: int = 0) -> FitSession:
        """All operators, and `checked` of them again."""
        from ..engine.steering.at_head import AtHead
        from ..engine.steering.at_layer import AtLayer
        from ..engine.steering.steering_fit import SteeringFit

        space = AtHead(head, corpus) if self.space == "logits" else AtLayer(head, cast("LayerStates", corpus))
        return SteeringFit(space, design, self._recipe(base), self.checked)

    def _recipe(self, base: int) -> SteeringRecipe:
        from ..engine.steering.training import SteeringRecipe

        return SteeringRecipe(
            batch=self.members, learning_rate=self.rate, seed=self.seed + base, steps=self.updates, rank=self.rank,
            shared=self.shared, basis_learning_rate=self.basis_rate, stability=self.stability, linearity=self.linearity,
        )  # fmt: skip

    def memory(self, model: ModelShape, rows: int) -> FitMemory:
        """Operators, their gradients of two losses and Adam's moments, a copy for the checkpoint; tiles, ω; the operators."""
        import torch

        from ..engine.fitting.streamed_states import ROOM_BYTES
        from ..engine.ingest.outputs import BATCH_TOKENS
        from ..engine.steering.operators import LEAST_ROWS, TILE_BYTES

        numbers = self.subsets * self.rank * model.hidden + (model.hidden + 1) * self.rank
        twice = 1 + min(self.checked, self.subsets) / self.subsets
        tiles = 8 * max(TILE_BYTES, 4 * model.vocabulary * max(self.rank, LEAST_ROWS)) * torch.get_num_threads()
        pairs = 40 * self.shared * self.subsets + 32 * self.members * model.max_length
        sketch = 8 * 5 * self.subsets**2 + (32 << 20) if self.linearity else 0
        own = 8 * model.hidden * self.members * model.max_length  # of one operator, where states are made for a step
        every = 8 * model.hidden * rows * model.max_length
        drawn = 2 * min(max(ROOM_BYTES, own), every) if self.states_from == "forward" else 0
        maps = sum(one.inputs + one.outputs for one in model.linear_layers)
        graph = 12 * maps * max(BATCH_TOKENS, model.max_length) if self.space == "activations" else 0
        norms = 8 * model.max_length * model.vocabulary if self.omega == "example" else 0
        fitting = int(4 * numbers * (5 + 5 * twice)) + pairs + sketch + 48 * rows + drawn + max(tiles, norms)
        return FitMemory(fitting + graph, int(8 * numbers * twice) + tiles + graph)

    def notes(self, rows: int) -> list[str]:
        """Whether operators see all of their subsets."""
        size, seen = rows * self.degree // self.subsets, self.updates * self.members
        few = f"an operator sees {seen:,} of the {size:,} examples of its subset: more updates, or more subsets"
        return [few] if seen < size else []

    def measure(self, outputs: BatchOutputs, parameters: Mapping[str, Array]) -> tuple[Array, Array]:
        """y by all operators; and of those trained twice, the rank correlation of both answers."""
        import torch

        from ..engine.steering.operators import Operators

        _require_fit(parameters, self, self._widths(outputs))

        def by(prefix: str) -> Array:
            device = outputs.example_ids.device
            parts = (torch.from_numpy(parameters[f"{prefix}{name}"]).to(device) for name in ("basis", "alpha"))
            found: Array = self._measured(outputs, Operators(*parts)).double().numpy(force=True)
            return found

        y = by("")
        if "which" not in parameters:
            return y, np.full(len(y), np.nan)
        return y, agreement(y[:, parameters["which"]], by("check_"))

    def _widths(self, outputs: BatchOutputs) -> tuple[int, int]:
        """D' + 1 and D, of a basis and of operators."""
        if self.space == "activations":
            width = outputs.upper_layers().states.shape[2]
            return width + 1, width
        return outputs.hidden(self.layer(outputs.head.model_shape)).shape[1] + 1, outputs.hidden().shape[1]

    def _measured(self, outputs: BatchOutputs, operators: Operators) -> torch.Tensor:
        """y (n, K)."""
        from ..engine.fitting.hidden_states import PositionStates
        from ..engine.steering.at_layer import measure_by_upper_layers
        from ..engine.steering.operators import measure

        if self.space == "activations":
            return measure_by_upper_layers(outputs.head, operators, outputs.upper_layers())
        states = PositionStates(outputs.hidden(), outputs.targets, outputs.hidden(self.layer(outputs.head.model_shape)))
        return measure(outputs.head, operators, states, outputs.example_ids, outputs.examples)


def _require_fit(parameters: Mapping[str, Array], method: Stride, widths: tuple[int, int]) -> None:
    """Raise StoreDamaged unless operators are of a method's settings and of widths D' + 1 and D."""
    shapes = {name: parameters[name].shape if name in parameters else () for name in ("basis", "alpha")}
    rank = min(method.rank, widths[0])
    wanted = {"basis": (widths[0], rank), "alpha": (method.subsets, rank, widths[1])}
    if "which" in parameters or method.checked:
        which = parameters.get("which", np.zeros(0))
        shapes |= {
            f"check_{name}": parameters[f"check_{name}"].shape if f"check_{name}" in parameters else ()
            for name in wanted
        }
        wanted |= {"check_basis": wanted["basis"], "check_alpha": (which.size, *wanted["alpha"][1:])}
        some = which.ndim == 1 and which.dtype.kind == "i" and which.size > 0
        inside = some and bool(0 <= which.min() <= which.max() < method.subsets)
        wanted |= {} if inside else {"which": ()}
    wrong = [name for name in wanted if shapes.get(name) != wanted[name]]
    if wrong or any(parameters[name].dtype != np.float32 for name in shapes):
        told = ", ".join(f"{name} {shapes.get(name, '')}" for name in wrong) or "numbers of another kind"
        raise StoreDamaged(
            f"the operators are not those of the fit's settings ({told}): headwater fit --again makes them anew"
        )


def agreement(one: Array, other: Array) -> Array:
    """(n,) Spearman correlation of each line of two (n, m) arrays; NaN where one does not vary, or of fewer than 3."""
    from ..engine.arrays.ranks import spearman

    return spearman(one.T, other.T) if one.shape[1] >= 3 else np.full(len(one), np.nan)
