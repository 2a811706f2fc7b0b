"""The contract between headwater and an attribution method: what a method declares, what it is given, who calls it when.

Stands below everything else in the engine. Knows no method by name, no model class, no file; torch only as a type.

A method is a frozen dataclass that extends one of the abstract bases below. Its fields are its settings, stored whole with the
sketches and compared whole, so equal settings mean interchangeable rows. Each has a default, whose type it keeps: bool, int,
float, str, or a tuple of one of these. `plugins/conformance` checks a method against all that is said here.

| part                              | must / default                | called by        | when                                   |
|-----------------------------------|-------------------------------|------------------|----------------------------------------|
| `api`                             | must be 2                     | registry         | when the method is loaded              |
| `columns(model)`                  | must                          | plan, ingest     | before any forward pass                |
| `needs(model)`                    | default: last layer only      | ingest, queries  | before any forward pass                |
| `scratch(model, positions)`       | must                          | plan             | before any forward pass                |
| `fit(model)`                      | default: None                 | ingest           | once a store, before its first row     |
| `precompute(head, state)`         | default: None                 | ingest, queries  | once a run, with the model's head      |
| `windows(outputs)`                | default: an example each      | ingest, queries  | once a batch                           |
| `sketch(outputs, precomputed)`    | must                          | ingest, queries  | once a batch                           |
| `normalize(sums, windows)`        | default: the sums             | ingest, queries  | once a batch, after `sketch`           |
| `statistics(model)`               | default: none (Similarity)    | attribute, value | once for all queries, before `prepare` |
| `prepare(rows, state)`            | must (Similarity)             | attribute, value | once for all queries                   |
| `score(queries, block)`           | must (BlockSimilarity)        | attribute, value | once a tile of stored rows and queries |
| `score_texts(…)`                  | must (TextSimilarity)         | attribute, value | once for all queries, without a model  |
| `design(rows, base)`              | must (SubsetMethod)           | fit, attribute   | once a base model                      |
| `states_from`                     | default: cache (SubsetMethod) | fit              | once a base model                      |
| `example_weights(head, corpus)`   | default: none (SubsetMethod)  | fit              | once a base model, before it           |
| `start_fit(head, corpus, design)` | must (SubsetMethod)           | fit              | once a base model, with its states     |
| `memory(model, rows)`             | must (SubsetMethod)           | fit, attribute   | with the plan, before any work         |
| `measure(outputs, parameters)`    | must (SubsetMethod)           | attribute, value | once a batch of queries                |

A method declares what it can do by what it extends.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self, final

from .model_view import BatchOutputs, Head, ModelShape, OutputSpec
from .settings import Settings
from .windows import Windows, whole_examples

if TYPE_CHECKING:  # listing methods reads this module, and must load neither torch nor NumPy
    import torch

    from ...store.layout import Array, Block, Column

API = 2
"""Number of this contract. Raised only when a method written for the number before would break."""


class Accumulator(Protocol):
    """Statistics of a sample of the corpus while they are collected. Sums in float64, so that the order changes nothing else."""

    def accumulate(self, outputs: BatchOutputs) -> None:
        """Add a batch."""

    def merge(self, other: Self) -> None:
        """Add what another accumulator of the same method has collected from other examples."""

    def finish(self) -> dict[str, Array]:
        """Name → array: what `precompute` is given in this and every later run."""


@dataclass(frozen=True)
class Method(Settings, ABC):
    """Base of every method: how an example becomes a row of the store."""

    api: ClassVar[int] = 1
    """The contract's number that the method was written for; a method of this contract says `api: ClassVar[int] = 2`. Stays 1
    here for ever: a method that names none was written for 1, and would else inherit the number of any headwater that it meets.
    """

    @abstractmethod
    def columns(self, model: ModelShape) -> tuple[Column, ...]:
        """What is stored of each example."""

    @abstractmethod
    def sketch(self, outputs: BatchOutputs, precomputed: Any) -> dict[str, torch.Tensor]:
        """Name → (W, *shape), on the model's device: for each of the W windows of `windows`, a sum over its target positions.

        A position's summand depends on its own example alone, and on no other position's summand; whatever depends on the
        whole sum, such as its norm, is `normalize`'s. Tensors of the layers' inputs and output gradients are summed over the
        example's tokens. A window without positions gets zeros. The names are the method's own: `normalize` makes columns.
        """

    @abstractmethod
    def scratch(self, model: ModelShape, positions: int) -> int:
        """Bytes that `precompute` keeps and `rows` allocates at most, for a batch of `positions` target positions.

        Its examples are as many at most, and never more than `BATCH_EXAMPLES`. What its reductions keep counts too, and of a
        method with `fit` the accumulator and what it allocates.
        """

    def needs(self, model: ModelShape) -> OutputSpec:
        """What `sketch`, `normalize` and `fit` ask of a batch."""
        return OutputSpec()

    def fit(self, model: ModelShape) -> Accumulator | None:
        """What is to be known of the corpus before its rows are made, such as document frequencies; None: nothing.

        It is given a sample of the corpus. The arrays that it finishes with are frozen when the first row is made and kept
        with the store: rows that are appended, and queries, are made with the same.
        """
        return None

    def precompute(self, head: Head, state: Mapping[str, Array]) -> Any:
        """What `sketch` needs and is the same for every batch, such as a sketch of the head's weight; `state` is what `fit`
        finished with, empty without it.
        """
        return None

    def windows(self, outputs: BatchOutputs) -> Windows:
        """The ranges of target positions that `sketch` sums: every example has one at least. Default: every example whole."""
        return whole_examples(outputs)

    def normalize(
        self, sums: Mapping[str, torch.Tensor], windows: Windows, parts: Mapping[str, torch.Tensor] | None = None
    ) -> dict[str, torch.Tensor]:
        """Column name → (n, *row shape) float: rows from sums. An example without target positions gets zeros.

        `parts` are summands of the sums, of the same shapes: with them the result is what they contribute to the rows, that
        is, they are scaled and added as the sums would be, with norms and counts of the whole `sums`. The column that is
        scored must be linear in `parts`, so that contributions add up to rows; what other columns hold then is of no account.
        """
        return dict(sums if parts is None else parts)

    @final
    def rows(self, outputs: BatchOutputs, precomputed: Any) -> dict[str, torch.Tensor]:
        """Column name → (n, *row shape), on the model's device: `sketch`, then `normalize`. Not for methods to override."""
        return self.normalize(self.sketch(outputs, precomputed), self.windows(outputs))


@dataclass(frozen=True, slots=True)
class QueryMatrix:
    """Queries, made ready: all preconditioning is here, none on the stored side."""

    column: str
    """The stored column that they are multiplied with."""
    matrix: Array
    """(Q, D) float32; D is the column's row, flattened."""
    per_query: Mapping[str, Array] = field(default_factory=dict)
    """What else `score` needs of each query: name → (Q, …). The engine hands it on in the same blocks as `matrix`."""
    shared: Mapping[str, Array] = field(default_factory=dict)
    """What else `score` needs, the same for all queries: name → array of any shape."""


@dataclass(frozen=True)
class Similarity(Method):
    """Methods whose score of an example is an inner product of a stored row with a vector of the query."""

    precision: str = field(default="auto", kw_only=True)
    """How rows of floats are stored: float32, float16, bf16, int8 with a scale a row, sign bits; auto: as the method declares.

    Defaults stay at float16, by measurement (`examples/benchmarks/recall.py`): it alone loses nothing, ingestion costs the
    same, and every smaller form can be made of it later in one pass, while nothing brings back what was never stored.
    """
    bits: int = field(default=8192, kw_only=True)
    """Sign bits of a row, where precision is sign."""

    def statistics(self, model: ModelShape) -> tuple[str, tuple[int, ...]] | None:
        """What of the stored rows `prepare` wants to know: a column, of whose rows `state` has the mean (D,) float32 and the
        number as `rows`; and widths of consecutive parts of its row, for each of which `state` has the second moment
        (1/N) Σ φ φᵀ as gram0, gram1, … (width, width) float32. By default nothing.
        """
        return None

    @abstractmethod
    def prepare(self, rows: Mapping[str, Array], state: Mapping[str, Array]) -> QueryMatrix:
        """Queries' rows, column name → (Q, *row shape) float32 → what the store is multiplied with.

        `state` is what the method has learnt from the stored rows and keeps beside them, name → array, such as a Fisher
        matrix; empty for a method that learns nothing.
        """


@dataclass(frozen=True)
class BlockSimilarity(Similarity):
    """Methods with a score of their own, still one example at a time."""

    @abstractmethod
    def score(self, queries: QueryMatrix, block: Block) -> Array:
        """(128, 64) float32: scores of a tile of stored rows, each from its own row and query alone. Must not change `block`.

        Always 128 rows, decoded to float32 (columns of integers keep their dtype), and 64 queries: rows and queries of zeros
        fill the tile, and their scores are thrown away. Matrix products by `@` with these arrays have the same bits for a row
        and a query wherever they stand in a tile; those of np.dot and np.einsum may not.
        """


@dataclass(frozen=True)
class TextSimilarity(Method):
    """Methods that compare texts themselves: they store nothing, need no model, and can be asked of any store with texts."""

    def columns(self, model: ModelShape) -> tuple[Column, ...]:
        """None."""
        return ()

    def sketch(self, outputs: BatchOutputs, precomputed: Any) -> dict[str, torch.Tensor]:
        """None."""
        return {}

    def scratch(self, model: ModelShape, positions: int) -> int:
        """Nothing."""
        return 0

    @abstractmethod
    def memory(self, rows: int, tokens: int, queries: int) -> int:
        """Bytes that scoring a corpus of so many rows and model tokens for so many queries takes at most."""

    @abstractmethod
    def score_texts(self, queries: Sequence[str], texts: Callable[[], Iterator[Sequence[str]]]) -> Iterator[Array]:
        """(rows, Q) float32 for each part of the corpus in turn; each call of `texts` begins the corpus anew."""
