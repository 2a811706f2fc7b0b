"""Hidden states without a cache: the model runs at every step on the rows that the step draws. For corpora whose states are
too many to keep, and for what acts below the last layer, which no kept state serves. Knows a provider that reads rows in any
order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from ...store.errors import DataError
from ...store.layout import Array
from ..ingest.examples import Place
from ..ingest.outputs import batching_for, named, outputs
from ..ingest.provider import RandomAccessProvider
from ..interface.model_view import OutputSpec, UpperLayers
from ..models.batch_outputs import merge_specs
from .hidden_states import MemoryStates
from .read_states import states_of
from .stored_states import OnProgress

ROOM_BYTES = 256 << 20
"""Hidden states that are held together, at most, but for one operator's own rows."""


@dataclass(frozen=True, slots=True)
class StreamedStates:
    """N rows of a store, read through a model."""

    provider: RandomAccessProvider
    layer: int
    """The layer that the basis reads; -1: the last."""
    first: Array
    """(N + 1,) int64: where each row's positions would begin."""
    tokens: Array
    """(N,) int32: how many tokens each has."""
    weights: Array | None = None
    """(N,) ω of each row, or all alike."""

    @classmethod
    def measured(
        cls,
        provider: RandomAccessProvider,
        layer: int,
        on_progress: OnProgress,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> StreamedStates | None:
        """How long rows are, by the model's tokenizer; None if stopped."""
        counted, tokens = list[int](), list[int]()
        for example in provider.examples(Place()):
            counted.append(example.counted)
            tokens.append(example.length)
            if len(counted) % 512 == 0:
                on_progress(len(counted))
                if should_stop():
                    return None
        first = np.concatenate([[0], np.cumsum(counted, dtype=np.int64)])
        return cls(provider, layer, first, np.array(tokens, np.int32))

    @property
    def widths(self) -> tuple[int, int]:
        """D' and D, by a look at a row."""
        row = np.flatnonzero(np.diff(self.first))[:1]
        return self.drawn(row)[0].widths if len(row) else (self.provider.head.model_shape.hidden,) * 2

    def fits(self, rows: Array) -> bool:
        """Whether the rows' states are within the room."""
        width = 2 * self.provider.head.model_shape.hidden * self.provider.head.weight.element_size()
        return int(self.tokens[np.unique(rows)].sum(dtype=np.int64)) * width <= ROOM_BYTES

    def drawn(self, rows: Array) -> tuple[MemoryStates, Array]:
        """The rows' states, each once, and the number of each."""
        each, numbers = np.unique(rows, return_inverse=True)
        counts, found = states_of(self.provider, list(self.provider.at(each)), self.layer)
        first = np.concatenate([[0], np.cumsum(counts)])
        return MemoryStates(found["hidden"], found["targets"], first, inner=found.get("inner")), numbers

    def sequences(self, rows: Array) -> Iterator[tuple[Array, UpperLayers]]:
        """Rows (n,), each once, in batches: which they are, and they at the layer, to be run again from there.

        Raises:
            DataError: a hidden state is not finite.
        """
        each = np.unique(rows)
        if not len(each):
            return
        examples, needs = list(self.provider.at(each)), merge_specs([OutputSpec(upper_layers=self.layer)])
        for batch, above in outputs(
            self.provider,
            examples,
            needs,
            lambda read: read.upper_layers(),
            batching_for(examples, noun="example", logits=False),
        ):
            finite = (torch.isfinite(above.hidden.float().sum(2)) | ~above.counted).all(1)
            if not finite.all():
                example = examples[batch[int(finite.int().argmin())]]
                raise DataError(f"a hidden state of example {named(example)} is not finite")
            yield each[batch], above
