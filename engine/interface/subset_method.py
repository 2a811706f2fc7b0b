"""The contract of methods that are fitted to subsets of the corpus: designs, hidden states, fits, measurements.

Protocols, which recovery, fitting and steering implement. Knows no solver, no operator, no file.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from .method import Method, Precomputed
from .model_view import BatchOutputs, Head, ModelShape, UpperLayers

if TYPE_CHECKING:  # listing methods reads this module, and must load neither torch nor NumPy
    import torch

    from ...store.layout import Array, Column


class Design(Protocol):
    """Which examples are in which subsets: M ∈ {0, 1}^{K×N}."""

    @property
    def rows(self) -> int:
        """N: number of examples."""

    @property
    def subsets(self) -> int:
        """K: number of subsets."""

    @property
    def degree(self) -> int:
        """d: the largest number of subsets that hold one row."""

    def of(self, rows: Array) -> Array:
        """(n, d): the subsets that hold each of the rows (n,), filled up with K for a row in fewer than d."""

    def sizes(self) -> Array:
        """(K,) int64: number of rows in each subset."""

    def members(self, subset: int, start: int = 0, stop: int | None = None) -> Array:
        """(n,) int64: rows `start` to `stop` of a subset, in a fixed but arbitrary order."""


class TensorRows(Protocol):
    """Rows of numbers: a tensor, or something that reads rows when they are indexed."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(number of rows, *shape of a row)."""

    def __getitem__(self, index: torch.Tensor | slice) -> torch.Tensor:
        """Rows by their numbers, int64 of any shape, or a range of them."""


class StateArrays(Protocol):
    """Hidden states of some rows, at their target positions, one row after the other."""

    @property
    def hidden(self) -> TensorRows:
        """(P, D), in the model's dtype: the last hidden state, which the head reads."""

    @property
    def targets(self) -> TensorRows:
        """(P,) int64: the token or class that each position predicts."""

    @property
    def first(self) -> Array:
        """(n + 1,) int64: index of each row's first position; the last is P."""

    @property
    def inner(self) -> TensorRows | None:
        """(P, D'): the states of `SubsetMethod.layer`, if it names a layer."""


class HiddenStates(Protocol):
    """Hidden states of N rows."""

    @property
    def first(self) -> Array:
        """(N + 1,) int64: index of each row's first position, with the positions of all rows numbered in one sequence."""

    @property
    def weights(self) -> Array | None:
        """(N,) weight ω of each row; None for equal weights."""

    @property
    def widths(self) -> tuple[int, int]:
        """D', the width of `inner` (or of `hidden`, if there is no `inner`), and D, the width of `hidden`."""

    def fit_in_memory(self, rows: Array) -> bool:
        """Whether the states of rows (n,), which may repeat, fit in memory at the same time."""

    def read(self, rows: Array) -> tuple[StateArrays, Array]:
        """States that include those of rows (n,); and (n,) the index of each row among them."""


class LayerStates(HiddenStates, Protocol):
    """Hidden states of N rows from which the layers above can be run again."""

    def upper_layers(self, rows: Array) -> Iterator[tuple[Array, UpperLayers]]:
        """Batches of the distinct rows (n,): which rows each holds, and their states at the layer."""


OnStep = Callable[[int, float, float], None]
"""Called after each step of a fit with the number of steps done and two losses that the method chooses to report."""


class FitSession(Protocol):
    """A fit in steps that can be stopped after each of them and resumed in another process."""

    @property
    def step(self) -> int:
        """Number of steps done."""

    @property
    def steps(self) -> int:
        """Number of steps in all."""

    def run(self, on_step: OnStep, should_stop: Callable[[], bool]) -> bool:
        """Run to the last step or until stopped; True after the last step."""

    def state_dict(self) -> dict[str, Array]:
        """Everything that another process needs to continue after the last step, to the same bytes."""

    def load_state_dict(self, arrays: Mapping[str, Array]) -> None:
        """Continue from what `state_dict` returned.

        Raises:
            DataError: the arrays are of another fit.
        """

    def parameters(self) -> dict[str, Array]:
        """What `measure` needs: arrays of float32 and of integers."""


@dataclass(frozen=True, slots=True)
class FitMemory:
    """Upper bounds of a fitted method's memory in bytes, without hidden states and queries."""

    fitting: int
    """During the fit."""
    measuring: int
    """During the measurement of queries."""


@dataclass(frozen=True)
class SubsetMethod(Method):
    """Methods that fit an operator to each of K subsets of the corpus and measure with it how the subset changes a query's loss.
    From the K measurements the engine recovers a weight for each of the N examples (`engine/recovery`).

    They store no rows. The fitted parameters are stored beside the examples. Each member (`NAME@MEMBER`) is a fit of its own, to
    the hidden states of one model.
    """

    solver: str = field(default="auto", kw_only=True)
    """lasso, ridge, iht or ssmp; auto: lasso, or ridge if its held-out error is lower by more than one standard error."""
    regularization: float = field(default=0.0, kw_only=True)
    """lasso: λ as a fraction of the smallest λ at which all weights are 0; ridge: its strength; iht, ssmp: the number of nonzero
    weights. 0: chosen by held-out measurements. With auto it applies to lasso.
    """
    held_out: float = field(default=0.1, kw_only=True)
    """Fraction of the measurements that are held out to choose and to evaluate the regularization."""
    tolerance: float = field(default=1e-4, kw_only=True)
    """Duality gap at which the solver stops, as a fraction of ½‖y − ȳ‖², with y the measurements."""

    def columns(self, model: ModelShape) -> tuple[Column, ...]:
        """No columns: no rows are stored."""
        return ()

    def sketch(self, outputs: BatchOutputs, precomputed: Precomputed) -> dict[str, torch.Tensor]:
        """No sums: no rows are stored."""
        return {}

    def scratch(self, model: ModelShape, positions: int) -> int:
        """0: no rows are computed."""
        return 0

    def layer(self, model: ModelShape) -> int:
        """The hidden layer whose states `start_fit` gets as `inner`, besides the last one's; -1: no layer."""
        return -1

    @abstractmethod
    def design(self, rows: int, draw: int = 0) -> Design:
        """Which examples are in which subsets. Members with the same settings differ by `draw`, which decides random numbers."""

    @property
    def states_from(self) -> str:
        """Where hidden states come from. `cache`: one forward pass writes them to the store. `forward`: the model runs at every
        step on the rows that the step reads, nothing is stored, and the corpus is `LayerStates`.
        """
        return "cache"

    def example_weights(self, head: Head, corpus: HiddenStates, on_progress: Callable[[int], None]) -> HiddenStates:
        """The corpus, with a weight for each row if the method uses weights. `on_progress` is called with the rows done."""
        return corpus

    @abstractmethod
    def start_fit(self, head: Head, corpus: HiddenStates, design: Design, draw: int = 0) -> FitSession:
        """A session at step 0, which fits an operator to each of the design's subsets. `draw`: that of the design."""

    def notes(self, rows: int) -> list[str]:
        """Remarks for the user on a fit to `rows` examples, one line each."""
        return []

    @abstractmethod
    def memory(self, model: ModelShape, rows: int) -> FitMemory:
        """Upper bounds of the memory of a fit to `rows` examples, and of measuring with it."""

    @abstractmethod
    def measure(self, outputs: BatchOutputs, parameters: Mapping[str, Array]) -> tuple[Array, Array]:
        """(n, K) float64: how much each operator lowers a query's mean loss; and (n,) float64: how well two fits of the same
        subsets agree on these measurements, 1 for full agreement, NaN without a second fit.
        """
