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

Further operations (recovery, subset utility) come as further bases; a method declares what it can do by what it extends.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from ..store.errors import SettingsError
from .settings import Settings

if TYPE_CHECKING:  # listing methods reads this module, and must load neither torch nor NumPy
    import torch

    from ..store.layout import Array, Block, Column
    from .forms.form import Form

API = 1
"""Number of this contract. Raised only when a method written for the number before would break."""

BATCH_EXAMPLES = 256
"""Examples in a batch at most, whatever its positions: with them, `scratch` bounds what grows by the example."""


@dataclass(frozen=True, slots=True)
class Linear:
    """A linear map of the trunk."""

    name: str
    """Its module's name, such as layers.0.mlp.down_proj."""
    inputs: int
    """Width of what it reads."""
    outputs: int
    """Width of what it gives."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """What can be known of a model before any forward pass."""

    hidden: int
    """Width D of the vector that the head reads."""
    vocabulary: int
    """Number V of rows of the head: tokens, or classes."""
    layers: int
    """Number of hidden layers below the last."""
    max_length: int
    """Longest example, in tokens."""
    linears: tuple[Linear, ...] = ()
    """Linear maps of the trunk, in the model's order; none where arrays stand in a model's place."""
    unmapped: tuple[str, ...] = ()
    """Names of the trunk's matrices that are in no linear map, such as experts in one tensor; out of reach."""

    def matching(self, patterns: tuple[str, ...]) -> tuple[Linear, ...]:
        """The linear maps whose names one of the patterns fits, such as *.mlp.*.

        Raises:
            SettingsError: there is none.
        """
        found = tuple(one for one in self.linears if any(fnmatchcase(one.name, pattern) for pattern in patterns))
        if not found:
            there = f"it has {', '.join(one.name for one in self.linears[:8])} …" if self.linears else "it has none"
            raise SettingsError(f"no linear map of the model is named {' or '.join(patterns)}: {there}")
        return found


class Reduction(Hashable, Protocol):
    """What a method wants of the logits, which it never sees whole: a function of one tile of them.

    A frozen dataclass; equal reductions are computed once a batch, whoever asks.
    """

    def __call__(self, logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(p, V) logits in float32 and (p,) targets → tensors whose first axis is p, small in the others."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What a method will ask of a readout, so that one forward pass serves all methods of a run."""

    layers: tuple[int, ...] = ()
    """Hidden layers besides the last: 0 is the embedding's output."""
    reductions: tuple[Reduction, ...] = ()
    """Reductions of the logits."""
    linears: tuple[str, ...] = ()
    """Names of linear maps whose gradients are wanted: these cost a backward pass."""

    def beyond(self, sizes: Sizes) -> tuple[int, ...]:
        """Layers asked for that a model of these sizes does not have."""
        return tuple(layer for layer in self.layers if not 0 <= layer < sizes.layers)


@dataclass(frozen=True, slots=True)
class Trace:
    """What passed through one linear map, at all tokens of a batch (not the counted ones alone), example after example.

    The gradient of example i's loss, summed over its counted positions, with respect to the map's weight is
    Σ errors_t inputs_tᵀ over the tokens that i owns.
    """

    inputs: torch.Tensor
    """(T, inputs), in the model's dtype."""
    errors: torch.Tensor
    """(T, outputs): gradient of the summed loss with respect to what the map gave."""
    owners: torch.Tensor
    """(T,) int64, ascending."""


class Head(Protocol):
    """The model's last linear map."""

    @property
    def sizes(self) -> Sizes:
        """Its widths."""

    @property
    def weight(self) -> torch.Tensor:
        """(V, D), on the model's device."""


class Readout(Protocol):
    """What a model said of one batch: its counted positions, packed, example after example; padding never appears.

    With n examples and P counted positions (those whose next token counts: all of a text's, a prompted row's completion):
    """

    @property
    def examples(self) -> int:
        """n."""

    @property
    def head(self) -> Head:
        """The model's head."""

    @property
    def owners(self) -> torch.Tensor:
        """(P,) int64, ascending: the example in the batch that a position belongs to."""

    @property
    def targets(self) -> torch.Tensor:
        """(P,) int64: the next token, or the label."""

    def hidden(self, layer: int = -1) -> torch.Tensor:
        """(P, D_layer) hidden states in the model's dtype; -1 is what the head reads, after the final norm.

        Others must be in `Needs`. All methods of a run share the tensor: nobody may change it.
        """

    def reduced(self, reduction: Reduction) -> tuple[torch.Tensor, ...]:
        """A reduction's tensors over all positions, first axis P; shared likewise. It must be in `Needs`."""

    def trace(self, name: str) -> Trace:
        """What passed through a linear map of the trunk; shared likewise. It must be in `Needs`."""


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
