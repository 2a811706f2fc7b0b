"""The contract of an attribution method: what it declares, what it is given, when it is called.

A method is a frozen dataclass that extends one of the abstract bases below. Its fields are its settings. They are stored and
compared as a whole, so equal settings mean interchangeable rows. Each setting has a default and keeps its type: bool, int,
float, str, or a tuple of one of these. `plugins/conformance` tests a method against this contract. Knows no method by name, no
model class and no file; torch only as a type.

| part                              | must / default                | called by        | when                                   |
|-----------------------------------|-------------------------------|------------------|----------------------------------------|
| `api`                             | must be 2                     | registry         | when the method is loaded              |
| `columns(model)`                  | must                          | plan, ingest     | before any forward pass                |
| `needs(model)`                    | default: last layer only      | ingest, queries  | before any forward pass                |
| `scratch(model, positions)`       | must                          | plan             | before any forward pass                |
| `remarks(model)`                  | default: none                 | plan             | before any forward pass                |
| `fit(model)`                      | default: None                 | ingest           | once per store, before its first row   |
| `fit_scratch(model, positions)`   | default: 0                    | plan             | before any forward pass                |
| `precompute(head, state)`         | default: None                 | ingest, queries  | once per run, with the model's head    |
| `reductions(precomputed)`         | default: none                 | ingest, queries  | once per run, after `precompute`       |
| `windows(outputs)`                | default: whole examples       | ingest, queries  | once per batch                         |
| `sketch(outputs, precomputed)`    | must                          | ingest, queries  | once per batch                         |
| `normalize(sums, windows)`        | default: the sums             | ingest, queries  | once per batch, after `sketch`         |
| `statistics(model)`               | default: none (Similarity)    | attribute, value | once for all queries, before `prepare` |
| `prepare(rows, state)`            | must (Similarity)             | attribute, value | once for all queries                   |
| `score(queries, block)`           | must (BlockSimilarity)        | attribute, value | once per tile of rows and queries      |
| `score_texts(…)`                  | must (TextSimilarity)         | attribute, value | once for all queries, without a model  |
| `design(rows, draw)`              | must (SubsetMethod)           | fit, attribute   | once per member                        |
| `states_from`                     | default: cache (SubsetMethod) | fit              | once per member                        |
| `example_weights(head, corpus)`   | default: equal (SubsetMethod) | fit              | once per member, before the fit        |
| `start_fit(head, …, draw)`        | must (SubsetMethod)           | fit              | once per member, with its states       |
| `memory(model, rows)`             | must (SubsetMethod)           | fit, attribute   | with the plan, before any work         |
| `measure(outputs, parameters)`    | must (SubsetMethod)           | attribute, value | once per batch of queries              |

The method `fit` collects corpus statistics; the command `fit` trains a SubsetMethod, by `start_fit`. The base class that a method
extends declares what it can do.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self, TypeAlias, final, runtime_checkable

from .model_view import BatchOutputs, Head, ModelShape, OutputSpec, Reduction
from .settings import Settings
from .windows import Windows, whole_examples

if TYPE_CHECKING:  # listing methods reads this module, and must load neither torch nor NumPy
    import torch

    from ...store.layout import Array, Block, Column

API = 2
"""Number of this contract. It is increased only when a method written for the previous number would break."""

Precomputed: TypeAlias = Any
"""What a method's `precompute` returns and its `sketch` is given: a type of the method's own."""


class Accumulator(Protocol):
    """Statistics of a sample of the corpus while they are collected, in float64 so that the order of batches hardly matters."""

    def accumulate(self, outputs: BatchOutputs) -> None:
        """Add a batch."""

    def merge(self, other: Self) -> None:
        """Add the statistics that another accumulator of the same method collected from other examples."""

    def finish(self) -> dict[str, Array]:
        """Name → array: the state that `precompute` is given in this run and all later ones."""


@runtime_checkable
class ResumableAccumulator(Accumulator, Protocol):
    """An accumulator whose sums can be stored, so that a stopped run continues: the result is the same to the byte."""

    def state_dict(self) -> dict[str, Array]:
        """Name → array: all that was accumulated so far."""

    def load_state_dict(self, arrays: Mapping[str, Array]) -> None:
        """Continue from what `state_dict` returned.

        Raises:
            DataError: the arrays are not those of this accumulator.
        """


@dataclass(frozen=True)
class Method(Settings, ABC):
    """Base of every method: how an example becomes a row of the store."""

    api: ClassVar[int] = 1
    """Number of the contract that the method was written for. A method of this contract sets `api: ClassVar[int] = 2`.

    The value here stays 1: a method that sets no number was written for contract 1, and must not inherit a later number.
    """

    @abstractmethod
    def columns(self, model: ModelShape) -> tuple[Column, ...]:
        """The columns that are stored for each example."""

    @abstractmethod
    def sketch(self, outputs: BatchOutputs, precomputed: Precomputed) -> dict[str, torch.Tensor]:
        """Name → (W, *shape), on the model's device: for each of the W windows of `windows`, a sum over its target positions.

        A position's term may depend on its example, but not on the terms of other positions. What depends on the whole sum,
        such as its norm, belongs in `normalize`. Inputs and output gradients of linear layers are summed over all tokens of
        the example. A window without target positions gets zeros. The method chooses the names; `normalize` turns sums
        into columns.
        """

    @abstractmethod
    def scratch(self, model: ModelShape, positions: int) -> int:
        """Upper bound of the bytes that `precompute` returns and `rows` allocates, for a batch of `positions` target positions.

        The batch has at most `positions` examples, and at most `BATCH_EXAMPLES`. The bound includes the results of the
        method's reductions. What `fit` takes is in `fit_scratch`.
        """

    def needs(self, model: ModelShape) -> OutputSpec:
        """The outputs that `sketch`, `normalize` and `fit` read from a batch."""
        return OutputSpec()

    def remarks(self, model: ModelShape) -> tuple[str, ...]:
        """What the plan says of this method's rows for a model, one line each; such as what is stored exactly."""
        return ()

    def fit(self, model: ModelShape) -> Accumulator | None:
        """An accumulator of corpus statistics that rows depend on, such as document frequencies; None if they depend on none.

        It reads a sample of the corpus. Its arrays are frozen before the first row is computed and stored beside the rows:
        appended rows, and queries, are computed with the same arrays.
        """
        return None

    def fit_scratch(self, model: ModelShape, positions: int) -> int:
        """Upper bound of the bytes of the accumulator of `fit` and of its functions' allocations, for batches of `positions`
        target positions; 0 without `fit`.
        """
        return 0

    def precompute(self, head: Head, state: Mapping[str, Array]) -> Precomputed:
        """What `sketch` needs in every batch, such as a sketch of the head's weight. `state`: the arrays that the accumulator
        of `fit` returned at the end; empty without `fit`.
        """
        return None

    def reductions(self, precomputed: Precomputed) -> tuple[Reduction, ...]:
        """Reductions of the logits that `sketch` reads besides those of `needs`, for reductions by what `precompute` returned,
        such as a projection of residuals on a fitted basis. `fit` does not see them.
        """
        return ()

    def windows(self, outputs: BatchOutputs) -> Windows:
        """The ranges of target positions that `sketch` sums, at least one per example. Default: each example is one window."""
        return whole_examples(outputs)

    def normalize(
        self, sums: Mapping[str, torch.Tensor], windows: Windows, parts: Mapping[str, torch.Tensor] | None = None
    ) -> dict[str, torch.Tensor]:
        """Column name → (n, *row shape) float: rows from sums. An example without target positions gets zeros.

        `parts` are terms of the sums, in the same shapes. If given, the result is their share of the rows: apply to `parts`
        the factors (norms, counts) that you compute from the whole `sums`. The scored column must be linear in `parts`, so
        that the shares add up to the row; the values of other columns are then ignored.
        """
        return dict(sums if parts is None else parts)

    @final
    def rows(self, outputs: BatchOutputs, precomputed: Precomputed) -> dict[str, torch.Tensor]:
        """Column name → (n, *row shape), on the model's device: `sketch`, then `normalize`. Not for methods to override."""
        return self.normalize(self.sketch(outputs, precomputed), self.windows(outputs))


@dataclass(frozen=True, slots=True)
class QueryMatrix:
    """Prepared queries: all preconditioning is applied to them, none to the stored rows."""

    column: str
    """The stored column whose rows are multiplied with the queries."""
    matrix: Array
    """(Q, D) float32; D is the column's row, flattened."""
    per_query: Mapping[str, Array] = field(default_factory=dict)
    """Further arrays that `score` needs for each query: name → (Q, …). The engine splits them as it splits `matrix`."""
    shared: Mapping[str, Array] = field(default_factory=dict)
    """Further arrays that `score` needs, the same for all queries: name → array of any shape."""


@dataclass(frozen=True)
class Similarity(Method):
    """Methods whose score of an example is an inner product of a stored row with a vector of the query."""

    precision: str = field(default="auto", kw_only=True)
    """How rows of floats are stored: float32, float16, bf16, int8 (with one scale per row) or sign (bits); auto: as the method
    declares.

    Methods declare float16, because of measurements (`examples/benchmarks/recall.py`): every smaller precision loses something
    and saves no time at ingestion. A smaller copy can be made later in one pass; precision that was never stored cannot be
    restored.
    """
    bits: int = field(default=8192, kw_only=True)
    """Number of sign bits of a row, for precision sign."""

    def statistics(self, model: ModelShape) -> tuple[str, tuple[int, ...]] | None:
        """The statistics of stored rows that `prepare` needs: (column, widths); None if it needs no statistics.

        `prepare` is then given the column's mean as `mean` (D,) float32 and the number of rows as `rows`. The widths divide a
        row into consecutive parts; the second moment (1/N) Σ φ φᵀ of each part is given as gram0, gram1, …, (width, width)
        float32.
        """
        return None

    @abstractmethod
    def prepare(self, rows: Mapping[str, Array], state: Mapping[str, Array]) -> QueryMatrix:
        """The matrix that stored rows are multiplied with, from the queries' rows: column name → (Q, *row shape) float32.

        `state`: the arrays that `statistics` declares, by name; empty for a method without statistics.
        """


@dataclass(frozen=True)
class BlockSimilarity(Similarity):
    """Methods with their own score function of a query and a stored row."""

    @abstractmethod
    def score(self, queries: QueryMatrix, block: Block) -> Array:
        """(128, 64) float32: scores of a tile, each a function of its row and its query alone. Must not change `block`.

        A tile always has 128 stored rows, decoded to float32 (columns of integers keep their dtype), and 64 queries. It is
        filled up with rows and queries of zeros, whose scores are ignored. With `@` on these arrays, a row and a query get a
        score of the same bits at any place in a tile; with np.dot and np.einsum perhaps not.
        """


@dataclass(frozen=True)
class TextSimilarity(Method):
    """Methods that compare the texts themselves. They store no rows, need no model, and work with any store that keeps texts."""

    def columns(self, model: ModelShape) -> tuple[Column, ...]:
        """No columns: no rows are stored."""
        return ()

    def sketch(self, outputs: BatchOutputs, precomputed: Precomputed) -> dict[str, torch.Tensor]:
        """No sums: no rows are stored."""
        return {}

    def scratch(self, model: ModelShape, positions: int) -> int:
        """0: no rows are computed."""
        return 0

    @abstractmethod
    def memory(self, rows: int, tokens: int, queries: int) -> int:
        """Upper bound of the bytes that `score_texts` takes, for a corpus of `rows` examples and `tokens` model tokens."""

    @abstractmethod
    def score_texts(self, queries: Sequence[str], texts: Callable[[], Iterator[Sequence[str]]]) -> Iterator[Array]:
        """(rows, Q) float32 scores for each part of the corpus in turn; each call of `texts` iterates over all parts again."""
