"""Forms of stored rows: what they lose, what they refuse, and that estimates from sign bits are unbiased."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from headwater.engine.arrays.precision.precisions import Sign, precision_of, recorded_precisions
from headwater.engine.arrays.precision.rotation import Rotation, hadamard_rotation
from headwater.engine.arrays.precision.signs import sign_queries
from headwater.engine.arrays.scan.scan_loop import ScanShape
from headwater.engine.arrays.scan.scorers import scorer_of
from headwater.engine.arrays.scan.top_k import top_k
from headwater.engine.runtime.run import SILENT_STAGE
from headwater.store.errors import DataError, SettingsError, StoreDamaged
from headwater.store.layout import Block, column
from headwater.store.store_record import GroupRecord, columns_json
from scanned import brute_force, stored

DEPTH = 200
DECLARED = column("c", (10, 20), "float16")
PINNED = [55, 205, 240, 117, 216, 153, 240, 176]
"""Of a rotation of the row 1 … 5 to 128 bits."""


def unit(seed: int, *shape: int) -> np.ndarray:
    """Heavy-tailed rows of unit norm."""
    rows = np.random.default_rng(seed).standard_t(4, shape).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def scores(precision: str, rows: np.ndarray, queries: np.ndarray, bits: int = 8192) -> np.ndarray:
    """(Q, rows) as a scan has them."""
    form = precision_of(precision, column("c", rows.shape[1:], "float32"), bits)
    out = np.empty((len(queries), len(rows)), np.float32)
    scorer_of(form, queries).score(Block(0, form.encode(rows)), out)
    return out


@pytest.mark.parametrize(
    ("precision", "lost"), [("float32", 1e-6), ("float16", 1e-3), ("bf16", 4e-3), ("int8", 3e-2), ("auto", 1e-3)]
)
def test_what_a_form_loses(precision: str, lost: float) -> None:
    form, rows = precision_of(precision, DECLARED), unit(0, 50, DEPTH).reshape(50, 10, 20)
    parts = form.encode(rows)
    assert {c.name: (c.shape, c.dtype) for c in form.columns} == {
        n: (v.shape[1:], v.dtype.name) for n, v in parts.items()
    }
    assert np.linalg.norm(form.decode(parts) - rows) <= lost * np.linalg.norm(rows)
    queries = unit(1, 7, DEPTH)
    out = np.empty((7, 50), np.float32)
    scorer_of(form, queries).score(Block(0, parts), out)
    exact = queries.astype(np.float64) @ form.decode(parts).reshape(50, -1).astype(np.float64).T
    np.testing.assert_allclose(out, exact, rtol=0, atol=3e-4 if precision == "int8" else 1e-6)


def test_signs_estimate_without_bias_and_better_with_more_bits() -> None:
    rows, query = unit(0, 3, DEPTH), unit(1, 1, DEPTH)
    rows[1] = 0.6 * query[0] + 0.8 * rows[1]
    rows[2] = 100 * query[0]
    exact, spread = (query @ rows.T)[0], {}
    for bits in (256, 4096):
        actual = []
        for seed in range(60):
            form = Sign(column("c", (DEPTH,), "float32"), bits, seed)
            out = np.empty((1, 3), np.float32)
            scorer_of(form, query).score(Block(0, form.encode(rows)), out)
            actual.append(out[0])
        error = np.std(actual, axis=0) / math.sqrt(60)
        assert (np.abs(np.mean(actual, axis=0) - exact) <= 5 * error + 2e-3 * np.abs(exact)).all()
        spread[bits] = np.std(actual, axis=0)[0]
    assert spread[4096] < spread[256] / 3
    assert spread[256] < 1.3 * math.sqrt(math.pi / 2 / 256)


@pytest.mark.parametrize(("depth", "bits"), [(1, 128), (100, 128), (128, 1024), (5000, 384)])
def test_the_rotation_keeps_inner_products(depth: int, bits: int) -> None:
    rows = unit(0, 6, depth)
    whole = Rotation(depth, 1 << (max(depth, bits) - 1).bit_length(), 3)
    np.testing.assert_allclose(whole.apply(rows) @ whole.apply(rows).T, rows @ rows.T, atol=1e-5)
    if bits <= whole.bits:  # fewer bits are the first of them
        part = Rotation(depth, bits, 3)
        if part.size == whole.size:
            np.testing.assert_allclose(part.apply(rows), whole.apply(rows)[:, :bits], atol=1e-6)


@pytest.mark.parametrize("depth", [1, 2, 3, 8, 24, 1000, 4096])
def test_a_turn_keeps_inner_products_and_can_be_undone(depth: int) -> None:
    rows = unit(0, 6, depth).astype(np.float64)
    turned = hadamard_rotation(depth).apply(rows)
    np.testing.assert_allclose(turned @ turned.T, rows @ rows.T, atol=1e-12)
    np.testing.assert_allclose(hadamard_rotation(depth).undo(turned), rows, atol=1e-12)
    part = depth & -depth
    hadamard = np.ones((1, 1))
    while len(hadamard) < part:
        hadamard = np.block([[hadamard, hadamard], [hadamard, -hadamard]])
    signs = np.sign(hadamard_rotation(depth).undo(np.ones((1, depth)))[0])
    if part == 1:
        np.testing.assert_allclose(turned, rows * signs)
    else:
        first = hadamard_rotation(depth).undo(np.eye(1, depth))[0, :part]  # the signs of the first part, over its root
        expected = (rows[:, :part] * np.sign(first)) @ hadamard / math.sqrt(part)
        np.testing.assert_allclose(turned[:, :part], expected, atol=1e-12)


def test_rotations_are_pinned() -> None:
    """Stores hold signs of these numbers: a change of the rotation is a change of the format."""
    signs = np.packbits(Rotation(5, 128, 0).apply(np.float32([[1, 2, 3, 4, 5]])) > 0, bitorder="little")
    assert signs[:8].tolist() == PINNED


def test_integer_queries_fit_the_tables() -> None:
    queries = np.concatenate([unit(0, 5, DEPTH), np.zeros((1, DEPTH), np.float32)])
    values, scale = sign_queries(queries, Rotation(DEPTH, 1024, 0))
    assert np.abs(values.reshape(6, -1, 4)).sum(2).max() <= 63 and not values[5].any() and np.isfinite(scale).all()
    back = values * scale[:, None]
    assert np.linalg.norm(back - Rotation(DEPTH, 1024, 0).apply(queries)) < 0.05 * np.linalg.norm(back)


@pytest.mark.parametrize("precision", ["float16", "bf16", "int8", "sign"])
def test_every_form_finds_the_best_of_a_store(precision: str, tmp_path: Path) -> None:
    rows = unit(0, 700, DEPTH)
    queries = unit(1, 5, DEPTH) + 2 * rows[[3, 699, 350, 77, 0]]
    form = precision_of(precision, column("c", (DEPTH,), "float32"), 16_384)
    columns = stored(tmp_path / "s", rows, form=form)
    actual = [top_k(columns, scorer_of(form, queries), 20, ScanShape(size, 2), SILENT_STAGE) for size in (50, 700)]
    assert np.array_equal(actual[0].rows, actual[1].rows) and np.array_equal(actual[0].scores, actual[1].scores)
    exact, best = brute_force(rows, queries, 20)
    assert np.array_equal(actual[0].rows[:, 0], best[:, 0])
    assert np.abs(actual[0].scores[:, 0] - exact[:, 0]).max() < {"sign": 0.1}.get(precision, 1e-2)


@pytest.mark.parametrize("precision", ["float16", "bf16", "int8", "sign"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_refused(precision: str, bad: float) -> None:
    rows = unit(0, 3, DEPTH).reshape(3, 10, 20)
    rows[1, 2, 3] = bad
    with pytest.raises(DataError, match="not finite"):
        precision_of(precision, DECLARED).encode(rows)
    if precision == "float16":
        with pytest.raises(DataError, match="too large"):
            precision_of(precision, DECLARED).encode(np.full((1, 10, 20), 1e6, np.float32))


@pytest.mark.parametrize(
    ("precision", "bits"), [("int4", 8192), ("sign", 100), ("sign", 0), ("sign", 1 << 21), ("", 8)]
)
def test_forms_that_are_none_are_refused(precision: str, bits: int) -> None:
    with pytest.raises(SettingsError, match=r"unknown precision|must be a multiple of 128"):
        precision_of(precision, DECLARED, bits)


def test_single_numbers_and_integers_stay_as_declared() -> None:
    for declared in (column("norm", (), "float32"), column("ids", (4,), "int32")):
        assert precision_of("sign", declared).columns == (declared,)


def test_signs_cannot_be_decoded() -> None:
    with pytest.raises(SettingsError, match="cannot be decoded"):
        precision_of("sign", DECLARED).decode({})


def test_a_record_that_does_not_fit_its_columns_is_damage() -> None:
    form = precision_of("int8", DECLARED)
    record = GroupRecord(form.columns, {"settings": {"precision": "int8"}, "declared": columns_json([DECLARED])})
    assert recorded_precisions(record) == {"c": form}
    assert recorded_precisions(GroupRecord((DECLARED,))) == {"c": precision_of("auto", DECLARED)}
    for wrong in ({"precision": "sign"}, {"precision": "float32"}, {"precision": "none"}):
        with pytest.raises(StoreDamaged):
            recorded_precisions(record.noted(settings=wrong))


@pytest.mark.parametrize("dtype", ["int8", "uint16", "int32", "float64", "bool"])
def test_columns_of_other_numbers_mean_themselves(dtype: str) -> None:
    values = np.random.default_rng(0).integers(0, 2 if dtype == "bool" else 100, (9, 33)).astype(dtype)
    queries = unit(1, 4, 33)
    form = precision_of("int8" if dtype != "float64" else "auto", column("c", (33,), dtype))
    out = np.empty((4, 9), np.float32)
    scorer_of(form, queries).score(Block(0, form.encode(values)), out)
    np.testing.assert_allclose(out, queries.astype(np.float64) @ values.astype(np.float64).T, atol=1e-3)


@pytest.mark.parametrize(
    "settings",
    [None, [], {"precision": 5}, {"precision": "sign", "bits": 256.0}, {"precision": "sign", "bits": "x"}],
)
def test_a_record_from_a_stranger_is_one_line(settings: object) -> None:
    with pytest.raises(StoreDamaged):
        recorded_precisions(GroupRecord((DECLARED,), {"settings": settings}))
    with pytest.raises(StoreDamaged):
        recorded_precisions(
            GroupRecord((DECLARED,), {"declared": [{"name": "c", "shape": ["a"], "dtype": "x", "chunk_rows": 1}]})
        )
