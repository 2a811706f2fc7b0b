"""Makes a copy of a stored column in fewer bits: one streamed pass, resumable at the last commit.

Beside the compressed columns, `.check` stores the CRC32C of each source row: a search that scans the compressed rows and
gathers single source rows verifies them, which checksums of whole chunks would allow only by reading whole chunks.
Knows no method and no model.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from ....store.blocks import BlockStream
from ....store.checksums import crc32c
from ....store.errors import SettingsError, StoreMismatch
from ....store.feature_store import FeatureStore, method_group, precision_group
from ....store.layout import Array, Block, Column, column
from ....store.manifest import columns_json
from ....store.writer import GroupWriter
from ...runtime.memory import Part, Plan
from ..precision.precisions import Precision, Sign, precision_of
from .scan_loop import OnProgress, Shape, blocks_bytes
from .stored_rows import StoredRows, first_plan_within_budget, scan_shapes

_TILE = 128  # rows that one thread encodes per step


def check_column(name: str) -> Column:
    """CRC32C of every row of a declared column, as it is stored."""
    return column(f"{name}.check", (), "uint32")


def row_checks(rows: Array) -> Array:
    """(n,) uint32: CRC32C of each row's bytes."""
    return np.array([crc32c(row) for row in rows], np.uint32)


@dataclass(frozen=True, slots=True)
class Compression:
    """A planned compression run."""

    source: StoredRows
    """The source rows."""
    group: str
    """The group that is written."""
    precisions: dict[str, Precision]
    """Declared column → its new precision."""
    plan: Plan
    """Memory plan of the run."""
    shape: Shape
    """Block rows and workers."""

    @property
    def name(self) -> str:
        """Name of the precision in commands."""
        return self.group.rpartition(".")[2]

    def run(
        self, on_progress: OnProgress, should_stop: Callable[[], bool] = lambda: False, commit_seconds: float = 15.0
    ) -> int:
        """Continue from the last commit to the source's end, or until `should_stop`; returns the number of committed rows.

        Only rows of whole chunks of the source are committed, whose checksums have been verified, and a run resumes at
        the start of such a chunk.

        Raises:
            StoreDamaged: a chunk of the source differs from its checksum; rows committed before remain.
            StoreBusy, StoreFull: see :class:`GroupWriter`.
        """
        store = self.source.store
        names = [name for column in self.precisions for name in self.source.precisions[column].scanned]
        with GroupWriter(store, self.group) as writer, ThreadPoolExecutor(self.shape.workers) as pool:
            if writer.rows > self.source.rows:
                raise StoreMismatch(f"{store.path} has {writer.rows} rows of {self.group}, but {self.source.rows} of "
                                    f"{self.source.group}: the compressed rows come from other rows")  # fmt: skip
            columns, last = self.source.open(names), time.monotonic()
            unit = max(reader.column.chunk_rows for reader in columns)
            begun = writer.rows // unit * unit
            with BlockStream(columns, self.shape.block_rows, self.shape.buffers, start=begun) as stream:
                while (block := stream.take()) is not None:
                    for part in pool.map(self._encoded, _parts(block, writer.rows, unit)):
                        writer.append(part)
                        if writer.rows % unit:
                            continue
                        if should_stop():
                            writer.commit()
                            return writer.rows
                        if time.monotonic() - last > commit_seconds:
                            writer.commit()
                            last = time.monotonic()
                    stream.give(block)
                    on_progress(writer.rows)
            writer.commit(complete=writer.rows == self.source.rows)
            return writer.rows

    def _encoded(self, tile: Block) -> dict[str, Array]:
        columns: dict[str, Array] = {}
        for name, column_precision in self.precisions.items():
            columns |= column_precision.encode(self.source.precisions[name].decode(tile.columns))
            columns[check_column(name).name] = row_checks(tile.columns[name])
        return columns


def _parts(block: Block, first: int, unit: int) -> Iterator[Block]:
    """A block's rows from row `first`, in parts of at most `_TILE` that end where a chunk of `unit` rows ends."""
    start = max(0, first - block.start)
    while start < block.rows:
        stop = min(block.rows, start + _TILE, (block.start + start) // unit * unit + unit - block.start)
        yield block.part(start, stop)
        start = stop


def compression(
    store: FeatureStore, method: str, precision: str, bits: int, memory: int | None, *, declare: bool = True
) -> Compression:
    """Plan the compression of a method's rows and, if `declare`, add the group to the store.

    Raises:
        SettingsError: the rows are stored as signs, already have this precision, or the precision is unknown.
        BudgetError: not even blocks of one row fit.
        StoreMissing: the method has no committed rows.
    """
    source = StoredRows(store, method_group(method))
    dense = {
        name: column_precision
        for name, column_precision in source.precisions.items()
        if np.dtype(column_precision.declared.dtype).kind == "f" and column_precision.depth > 1
    }
    if precision == "auto" or not dense:
        raise SettingsError(f"method {method} has no rows of floats to compress" if not dense else "name a precision")
    if any(isinstance(column_precision, Sign) for column_precision in dense.values()):
        raise SettingsError(f"method {method} is stored as signs, which cannot be converted to another precision")
    precisions = {
        name: precision_of(precision, column_precision.declared, bits) for name, column_precision in dense.items()
    }
    if any(column_precision.name == dense[name].name for name, column_precision in precisions.items()):
        raise SettingsError(f"method {method} is stored as {precision} already")
    widest = max(precisions.values(), key=lambda column_precision: column_precision.depth)
    group = precision_group(method, widest.name)
    columns = [
        stored
        for name, column_precision in precisions.items()
        for stored in (*column_precision.columns, check_column(name))
    ]
    shapes = scan_shapes(source)
    made, shape = first_plan_within_budget(
        ((_plan(source, precisions, columns, shape), shape) for shape in shapes), Plan(()), memory
    )
    notes = {"settings": {"precision": precision, "bits": bits},
             "declared": columns_json([stored_as.declared for stored_as in precisions.values()])}  # fmt: skip
    store.require_writable()
    if declare and group not in store.groups:
        store.add_group(group, columns, notes)
    return Compression(source, group, precisions, made, shape)


def _plan(source: StoredRows, precisions: dict[str, Precision], columns: list[Column], shape: Shape) -> Plan:
    readers = source.open(name for column in precisions for name in source.precisions[column].scanned)
    rounding = max(
        column_precision.encode_bytes(_TILE) + 8 * _TILE * column_precision.depth
        for column_precision in precisions.values()
    )
    rounded = sum(stored.row_bytes for stored in columns) * shape.block_rows
    return Plan.of(
        Part("blocks in flight", blocks_bytes(readers, shape)),
        Part("decoding", sum(reader.scratch_bytes for reader in readers)),
        Part("rows being rounded", (shape.workers + 1) * rounding + rounded),
        Part("chunks being filled", sum(stored.chunk_bytes for stored in columns)),
    )
