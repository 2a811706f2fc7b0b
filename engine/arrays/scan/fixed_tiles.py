"""Scores of a method's own `score`, called with tiles of one size, so that no score depends on the blocks.

Rows and queries are cut into tiles of a fixed size, filled up with zeros, whose matrix products do not depend on a row's position
in the tile (`tile_array.py`). Knows blocks and queries; no file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from ....store.errors import BrokenMethod
from ....store.layout import Array, Block
from ...interface.method import QueryMatrix
from .tile_array import TileArray

TILE_ROWS = 128
"""Rows of a tile."""
TILE_QUERIES = 64
"""Queries of a tile."""


class FixedTiles:
    """A method's scores of stored rows with Q queries."""

    def __init__(self, score: Callable[[QueryMatrix, Block], Array], queries: QueryMatrix) -> None:
        """`score`: scores of a tile, (128, 64) float32, from 64 queries and 128 rows."""
        self._score, self._queries, self._tiles = score, len(queries.matrix), list(_query_tiles(queries))

    def scores(self, block: Block) -> Array:
        """(rows, Q) float32, of columns decoded to float32 (columns of integers as they are).

        Raises:
            BrokenMethod: the function returns an array of another shape.
        """
        scores = np.empty((block.rows, self._queries), np.float32)
        for first in range(0, block.rows, TILE_ROWS):
            rows = {name: values[first : first + TILE_ROWS] for name, values in block.columns.items()}
            tile = Block(block.start + first, {name: _filled(values, TILE_ROWS) for name, values in rows.items()})
            for number, queries in enumerate(self._tiles):
                scored = np.asarray(self._score(queries, tile))
                if scored.shape != (TILE_ROWS, TILE_QUERIES):
                    expected = (TILE_ROWS, TILE_QUERIES)
                    raise BrokenMethod(f"score returns an array {scored.shape} for a tile of {expected}")
                part = scores[first : first + TILE_ROWS, number * TILE_QUERIES : (number + 1) * TILE_QUERIES]
                part[:] = scored[: len(part), : part.shape[1]]
        return scores


def tiles_bytes(queries: int, depth: int, row_bytes: int) -> int:
    """Memory of Q queries of `depth` numbers in tiles, of one tile of rows, and of its scores."""
    whole = -(-queries // TILE_QUERIES) * TILE_QUERIES
    return 4 * whole * depth + TILE_ROWS * (row_bytes + 8 * TILE_QUERIES)


def _query_tiles(queries: QueryMatrix) -> Iterator[QueryMatrix]:
    """Queries, 64 at a time."""
    for first in range(0, len(queries.matrix), TILE_QUERIES):
        part = slice(first, first + TILE_QUERIES)
        per_query = _filled_all({name: values[part] for name, values in queries.per_query.items()})
        matrix = _filled(queries.matrix[part], TILE_QUERIES)
        shared = {name: _read_only(values) for name, values in queries.shared.items()}
        yield QueryMatrix(queries.column, matrix, per_query, shared)


def _filled_all(arrays: Mapping[str, Array]) -> dict[str, Array]:
    return {name: _filled(values, TILE_QUERIES) for name, values in arrays.items()}


def _filled(values: Array, count: int) -> Array:
    """Values (≤ count, …) filled up with zeros to (count, …), contiguous and read-only, as a `TileArray`."""
    whole = values
    if len(values) < count:
        whole = np.zeros((count, *values.shape[1:]), values.dtype)
        whole[: len(values)] = values
    return _read_only(np.ascontiguousarray(whole))


def _read_only(values: Array) -> Array:
    view = np.asarray(values).view(TileArray)
    view.flags.writeable = False
    return view
