"""The contract between headwater and an attribution method: what a method declares, what it is given, who calls it when.

Stands below everything else in the engine. Knows no method by name, no model class, no file; torch only as a type.

A method is a frozen dataclass that extends one of the abstract bases below. Its fields are its settings, stored whole with the
sketches and compared whole, so equal settings mean interchangeable rows. Each has a default, whose type it keeps: bool, int,
float, str, or a tuple of one of these. `plugins/conformance` checks a method against all that is said here.

| part                  | must / default           | called by          | when                                           |
|-----------------------|--------------------------|--------------------|------------------------------------------------|
| `columns(sizes)`      | must                     | plan, ingest       | before any forward pass                        |
| `needs(sizes)`        | default: last layer only | ingest, queries    | before any forward pass                        |
| `scratch(sizes, n)`   | must                     | plan               | before any forward pass                        |
| `tables(head)`        | default: None            | ingest, queries    | once a run, with the model's head at hand      |
| `rows(readout, tables)` | must                   | ingest, queries    | once a batch                                   |
| `learns(sizes)`       | default: nothing (Similarity) | attribute, value | once for all queries, before `prepare`       |
| `prepare(rows, state)` | must (Similarity)        | attribute, value   | once for all queries                           |
| `score(queries, block)` | must (BlockSimilarity) | attribute, value   | once a tile of stored rows                     |
| `score_texts(…)`      | must (TextSimilarity)    | attribute, value   | once for all queries; needs no model           |
| `design(rows, base)`  | must (Measured)          | fit, attribute     | once a base model                              |
| `reads`               | default: files           | fit                | once a base model                              |
| `weighed(head, corpus)` | default: as it is (Measured) | fit          | once a base model, before `begun`              |
| `begun(head, corpus, design)` | must (Measured)  | fit                | once a base model, with its hidden states      |
| `held(sizes, rows)`   | must (Measured)          | fit, attribute     | with the plan, before any work                 |
| `measured(readout, fitted)` | must (Measured)    | attribute, value   | once a batch of queries                        |

A method declares what it can do by what it extends.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from .settings import Settings
from .view import Above, Head, Linear, Needs, Readout, Reduction, Sizes, Trace

if TYPE_CHECKING:  # listing methods reads this module, and must load neither torch nor NumPy
    import torch

    from ..store.layout import Array, Block, Column
    from .forms.form import Form
    from .recovery.design import Design
    from .steering.states import Corpus

__all__ = [
    "API",
    "BATCH_EXAMPLES",
    "Above",
    "BlockSimilarity",
    "Fitting",
    "Head",
    "Linear",
    "Measured",
    "Method",
    "Needs",
    "QueryMatrix",
    "Readout",
    "Reduction",
    "Similarity",
    "Sizes",
    "TextSimilarity",
    "Trace",
]

API = 1
"""Number of this contract. Raised only when a method written for the number before would break."""

BATCH_EXAMPLES = 256
"""Examples in a batch at most, whatever its positions: with them, `scratch` bounds what grows by the example."""


@dataclass(frozen=True)
class Method(Settings, ABC):
    """Base of every method: how an example becomes a row of the store."""

    api: ClassVar[int] = 1
    """The contract's number that the method was written for. Stays 1 here for ever: a method that names none was written
    for 1, and would else inherit the number of whatever headwater it meets.
    """

    @abstractmethod
    def columns(self, sizes: Sizes) -> tuple[Column, ...]:
        """What is stored of each example."""

    @abstractmethod
    def rows(self, readout: Readout, tables: Any) -> dict[str, torch.Tensor]:
        """Column name → (n, *row shape), on the model's device. A row depends on its own example alone.

        An example without counted positions gets zeros.
        """

    @abstractmethod
    def scratch(self, sizes: Sizes, positions: int) -> int:
        """Bytes that `tables` keeps and `rows` allocates at most, for a batch of `positions` counted positions.

        Its examples are as many at most, and never more than `BATCH_EXAMPLES`. What its reductions keep counts too.
        """

    def forms(self, sizes: Sizes) -> dict[str, Form]:
        """Column name → the form that its rows are stored in. Not for methods to override."""
        from .forms.form import form_of

        return {column.name: form_of("auto", column) for column in self.columns(sizes)}

    def needs(self, sizes: Sizes) -> Needs:
        """What `rows` will ask of a readout."""
        return Needs()

    def tables(self, head: Head) -> Any:
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

    def forms(self, sizes: Sizes) -> dict[str, Form]:
        """As `precision` says."""
        from .forms.form import form_of

        return {column.name: form_of(self.precision, column, self.bits) for column in self.columns(sizes)}

    def learns(self, sizes: Sizes) -> tuple[str, tuple[int, ...]] | None:
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

    def columns(self, sizes: Sizes) -> tuple[Column, ...]:
        """None."""
        return ()

    def rows(self, readout: Readout, tables: Any) -> dict[str, torch.Tensor]:
        """None."""
        return {}

    def scratch(self, sizes: Sizes, positions: int) -> int:
        """Nothing."""
        return 0

    @abstractmethod
    def memory(self, rows: int, tokens: int, queries: int) -> int:
        """Bytes that scoring a corpus of so many rows and model tokens for so many queries takes at most."""

    @abstractmethod
    def score_texts(self, queries: Sequence[str], texts: Callable[[], Iterator[Sequence[str]]]) -> Iterator[Array]:
        """(rows, Q) float32 for each part of the corpus in turn; each call of `texts` begins the corpus anew."""


class Fitting(Protocol):
    """Something that is fitted in steps, and can be put down after any of them."""

    @property
    def step(self) -> int:
        """Steps that are done."""

    @property
    def steps(self) -> int:
        """Steps there are."""

    def run(self, tell: Callable[[int, float, float], None], stopped: Callable[[], bool]) -> bool:
        """Take steps until the last or until stopped: whether it was the last. `tell` hears the step and two losses."""

    def arrays(self) -> dict[str, Array]:
        """All that another process needs to go on behind the last step, to the same bytes."""

    def resume(self, arrays: Mapping[str, Array]) -> None:
        """Go on from these."""

    def fitted(self) -> dict[str, Array]:
        """What `measured` needs, float32 and small integers."""


@dataclass(frozen=True)
class Measured(Method):
    """Methods that fit an operator to each of K subsets of the corpus, measure with it what the subset does to a query, and
    leave it to the engine to recover from K measurements what each of N examples does (`engine/recovery`).

    They store no rows: what is fitted lies beside the store's examples, of one base model or of several.
    """

    solver: str = field(default="auto", kw_only=True)
    """lasso, ridge, iht, ssmp; auto: lasso, or ridge where that predicts held-out measurements better by a standard error."""
    share: float = field(default=0.0, kw_only=True)
    """c of λ = c·λ_max (of ridge: its strength; of iht and ssmp: how many causes, a whole number); 0: by held-out measurements.
    With auto it is the LASSO's.
    """
    held_out: float = field(default=0.1, kw_only=True)
    """Of the measurements, to choose and to judge by."""
    tolerance: float = field(default=1e-4, kw_only=True)
    """Duality gap over half the measurements' variation."""

    def columns(self, sizes: Sizes) -> tuple[Column, ...]:
        """None."""
        return ()

    def rows(self, readout: Readout, tables: Any) -> dict[str, torch.Tensor]:
        """None."""
        return {}

    def scratch(self, sizes: Sizes, positions: int) -> int:
        """Nothing."""
        return 0

    @property
    def base_models(self) -> tuple[str, ...]:
        """Folders of models, or files of arrays, to fit in place of the store's own; none for the store's own alone."""
        return ()

    def layer(self, sizes: Sizes) -> int:
        """The hidden layer whose states `begun` finds as `inner` beside the last's: -1 for none."""
        return -1

    @abstractmethod
    def design(self, rows: int, base: int = 0) -> Design:
        """Which examples are in which subsets, for the base-th base model."""

    @property
    def reads(self) -> str:
        """Where `begun` finds hidden states: `files`, which one pass fills; or `model`, which runs anew on the rows that a step
        draws, and of which nothing is kept (its corpus is a `steering.streamed.Streamed`).
        """
        return "files"

    def weighed(self, head: Head, corpus: Corpus, tell: Callable[[int], None]) -> Corpus:
        """The corpus, with a weight of every row if the method wants any; `tell` hears how many rows are done."""
        return corpus

    @abstractmethod
    def begun(self, head: Head, corpus: Corpus, design: Design, base: int = 0) -> Fitting:
        """Operators that have learnt nothing yet."""

    def remarks(self, rows: int) -> list[str]:
        """What whoever fits so many examples should know: a line each."""
        return []

    @abstractmethod
    def held(self, sizes: Sizes, rows: int) -> tuple[int, int]:
        """Bytes that fitting, and that measuring, holds at most, hidden states and queries left out."""

    @abstractmethod
    def measured(self, readout: Readout, fitted: Mapping[str, Array]) -> tuple[Array, Array]:
        """(n, K) float64, how much each operator lowers a query's mean loss; and (n,) how well two fittings of one subset
        agree there, 1 for entirely, NaN where nobody knows.
        """
