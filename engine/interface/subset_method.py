"""The contract of methods that are fitted to subsets of the corpus: designs, hidden states, fits, measurements.

Speaks in protocols, which recovery, fitting and steering implement. Knows no solver, no operator, no file.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from .method import Method
from .model_view import BatchOutputs, Head, ModelShape, UpperLayers

if TYPE_CHECKING:  # listing methods reads this module, and must load neither torch nor NumPy
    import torch

    from ...store.layout import Array, Column


class Design(Protocol):
    """Which examples are in which subsets: M ∈ {0, 1}^{K×N}."""

    @property
    def rows(self) -> int:
        """N."""

    @property
    def subsets(self) -> int:
        """K."""

    @property
    def degree(self) -> int:
        """d: subsets of a row, at most."""

    def of(self, rows: Array) -> Array:
        """(n, d): the subsets of rows (n,), K where a row is in fewer than d."""

    def sizes(self) -> Array:
        """(K,) int64: rows of each subset."""

    def members(self, subset: int, start: int = 0, stop: int | None = None) -> Array:
        """(n,) int64: from `start` to `stop` of a subset's rows, in an order that means nothing."""


class TensorRows(Protocol):
    """Rows of numbers: a tensor, or something that reads rows when they are indexed."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows, and the shape of one."""

    def __getitem__(self, index: torch.Tensor | slice) -> torch.Tensor:
        """Rows by their numbers, int64 of any shape, or a range of them."""


class StateArrays(Protocol):
    """Hidden states of some rows, position after position."""

    @property
    def hidden(self) -> TensorRows:
        """(P, D), in the model's dtype: what the head reads."""

    @property
    def targets(self) -> TensorRows:
        """(P,) int64: the token or class that each position should predict."""

    @property
    def first(self) -> Array:
        """(n + 1,) int64: where each row's positions begin; the last is P."""

    @property
    def inner(self) -> TensorRows | None:
        """(P, D'): the states of another layer, where one was asked for."""


class HiddenStates(Protocol):
    """Hidden states of N rows."""

    @property
    def first(self) -> Array:
        """(N + 1,) int64: where each row's positions begin, if all stand behind each other."""

    @property
    def weights(self) -> Array | None:
        """(N,) ω of each row, or all alike."""

    @property
    def widths(self) -> tuple[int, int]:
        """D', of what the basis reads, and D, of what the head reads."""

    def fits(self, rows: Array) -> bool:
        """Whether some rows (n,), perhaps named twice, may be held together."""

    def drawn(self, rows: Array) -> tuple[StateArrays, Array]:
        """States that hold some rows (n,) at least, and the number (n,) that each has among them."""


class LayerStates(HiddenStates, Protocol):
    """Rows that can be had at a layer, too, to be run again from there."""

    def sequences(self, rows: Array) -> Iterator[tuple[Array, UpperLayers]]:
        """Rows (n,), each once, in batches: which they are, and they at the layer."""


class FitSession(Protocol):
    """Something that is fitted in steps, and can be put down after any of them."""

    @property
    def step(self) -> int:
        """Steps that are done."""

    @property
    def steps(self) -> int:
        """Steps there are."""

    def run(self, on_progress: Callable[[int, float, float], None], should_stop: Callable[[], bool]) -> bool:
        """Take steps until the last or until stopped: whether it was the last. `on_progress` hears the step and two losses."""

    def state_dict(self) -> dict[str, Array]:
        """All that another process needs to go on behind the last step, to the same bytes."""

    def load_state_dict(self, arrays: Mapping[str, Array]) -> None:
        """Go on from what `state_dict` gave.

        Raises:
            DataError: the arrays are not those of this fit.
        """

    def parameters(self) -> dict[str, Array]:
        """What `measure` needs, float32 and small integers."""


@dataclass(frozen=True, slots=True)
class FitMemory:
    """Bytes that a fitted method holds at most, hidden states and queries left out."""

    fitting: int
    """While it is fitted."""
    measuring: int
    """While queries are measured."""


@dataclass(frozen=True)
class SubsetMethod(Method):
    """Methods that fit an operator to each of K subsets of the corpus, measure with it what the subset does to a query, and
    leave it to the engine to recover from K measurements what each of N examples does (`engine/recovery`).

    They store no rows: what is fitted lies beside the store's examples, of one base model or of several.
    """

    solver: str = field(default="auto", kw_only=True)
    """lasso, ridge, iht, ssmp; auto: lasso, or ridge where that predicts held-out measurements better by a standard error."""
    regularization: float = field(default=0.0, kw_only=True)
    """c of λ = c·λ_max (of ridge: its strength; of iht and ssmp: how many causes, a whole number); 0: by held-out measurements.
    With auto it is the LASSO's.
    """
    held_out: float = field(default=0.1, kw_only=True)
    """Of the measurements, to choose and to judge by."""
    tolerance: float = field(default=1e-4, kw_only=True)
    """Duality gap over half the measurements' variation."""

    def columns(self, model: ModelShape) -> tuple[Column, ...]:
        """None."""
        return ()

    def sketch(self, outputs: BatchOutputs, precomputed: Any) -> dict[str, torch.Tensor]:
        """None."""
        return {}

    def scratch(self, model: ModelShape, positions: int) -> int:
        """Nothing."""
        return 0

    @property
    def base_models(self) -> tuple[str, ...]:
        """Folders of models, or files of arrays, to fit in place of the store's own; none for the store's own alone."""
        return ()

    def layer(self, model: ModelShape) -> int:
        """The hidden layer whose states `start_fit` finds as `inner` beside the last's: -1 for none."""
        return -1

    @abstractmethod
    def design(self, rows: int, base: int = 0) -> Design:
        """Which examples are in which subsets, for the base-th base model."""

    @property
    def states_from(self) -> str:
        """Where `start_fit` finds hidden states: `cache`, files beside the store that one forward pass fills; or `forward`: the
        model runs again on the rows that a step draws, nothing is kept, and the corpus is `LayerStates`.
        """
        return "cache"

    def example_weights(self, head: Head, corpus: HiddenStates, on_progress: Callable[[int], None]) -> HiddenStates:
        """The corpus, with a weight of every row if the method uses weights; `on_progress` hears how many rows are done."""
        return corpus

    @abstractmethod
    def start_fit(self, head: Head, corpus: HiddenStates, design: Design, base: int = 0) -> FitSession:
        """A fit at step 0 of an operator for each of the design's subsets."""

    def notes(self, rows: int) -> list[str]:
        """Advice for a fit to so many examples, a line each."""
        return []

    @abstractmethod
    def memory(self, model: ModelShape, rows: int) -> FitMemory:
        """What a fit to so many examples, and measuring with it, holds at most."""

    @abstractmethod
    def measure(self, outputs: BatchOutputs, parameters: Mapping[str, Array]) -> tuple[Array, Array]:
        """(n, K) float64, how much each operator lowers a query's mean loss; and (n,) float64, how well two fits of the same
        subsets agree on it, 1 for entirely, NaN where there is no second fit.
        """
