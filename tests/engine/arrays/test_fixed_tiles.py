"""Scores by a method's own function have the same bits however rows and queries are cut, though it multiplies by plain `@`."""

import numpy as np
import pytest
from headwater.engine.arrays.scan.fixed_tiles import TILE_QUERIES, TILE_ROWS, FixedTiles
from headwater.engine.arrays.scan.tile_array import TileArray
from headwater.plugins import Block, QueryMatrix
from headwater.store.errors import BrokenMethod

WIDTH, ROWS, QUERIES = 100, 300, 130
DRAW = np.random.default_rng(3)
STORED = DRAW.normal(size=(ROWS, WIDTH)).astype(np.float32)
MATRIX = DRAW.normal(size=(QUERIES, WIDTH)).astype(np.float32)
WEIGHTS = DRAW.uniform(1, 2, QUERIES).astype(np.float32)
ROOT = DRAW.normal(size=(WIDTH, WIDTH)).astype(np.float32)


def whitened(queries, block):
    """(128, 64): a product of products, weighed by the query."""
    turned = block.columns["x"] @ queries.shared["root"]
    return (
        (turned / (1 + np.linalg.norm(turned, axis=1, keepdims=True))) @ queries.matrix.T * queries.per_query["weight"]
    )


def scores(rows: slice, queries: slice, score=whitened):
    asked = QueryMatrix("x", MATRIX[queries], {"weight": WEIGHTS[queries]}, {"root": ROOT})
    return FixedTiles(score, asked).scores(Block(rows.start or 0, {"x": STORED[rows]}))


WHOLE = scores(slice(None), slice(None))


def test_scores_are_those_of_float64():
    turned = STORED.astype(np.float64) @ ROOT
    expected = (turned / (1 + np.linalg.norm(turned, axis=1, keepdims=True))) @ MATRIX.T.astype(np.float64) * WEIGHTS
    assert np.allclose(WHOLE, expected, atol=1e-4)


@pytest.mark.parametrize("size", [1, 7, 64, 128, 200])
def test_blocks_of_rows_change_no_bit(size):
    parts = [scores(slice(start, start + size), slice(None)) for start in range(0, ROWS, size)]
    assert np.concatenate(parts).tobytes() == WHOLE.tobytes()


@pytest.mark.parametrize("size", [1, 5, 64, 65])
def test_the_number_of_queries_changes_no_bit(size):
    parts = [scores(slice(None), slice(start, start + size)) for start in range(0, QUERIES, size)]
    assert np.concatenate(parts, 1).tobytes() == WHOLE.tobytes()


def test_every_tile_has_one_size_and_zeros_behind():
    seen = []

    def score(queries, block):
        seen.append((block.columns["x"].shape, queries.matrix.shape, queries.per_query["weight"].shape))
        if block.start + TILE_ROWS > ROWS:
            assert not block.columns["x"][ROWS - block.start :].any()
        return np.zeros((TILE_ROWS, TILE_QUERIES), np.float32)

    assert scores(slice(None), slice(None), score).shape == (ROWS, QUERIES)
    assert set(seen) == {((TILE_ROWS, WIDTH), (TILE_QUERIES, WIDTH), (TILE_QUERIES,))} and len(seen) == 9


def test_another_shape_than_the_tiles_is_refused():
    with pytest.raises(BrokenMethod, match=r"\(128, 1\) for a tile of \(128, 64\)"):
        scores(slice(None), slice(None), lambda queries, block: block.columns["x"][:, :1])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("left", "right"), [((5, 7), (7, 3)), ((7,), (7, 3)), ((5, 7), (7,)), ((7,), (7,)), ((2, 5, 7), (7, 3))]
)
def test_products_are_numpys_in_value(dtype, left, right):
    a, b = DRAW.normal(size=left).astype(dtype), DRAW.normal(size=right).astype(dtype)
    product = a.view(TileArray) @ b
    assert np.shape(product) == np.shape(a @ b) and np.asarray(product).dtype == dtype
    assert np.allclose(product, a @ b, atol=1e-5)


def test_all_else_is_numpys():
    a = DRAW.normal(size=(4, 6)).astype(np.float32)
    tile = a.view(TileArray)
    assert np.array_equal(tile + a, a + a) and np.array_equal(np.exp(tile).sum(1), np.exp(a).sum(1))
    tile *= 2
    assert np.shares_memory(tile, a) and isinstance(tile.T, TileArray)
