"""The contract between headwater and an attribution method: what a method declares, what it is given, who calls it when.

Stands below everything else in the engine. Knows no method by name, no model class, no file; torch only as a type.

A method is a frozen dataclass that extends one of the abstract bases below. Its fields are its settings, stored whole with the
sketches and compared whole, so equal settings mean interchangeable rows. Each has a default, whose type it keeps: bool, int,
float, str, or a tuple of one of these. `plugins/conformance` checks a method against all that is said here.

| part                  | must / default           | called by          | when                                           |
|-----------------------|--------------------------|--------------------|------------------------------------------------|
| `columns(model)`      | must                     | plan, ingest       | before any forward pass                        |
| `needs(model)`        | default: last layer only | ingest, queries    | before any forward pass                        |
| `scratch(model, n)`   | must                     | plan               | before any forward pass                        |
| `precompute(head)`        | default: None            | ingest, queries    | once a run, with the model's head at hand      |
| `rows(outputs, precompute)` | must                   | ingest, queries    | once a batch                                   |
| `statistics(model)`       | default: nothing (Similarity) | attribute, value | once for all queries, before `prepare`       |
| `prepare(rows, state)` | must (Similarity)        | attribute, value   | once for all queries                           |
| `score(queries, block)` | must (BlockSimilarity) | attribute, value   | once a tile of stored rows                     |
| `score_texts(…)`      | must (TextSimilarity)    | attribute, value   | once for all queries; needs no model           |
| `design(rows, base)`  | must (Measured)          | fit, attribute     | once a base model                              |
| `states_from`               | default: files           | fit                | once a base model                              |
| `example_weights(…)`  | default: none (Measured) | fit                | once a base model, before `start_fit`          |
| `start_fit(head, corpus, design)` | must (Measured)  | fit                | once a base model, with its hidden states      |
| `held(model, rows)`   | must (Measured)          | fit, attribute     | with the plan, before any work                 |
| `measured(outputs, fitted)` | must (Measured)    | attribute, value   | once a batch of queries                        |

A method declares what it can do by what it extends.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from .model_view import BatchOutputs, Head, ModelShape, OutputSpec
from .settings import Settings

if TYPE_CHECKING:  # listing methods reads this module, and must load neither torch nor NumPy
    import torch

    from ...store.layout import Array, Block, Column

API = 1
"""Number of this contract. Raised only when a method written for the number before would break."""


@dataclass(frozen=True)
class Method(Settings, ABC):
    """Base of every method: how an example becomes a row of the store."""

    api: ClassVar[int] = 1
    """The contract's number that the method was written for. Stays 1 here for ever: a method that names none was written
    for 1, and would else inherit the number of whatever headwater it meets.
    """

    @abstractmethod
    def columns(self, model: ModelShape) -> tuple[Column, ...]:
        """What is stored of each example."""

    @abstractmethod
    def rows(self, outputs: BatchOutputs, tables: Any) -> dict[str, torch.Tensor]:
        """Column name → (n, *row shape), on the model's device. A row depends on its own example alone.

        An example without counted positions gets zeros.
        """

    @abstractmethod
    def scratch(self, model: ModelShape, positions: int) -> int:
        """Bytes that `precompute` keeps and `rows` allocates at most, for a batch of `positions` counted positions.

        Its examples are as many at most, and never more than `BATCH_EXAMPLES`. What its reductions keep counts too.
        """

    def needs(self, model: ModelShape) -> OutputSpec:
        """What `rows` will ask of a readout."""
        return OutputSpec()

    def precompute(self, head: Head) -> Any:
        """What `rows` needs and is the same for every batch, such as a sketch of the head's weight."""
        return None


@dataclass(frozen=True, slots=True)
class QueryMatrix:
    """Queries, made ready: all preconditioning is here, none on the stored side."""

    column: str
    """The stored column that they are multiplied with."""
    matrix: Array
    """(Q, D) float32; D is the column's row, flattened."""
    state: Mapping[str, Array] = field(default_factory=dict)
    """What else a method's own score wants: whatever `prepare` puts here."""


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
        """(rows, Q) float32: scores of a tile of stored rows, each from its own row alone. Must not change `block`."""


@dataclass(frozen=True)
class TextSimilarity(Method):
    """Methods that compare texts themselves: they store nothing, need no model, and can be asked of any store with texts."""

    def columns(self, model: ModelShape) -> tuple[Column, ...]:
        """None."""
        return ()

    def rows(self, outputs: BatchOutputs, tables: Any) -> dict[str, torch.Tensor]:
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
