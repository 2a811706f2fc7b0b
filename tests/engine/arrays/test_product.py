"""The kernels against float64 and integer arithmetic; and that a score is of its row and query alone, to the last bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from headwater.engine.arrays.kernels.heaps import Heaps, merged
from headwater.engine.arrays.kernels.lookup import SignQueries, has_byte_shuffle
from headwater.engine.arrays.kernels.packing import PackedQueries, kernel_rows
from headwater.engine.arrays.kernels.product import multiply, pairs
from headwater.engine.arrays.precision.quantize import bf16_words, from_bf16, from_int8, int8_queries, int8_rows
from headwater.engine.arrays.precision.rotation import hadamard_rotation
from hypothesis import given, settings
from hypothesis import strategies as st

DTYPES = ("float16", "bf16", "float32")


def drawn(seed: int, *shape: int) -> np.ndarray:
    """Heavy-tailed numbers, as sketches are."""
    return np.random.default_rng(seed).standard_t(4, shape).astype(np.float32)


def stored(values: np.ndarray, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Rows as a kernel takes them, and the numbers that they are."""
    if dtype == "bf16":
        return bf16_words(values), from_bf16(bf16_words(values))
    return kernel_rows(values.astype(dtype)), values.astype(dtype).astype(np.float32)


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(DTYPES), st.integers(1, 20), st.integers(1, 9), st.integers(1, 2100), st.integers(0, 99))
def test_products_of_floats(dtype: str, queries: int, rows: int, depth: int, seed: int) -> None:
    (x, numbers), q = stored(drawn(seed, rows, depth), dtype), drawn(seed + 1, queries, depth)
    out = np.full((queries, rows + 3), np.nan, np.float32)
    multiply(x, PackedQueries(q, x.dtype.name), out)
    exact = q.astype(np.float64) @ numbers.astype(np.float64).T
    bound = 1e-6 * np.linalg.norm(q, axis=1)[:, None] * np.linalg.norm(numbers, axis=1) + 1e-6
    assert (np.abs(out[:, :rows] - exact) <= bound).all()
    assert np.isnan(out[:, rows:]).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_score_depends_on_its_row_and_query_alone(dtype: str) -> None:
    (x, _), q = stored(drawn(0, 11, 3000), dtype), drawn(1, 17, 3000)
    whole = np.empty((17, 11), np.float32)
    multiply(x, PackedQueries(q, x.dtype.name), whole)
    for count in (1, 2, 3, 5, 6, 7, 16):
        for first in (0, 1, 10):
            part = np.empty((count, 11 - first), np.float32)
            multiply(x[first:], PackedQueries(q[:count], x.dtype.name), part)
            assert np.array_equal(part, whole[:count, first:])
    row_at, query_at = np.divmod(np.random.default_rng(2).permutation(17 * 11), 17)
    assert np.array_equal(pairs(x, q, row_at, query_at), whole[query_at, row_at])


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 20), st.integers(1, 9), st.integers(1, 2100), st.integers(0, 99))
def test_integer_products_are_exact(queries: int, rows: int, depth: int, seed: int) -> None:
    x, _, _ = int8_rows(drawn(seed, rows, depth))
    q, _ = int8_queries(drawn(seed + 1, queries, depth))
    out = np.empty((queries, rows), np.int32)
    multiply(x, PackedQueries(q, "int8"), out)
    assert np.array_equal(out, q.astype(np.int64) @ x.astype(np.int64).T)


@pytest.mark.parametrize("depth", [16, 4096, 200_000])
def test_no_sum_of_products_overflows(depth: int) -> None:
    for query in (np.ones((1, depth)), drawn(0, 1, depth), np.eye(1, depth)):
        q, scale = int8_queries(query)
        x = np.where(q >= 0, 127, -127).astype(np.int8)
        out = np.empty((1, 1), np.int32)
        multiply(x, PackedQueries(q, "int8"), out)
        assert out[0, 0] == np.abs(q.astype(np.int64)).sum() * 127
        turned = hadamard_rotation(depth).apply(query.astype(np.float64))
        lost = np.abs(q * scale[:, None].astype(np.float64) - turned)
        assert (lost <= 0.51 * scale[:, None] + 1e-6 * np.abs(turned)).all()


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 9), st.integers(1, 600), st.integers(1, 12), st.integers(0, 99))
def test_sums_over_signs_are_exact_with_tables_and_without(queries: int, rows: int, units: int, seed: int) -> None:
    bits = 128 * units
    random = np.random.default_rng(seed)
    signs = random.integers(0, 256, (rows, bits // 8), dtype=np.uint8)
    fours = random.multinomial(63, [0.25] * 4, (queries, bits // 4)).reshape(queries, bits)
    q = (fours * random.choice([-1, 1], fours.shape)).astype(np.int16)
    exact = q.astype(np.int64) @ (np.unpackbits(signs, axis=1, bitorder="little").astype(np.int64) * 2 - 1).T
    for tables in {False, has_byte_shuffle()}:
        out = np.empty((queries, rows + 5), np.int32)
        SignQueries(q, tables=tables).multiply(signs, out)
        assert np.array_equal(out[:, :rows], exact)


def test_sums_over_many_signs_do_not_overflow() -> None:
    bits = 1 << 17
    q = np.tile(np.array([16, 16, 16, 15], np.int16), (1, bits // 4))
    for signs in (np.full((1, bits // 8), 255, np.uint8), np.zeros((1, bits // 8), np.uint8)):
        out = np.empty((1, 1), np.int32)
        SignQueries(q).multiply(signs, out)
        assert abs(out[0, 0]) == 63 * bits // 4


@given(st.integers(1, 30), st.integers(0, 99))
def test_int8_rows_are_within_their_error(depth: int, seed: int) -> None:
    rows = drawn(seed, 5, depth) * np.float32(10.0) ** np.array([[-30], [-3], [0], [3], [30]], np.float32)
    rows[2] = 0
    values, scale, error = int8_rows(rows)
    back = values.astype(np.float64) * scale[:, None].astype(np.float64)
    turned = hadamard_rotation(depth).apply(rows.astype(np.float64))
    lost, norms = np.linalg.norm(turned - back, axis=1), np.linalg.norm(turned, axis=1)
    assert (lost <= error).all() and (error <= lost * 1.001 + 5e-6 * norms + 1e-38).all()
    assert np.allclose(
        from_int8(values, scale), hadamard_rotation(depth).undo(back), rtol=1e-5, atol=1e-5 * norms.max()
    )
    assert (np.abs(values).max(1) == np.where(rows.any(1), 127, 0)).all()


def test_bf16_words_are_torchs() -> None:
    values = np.concatenate([drawn(0, 10_000), np.float32([0, -0.0, 1.00390625, 1.01171875, 3.38e38, 1e-40])])
    theirs = torch.from_numpy(values).bfloat16().view(torch.int16).numpy().view(np.uint16)
    assert np.array_equal(bf16_words(values), theirs)
    assert np.array_equal(from_bf16(theirs), torch.from_numpy(values).bfloat16().float().numpy())


@settings(deadline=None)
@given(st.integers(1, 4), st.integers(0, 12), st.integers(1, 60), st.integers(0, 99))
def test_heaps_of_several_workers_hold_the_best(queries: int, k: int, rows: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    scores = random.integers(0, 5, (queries, rows)).astype(np.float32)  # many ties
    workers = [Heaps(queries, min(k, rows)) for _ in range(3)]
    for row in random.permutation(rows):
        assert not workers[random.integers(3)].push(np.ascontiguousarray(scores[:, row : row + 1]), 1, int(row))
    found, where = merged(workers)
    order = np.lexsort((np.broadcast_to(np.arange(rows), scores.shape), -scores), axis=1)[:, :k]
    assert np.array_equal(where, order) and np.array_equal(found, np.take_along_axis(scores, order, 1))
