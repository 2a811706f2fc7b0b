"""A corpus's hidden states in the store: written by one forward pass, read by every training step.

A group of ragged columns, in which row i is example i's positions: `hidden` (P, D), `inner` (P, D') if a method needs a second
layer, and `targets` (P,). An interrupted pass continues after the last commit. States keep the model's own precision (bfloat16 as
its bits). The group records corpus, model and layer; states of another corpus, model or layer, and damaged states, are computed
again. Knows a provider.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ...store.columns import ColumnReader
from ...store.errors import StoreDamaged, StoreError
from ...store.feature_store import FeatureStore
from ...store.file_column import FileColumn
from ...store.layout import Array, Column, ragged_column
from ...store.ragged import RaggedColumn, open_ragged
from ...store.writer import GroupWriter
from ..ingest.examples import Example, Place
from ..ingest.provider import Provider
from ..interface.model_view import ModelShape
from .hidden_states import MappedStates
from .read_states import states_of

_PART = 512  # most examples that are written at once
_POSITIONS = 1 << 14  # most positions of these examples, unless a single example has more
_STORED = {torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "uint16"}  # NumPy has no bfloat16
OnProgress = Callable[[int], None]


@dataclass(slots=True)
class StoredStates:
    """The stored hidden states of a corpus: where they are, and how they are computed."""

    provider: Provider
    store: FeatureStore
    group: str
    layer: int = -1
    """The layer whose states are stored besides the last one's; -1: no layer."""
    commit_seconds: float = 15.0
    """A kill loses at most this much work, plus one part."""

    def collected(
        self, on_progress: OnProgress = lambda done: None, should_stop: Callable[[], bool] = lambda: False
    ) -> MappedStates | None:
        """The stored states of all examples at their target positions, after missing ones are computed; None if stopped.

        Raises:
            DataError: a hidden state is not finite. StoreBusy: another process writes them. StoreFull: the disk is full.
        """
        self._declare()
        with GroupWriter(self.store, self.group) as writer:
            if not self.store.is_complete(self.group) and not self._read_on(writer, on_progress, should_stop):
                return None
        return self._opened()

    @property
    def digest(self) -> str:
        """A digest of the states' corpus, model and layer, which identifies the states."""
        return hashlib.sha256(json.dumps(self._origin(), sort_keys=True).encode()).hexdigest()

    def _origin(self) -> dict[str, Any]:
        """The states' corpus, model and layer."""
        sources = [[source.name, source.digest] for source in self.provider.sources]
        origin = {"sources": sources, "of": self.provider.provenance(), "layer": self.layer}
        values: dict[str, Any] = json.loads(json.dumps(origin))
        return values

    def _declare(self) -> None:
        """Declare the group: keep an existing one that has the same origin and is undamaged, or else replace it."""
        columns, origin = (
            state_columns(self.provider.head.model_shape, self._dtype, inner=self.layer >= 0),
            self._origin(),
        )
        record = self.store.groups.get(self.group)
        same = record is not None and record.columns == columns and record.notes.get("origin") == origin
        if record is not None and not (same and self._is_whole()):
            self.store.remove_group(self.group)
        self.store.add_group(self.group, columns, {"origin": origin})

    @property
    def _dtype(self) -> torch.dtype:
        dtype: torch.dtype = self.provider.head.weight.dtype
        return dtype

    def _is_whole(self) -> bool:
        """Whether every chunk is undamaged; all of them are read."""
        with suppress(StoreDamaged):
            for column in self._columns():
                for reader in (column.offsets, column.values):
                    for chunk in range(-(-reader.rows // reader.column.chunk_rows)):
                        reader.check(chunk)
            return True
        return False

    def _columns(self) -> list[RaggedColumn]:
        return [open_ragged(self.store, self.group, column.name) for column in self.store.columns(self.group)]

    def _read_on(self, writer: GroupWriter, on_progress: OnProgress, should_stop: Callable[[], bool]) -> bool:
        """Compute the missing states; False if stopped. Computed states are committed even if an error ends the work."""
        committed = time.monotonic()
        try:
            for part in _parts(self._examples_after(writer.rows)):
                if should_stop():
                    writer.commit()
                    return False
                writer.append(self._read(part))
                if time.monotonic() - committed >= self.commit_seconds:
                    writer.commit()
                    committed = time.monotonic()
                on_progress(writer.rows)
        except BaseException:
            with suppress(StoreError):
                writer.commit()
            raise
        writer.commit(complete=True)
        return True

    def _examples_after(self, rows: int) -> Iterator[Example]:
        """The examples after the first `rows`."""
        examples = self.provider.examples(Place())
        for _ in range(rows):
            next(examples, None)
        return examples

    def _read(self, part: list[Example]) -> dict[str, list[Array]]:
        """The stored rows of some examples, in the same order."""
        counts, states = states_of(self.provider, part, self.layer)
        ends = np.cumsum(counts)[:-1]
        return {name: np.split(_as_stored(values), ends) for name, values in states.items()}

    def _opened(self) -> MappedStates:
        """The stored states, which are read when positions are indexed."""
        columns = {column.column.name: column for column in self._columns()}
        offsets = columns["targets"].offsets
        first = offsets.gather(np.arange(offsets.rows)) if offsets.rows else np.zeros(1, np.int64)
        rows = {name: StoredTensor(column.values, self._dtype) for name, column in columns.items() if name != "targets"}
        targets = StoredTensor(columns["targets"].values, torch.int64)
        return MappedStates(rows["hidden"], targets, first, inner=rows.get("inner"))


class StoredTensor:
    """A column of numbers as a tensor whose rows are read when they are indexed. Several threads may index it.

    Chunks are mapped from their files, because a fit reads single rows at every step: all chunks were checked before.
    """

    def __init__(self, reader: ColumnReader, dtype: torch.dtype) -> None:
        """`dtype`: dtype of the tensors; bfloat16 is stored as its bits."""
        self._reader, self._dtype, self._chunks = reader, dtype, list[Array]()
        if isinstance(reader, FileColumn) and reader.column.row_bytes:
            self._chunks = [reader.mapped(chunk) for chunk in range(-(-reader.rows // reader.column.chunk_rows))]

    @property
    def shape(self) -> tuple[int, ...]:
        """(number of rows, *shape of a row)."""
        return (self._reader.rows, *self._reader.column.shape)

    def __getitem__(self, index: torch.Tensor | slice) -> torch.Tensor:
        """Rows by their numbers, int64 of any shape, or a range of them."""
        rows = np.arange(*index.indices(self._reader.rows)) if isinstance(index, slice) else index.numpy()
        values = self._gather(rows.reshape(-1)).reshape(*rows.shape, *self._reader.column.shape)
        if self._dtype == torch.bfloat16:
            return torch.from_numpy(values.view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(values)

    def _gather(self, rows: Array) -> Array:
        if not self._chunks:
            return self._reader.gather(rows)
        if len(self._chunks) == 1:
            return self._chunks[0][rows]
        values = np.empty((len(rows), *self._reader.column.shape), self._reader.column.dtype)
        chunk_of, offset = np.divmod(rows, self._reader.column.chunk_rows)
        order = np.argsort(chunk_of, kind="stable")
        ends = np.searchsorted(chunk_of[order], np.arange(len(self._chunks) + 1))
        for chunk, first, last in zip(self._chunks, ends[:-1].tolist(), ends[1:].tolist(), strict=True):
            if last > first:
                places = order[first:last]
                values[places] = chunk[offset[places]]
        return values


def state_columns(shape: ModelShape, dtype: torch.dtype, *, inner: bool) -> tuple[Column, ...]:
    """The columns of a group of hidden states."""
    names = ("hidden", "inner") if inner else ("hidden",)
    states = (ragged_column(name, _STORED[dtype], (shape.hidden,)) for name in names)
    return (*states, ragged_column("targets", "int64"))


def _as_stored(values: torch.Tensor) -> Array:
    """A tensor on the host as an array of its stored type."""
    if values.dtype == torch.bfloat16:
        bits: Array = values.view(torch.int16).numpy().view(np.uint16)
        return bits
    return values.numpy()


def writing_bytes(shape: ModelShape, dtype: torch.dtype, *, inner: bool) -> int:
    """Memory of writing: a part's states by example and in one array, and the chunks that are filled."""
    part = 8 * (1 + inner) * shape.hidden * (_POSITIONS + shape.max_length)
    return part + sum(column.buffer_bytes for column in state_columns(shape, dtype, inner=inner))


def _parts(examples: Iterator[Example]) -> Iterator[list[Example]]:
    """Lists of examples that are written together."""
    part: list[Example] = []
    positions = 0
    for example in examples:
        if part and (len(part) == _PART or positions + example.target_count > _POSITIONS):
            yield part
            part, positions = [], 0
        part.append(example)
        positions += example.target_count
    if part:
        yield part
