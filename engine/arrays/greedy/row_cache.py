"""Access to stored rows for a choice: recently read rows are cached, a pass reads all of them. Knows columns and precisions, not
what rows are for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ....store.columns import ColumnReader
from ....store.layout import Array, Block
from ...runtime.run import SILENT_STAGE
from ..kernels.product import products
from ..moments import TILE
from ..precision.precisions import BFloat16, Floats, Precision
from ..scan.scan_loop import ScanShape, scan
from ..scan.scorers import scorer_of
from ..scan.top_k import tiles


@dataclass(frozen=True, slots=True)
class RowSource:
    """Column readers and precision of the rows."""

    columns: Sequence[ColumnReader]
    precision: Precision

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.columns[0].rows

    @property
    def row_bytes(self) -> int:
        """Stored bytes per row."""
        return sum(reader.column.row_bytes for reader in self.columns)


class RowCache:
    """Reads rows by number and caches recent ones."""

    def __init__(self, source: RowSource, room: int) -> None:
        """`room`: capacity in rows; the oldest row is evicted first (FIFO)."""
        self.source, self.fetched, self.passes = source, 0, 0
        self._slot = np.full(source.rows, -1, np.int32)
        self._rows = np.full(min(room, source.rows), -1, np.int64)
        self._parts = {reader.column.name: np.empty((len(self._rows), *reader.column.shape), reader.column.dtype)
                       for reader in source.columns}  # fmt: skip
        self._next = 0

    def gathered(self, rows: Array) -> Array:
        """(n, D) float32 of distinct rows; rows missing from the cache are read and counted in `fetched`."""
        slots = self._slot[rows]
        absent = slots < 0
        parts = {name: cached[np.maximum(slots, 0)] if len(cached) else np.empty((len(rows), *cached.shape[1:]), cached.dtype)
                 for name, cached in self._parts.items()}  # fmt: skip
        if absent.any():
            new = rows[absent]
            read = {reader.column.name: reader.gather(new) for reader in self.source.columns}
            for name, values in read.items():
                parts[name][absent] = values
            self._cache(new, read)
            self.fetched += len(new)
        result: Array = np.asarray(self.source.precision.decode(parts), np.float32).reshape(len(rows), -1)
        return result

    def for_each_tile(self, shape: ScanShape, use: Callable[[int, Array], None]) -> None:
        """Call `use` with a first row and (n, D) float32, for all rows, in any order and from several threads: one pass."""
        precision = self.source.precision

        def decode_block(block: Block) -> None:
            for tile in tiles(block, TILE):
                use(tile.start, np.asarray(precision.decode(tile.columns), np.float32).reshape(tile.rows, -1))

        self.passes += 1
        scan(self.source.columns, shape, lambda: decode_block, SILENT_STAGE)

    def products(self, vector: Array, shape: ScanShape) -> Array:
        """(N,) float32: every row's product with a vector (D,) float32: one pass."""
        result = np.empty(self.source.rows, np.float32)
        if not isinstance(self.source.precision, Floats | BFloat16):  # scorers of int8 and signs round the vector too
            self.for_each_tile(shape, lambda start, rows: _fill(result, start, products(rows, vector[None])[:, 0]))
            return result
        scorer = scorer_of(self.source.precision, vector[None])

        def multiply_block(block: Block) -> None:
            for tile in tiles(block, scorer.tile_rows):
                scorer.score(tile, result[None, tile.start : tile.start + tile.rows])

        self.passes += 1
        scan(self.source.columns, shape, lambda: multiply_block, SILENT_STAGE)
        return result

    def _cache(self, rows: Array, read: dict[str, Array]) -> None:
        rows = rows[: len(self._rows)]
        places = (self._next + np.arange(len(rows))) % max(1, len(self._rows))
        evicted = self._rows[places]
        self._slot[evicted[evicted >= 0]] = -1
        self._rows[places], self._slot[rows] = rows, places
        for name, values in read.items():
            self._parts[name][places] = values[: len(rows)]
        self._next = int(self._next + len(rows)) % max(1, len(self._rows))


def _fill(result: Array, start: int, values: Array) -> None:
    result[start : start + len(values)] = values
