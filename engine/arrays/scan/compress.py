"""Makes a copy of a stored column in fewer bits: one streamed pass, resumable at the last commit.

Beside the compressed columns, `.check` stores the CRC32C of each source row: a search that scans the compressed rows and
gathers single source rows verifies them, which checksums of whole chunks would allow only by reading whole chunks.
Knows no method and no model.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from ....store.blocks import BlockStream
from ....store.checksums import crc32c
from ....store.completeness import require_whole
from ....store.errors import SettingsError, StoreMismatch
from ....store.feature_store import FeatureStore, method_group, precision_group
from ....store.layout import Array, Block, Column, column
from ....store.store_record import columns_json
from ....store.writer import GroupWriter
from ...runtime.memory import Part, Plan
from ...runtime.run import SILENT_STAGE, Stage
from ..precision.precisions import Precision, Sign, precision_of
from .scan_loop import ScanShape, blocks_bytes
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
    shape: ScanShape
    """Block rows and workers."""
    notes: tuple[str, ...] = ()
    """How many rows of how many the source has, if some are missing."""

    @property
    def name(self) -> str:
        """Name of the precision in commands."""
        return self.group.rpartition(".")[2]

    def run(self, stage: Stage = SILENT_STAGE, commit_seconds: float = 15.0) -> int:
        """Continue from the last commit to the source's end, or until the stage asks for a stop; returns the number of committed
        rows.

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
            first = writer.rows // unit * unit
            with BlockStream(columns, self.shape.block_rows, self.shape.buffers, start=first) as stream:
                while (block := stream.take()) is not None:
                    for part in pool.map(self._encoded, _parts(block, writer.rows, unit)):
                        writer.append(part)
                        if writer.rows % unit:
                            continue
                        if stage.should_stop():
                            writer.commit()
                            return writer.rows
                        if time.monotonic() - last > commit_seconds:
                            writer.commit()
                            last = time.monotonic()
                    stream.give(block)
                    stage.report(writer.rows)
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


@dataclass(frozen=True, slots=True)
class TargetPrecision:
    """The precision of a compressed copy."""

    name: str
    """float16, bf16, int8 or sign."""
    bits: int = 8192
    """Sign bits per row; of `sign` alone."""


def compression(
    store: FeatureStore,
    method: str,
    target: TargetPrecision,
    budget: int | None,
    *,
    declare: bool = True,
    partial: bool = False,
) -> Compression:
    """Plan the compression of a method's rows and, if `declare`, add the group to the store. `partial`: whether an unfinished
    method is accepted.

    Raises:
        SettingsError: the rows are stored as signs, already have this precision, or the precision is unknown.
        BudgetError: not even blocks of one row fit.
        StoreMissing: the method has no committed rows, or not all, and not `partial`.
    """
    source = StoredRows(store, method_group(method))
    notes = require_whole(store, method, partial=partial)
    precisions = _new_precisions(source, method, target)
    group = precision_group(method, max(precisions.values(), key=lambda precision: precision.depth).name)
    columns = [stored for name, precision in precisions.items() for stored in (*precision.columns, check_column(name))]
    plan, shape = first_plan_within_budget(
        ((_plan(source, precisions, columns, shape), shape) for shape in scan_shapes(source)), Plan(()), budget
    )
    store.require_writable()
    if declare and group not in store.groups:
        record = {"settings": {"precision": target.name, "bits": target.bits}, "complete": False,
                  "declared": columns_json([precision.declared for precision in precisions.values()])}  # fmt: skip
        store.add_group(group, columns, record)
    return Compression(source, group, precisions, plan, shape, tuple(notes))


def _new_precisions(source: StoredRows, method: str, target: TargetPrecision) -> dict[str, Precision]:
    """Declared column → its new precision, for the columns of floats.

    Raises:
        SettingsError: the rows are stored as signs, already have this precision, or the precision is unknown.
    """
    dense = {
        name: precision
        for name, precision in source.precisions.items()
        if np.dtype(precision.declared.dtype).kind == "f" and precision.depth > 1
    }
    if not dense:
        raise SettingsError(f"method {method} has no rows of floats to compress")
    if target.name == "auto":
        raise SettingsError("a compressed copy needs a precision: float16, bf16, int8 or sign")
    if any(isinstance(precision, Sign) for precision in dense.values()):
        raise SettingsError(f"method {method} is stored as signs, which cannot be converted to another precision")
    precisions = {name: precision_of(target.name, precision.declared, target.bits) for name, precision in dense.items()}
    if any(precision.name == dense[name].name for name, precision in precisions.items()):
        raise SettingsError(f"method {method} is stored as {target.name} already")
    return precisions


def _plan(source: StoredRows, precisions: dict[str, Precision], columns: list[Column], shape: ScanShape) -> Plan:
    readers = source.open(name for column in precisions for name in source.precisions[column].scanned)
    rounding = max(
        column_precision.encode_bytes(_TILE) + 8 * _TILE * column_precision.depth
        for column_precision in precisions.values()
    )
    rounded = sum(stored.row_bytes for stored in columns) * shape.block_rows
    return Plan.of(
        Part("blocks in flight", blocks_bytes(readers, shape)),
        Part("decoding", sum(reader.scratch_bytes for reader in readers)),
        Part("rows being compressed", (shape.workers + 1) * rounding + rounded),
        Part("chunks being filled", sum(stored.chunk_bytes for stored in columns)),
    )
