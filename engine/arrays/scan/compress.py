"""Makes a copy of a stored column in fewer bits: one streamed pass, resumable at the last commit.

Besides the form's own columns there is `.check`, the CRC32C of each row that it was made of: a search that scans the form and
gathers single rows of the original compares them, which a checksum of whole chunks does not allow without reading these.
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
from .stored_rows import StoredRows, fitted, scan_shapes

_TILE = 128  # rows that one thread rounds at once


def check_column(name: str) -> Column:
    """CRC32C of every row of a declared column, as it is stored."""
    return column(f"{name}.check", (), "uint32")


def row_checks(rows: Array) -> Array:
    """(n,) uint32: CRC32C of each row's bytes."""
    return np.array([crc32c(row) for row in rows], np.uint32)


@dataclass(frozen=True, slots=True)
class Compression:
    """A form to be made, planned."""

    source: StoredRows
    """The rows that it is made of."""
    group: str
    """Where it goes."""
    forms: dict[str, Precision]
    """Declared column → its new form."""
    plan: Plan
    """The memory of a run."""
    shape: Shape
    """How it is cut."""

    @property
    def name(self) -> str:
        """What commands call the form."""
        return self.group.rpartition(".")[2]

    def run(
        self, on_progress: OnProgress, should_stop: Callable[[], bool] = lambda: False, commit_seconds: float = 15.0
    ) -> int:
        """Go on from the last commit to the source's end, or until `should_stop`; committed rows of the form.

        Only rows of whole chunks of the source are committed, whose checksums have been compared, and a run goes on at such
        a chunk's beginning.

        Raises:
            StoreDamaged: a chunk of the source differs from its checksum; what was committed stays.
            StoreBusy, StoreFull: see :class:`GroupWriter`.
        """
        store = self.source.store
        names = [name for column in self.forms for name in self.source.forms[column].scanned]
        with GroupWriter(store, self.group) as writer, ThreadPoolExecutor(self.shape.workers) as pool:
            if writer.rows > self.source.rows:
                raise StoreMismatch(f"{store.path} has {writer.rows} rows of {self.group}, but {self.source.rows} of "
                                    f"{self.source.group}: the form was made of other rows")  # fmt: skip
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
                            writer.commit(complete=False)
                            return writer.rows
                        if time.monotonic() - last > commit_seconds:
                            writer.commit(complete=False)
                            last = time.monotonic()
                    stream.give(block)
                    on_progress(writer.rows)
            writer.commit(complete=writer.rows == self.source.rows)
            return writer.rows

    def _encoded(self, tile: Block) -> dict[str, Array]:
        found: dict[str, Array] = {}
        for name, form in self.forms.items():
            found |= form.encode(self.source.forms[name].decode(tile.columns))
            found[check_column(name).name] = row_checks(tile.columns[name])
        return found


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
    """Plan a form of a method's rows, and declare it in the store (unless it is only asked for).

    Raises:
        SettingsError: rows that are stored as signs, a precision that they have already, or none that there is.
        BudgetError: not even blocks of one row fit.
        StoreMissing: no rows.
    """
    source = StoredRows(store, method_group(method))
    dense = {
        name: form
        for name, form in source.forms.items()
        if np.dtype(form.declared.dtype).kind == "f" and form.depth > 1
    }
    if precision == "auto" or not dense:
        raise SettingsError(f"method {method} has no rows of floats to compress" if not dense else "name a precision")
    if any(isinstance(form, Sign) for form in dense.values()):
        raise SettingsError(f"method {method} is stored as signs, of which nothing else can be made")
    forms = {name: precision_of(precision, form.declared, bits) for name, form in dense.items()}
    if any(form.name == dense[name].name for name, form in forms.items()):
        raise SettingsError(f"method {method} is stored as {precision} already")
    widest = max(forms.values(), key=lambda form: form.depth)
    group = precision_group(method, widest.name)
    columns = [stored for name, form in forms.items() for stored in (*form.columns, check_column(name))]
    shapes = scan_shapes(source)
    made, shape = fitted(((_plan(source, forms, columns, shape), shape) for shape in shapes), Plan(()), memory)
    notes = {"settings": {"precision": precision, "bits": bits}, "complete": False,
             "declared": columns_json([form.declared for form in forms.values()])}  # fmt: skip
    store.require_local()
    if declare and group not in store.groups:
        store.add_group(group, columns, notes)
    return Compression(source, group, forms, made, shape)


def _plan(source: StoredRows, forms: dict[str, Precision], columns: list[Column], shape: Shape) -> Plan:
    readers = source.open(name for column in forms for name in source.forms[column].scanned)
    rounding = max(form.encode_bytes(_TILE) + 8 * _TILE * form.depth for form in forms.values())
    rounded = sum(stored.row_bytes for stored in columns) * shape.block_rows
    return Plan.of(
        Part("blocks in flight", blocks_bytes(readers, shape)),
        Part("decoding", sum(reader.scratch_bytes for reader in readers)),
        Part("rows being rounded", (shape.workers + 1) * rounding + rounded),
        Part("chunks being filled", sum(stored.chunk_bytes for stored in columns)),
    )
