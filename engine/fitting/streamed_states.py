"""Hidden states without a cache: the model runs at each step on the rows that the step reads. For corpora with too many states
to store, and for operators below the last layer, which need the layers above. Knows a provider that reads rows in any order.
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
from .hidden_states import MappedStates
from .read_states import states_of

ROOM_BYTES = 256 << 20
"""Most memory for hidden states at a time, unless the rows of a single operator need more."""


@dataclass(frozen=True, slots=True)
class StreamedStates:
    """Hidden states of N rows of a store, computed when they are read."""

    provider: RandomAccessProvider
    layer: int
    """The layer that operators read; -1 for the last."""
    first: Array
    """(N + 1,) int64: index of each row's first position, with the positions of all rows numbered in one sequence."""
    tokens: Array
    """(N,) int32: number of tokens of each row."""
    weights: Array | None = None
    """(N,) weight ω of each row; None for equal weights."""

    @classmethod
    def of_provider(
        cls,
        provider: RandomAccessProvider,
        layer: int,
        on_progress: Callable[[int], None],
        should_stop: Callable[[], bool] = lambda: False,
    ) -> StreamedStates | None:
        """The states of a provider's examples, after one pass that counts their tokens; None if stopped."""
        target_counts, tokens = list[int](), list[int]()
        for example in provider.examples(Place()):
            target_counts.append(example.target_count)
            tokens.append(example.length)
            if len(tokens) % 512 == 0:
                on_progress(len(tokens))
                if should_stop():
                    return None
        first = np.concatenate([[0], np.cumsum(target_counts, dtype=np.int64)])
        return cls(provider, layer, first, np.array(tokens, np.int32))

    @property
    def widths(self) -> tuple[int, int]:
        """D' and D, from the states of one row."""
        row = np.flatnonzero(np.diff(self.first))[:1]
        return self.read(row)[0].widths if len(row) else (self.provider.head.model_shape.hidden,) * 2

    def fit_in_memory(self, rows: Array) -> bool:
        """Whether the rows' states take at most `ROOM_BYTES`."""
        width = 2 * self.provider.head.model_shape.hidden * self.provider.head.weight.element_size()
        return int(self.tokens[np.unique(rows)].sum(dtype=np.int64)) * width <= ROOM_BYTES

    def read(self, rows: Array) -> tuple[MappedStates, Array]:
        """The states of the distinct rows, and the index of each of `rows` among them."""
        unique_rows, indices = np.unique(rows, return_inverse=True)
        counts, states = states_of(self.provider, list(self.provider.at(unique_rows)), self.layer)
        first = np.concatenate([[0], np.cumsum(counts)])
        return MappedStates(states["hidden"], states["targets"], first, inner=states.get("inner")), indices

    def upper_layers(self, rows: Array) -> Iterator[tuple[Array, UpperLayers]]:
        """Batches of the distinct rows (n,): which rows each holds, and their states at the layer.

        Raises:
            DataError: a hidden state is not finite.
        """
        unique_rows = np.unique(rows)
        if not len(unique_rows):
            return
        examples, needs = list(self.provider.at(unique_rows)), merge_specs([OutputSpec(upper_layers=self.layer)])
        batching = batching_for(examples, noun="example", logits=False)
        for batch, upper in outputs(
            self.provider, examples, needs, lambda batch_outputs: batch_outputs.upper_layers(), batching
        ):
            finite = (torch.isfinite(upper.hidden.float().sum(2)) | ~upper.target_mask).all(1)
            if not finite.all():
                example = examples[batch[int(finite.int().argmin())]]
                raise DataError(f"a hidden state of example {named(example)} is not finite")
            yield unique_rows[batch], upper
