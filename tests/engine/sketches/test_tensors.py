"""The GPU's arithmetic on the CPU's tensors: integers to the last bit, floats within rounding, ties to the lower row."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from headwater.engine.arrays.kernels.heaps import Heaps, merged
from headwater.engine.arrays.precision.precisions import precision_of
from headwater.engine.arrays.scan.scorers import scorer_of
from headwater.engine.arrays.scan.tensor_scores import MOST_ROWS, best_keys, from_keys, query_planes, scores_of
from headwater.store.errors import DataError
from headwater.store.layout import Block, column
from hypothesis import given, settings
from hypothesis import strategies as st

CPU = torch.device("cpu")


@pytest.mark.parametrize("precision", ["float32", "float16", "bf16", "int8", "sign"])
@pytest.mark.parametrize(("queries", "count", "depth"), [(1, 90, 256), (17, 5, 250), (40, 1, 256)])
def test_scores_are_those_of_the_cpus_kernels(precision: str, queries: int, count: int, depth: int) -> None:
    random = np.random.default_rng(0)
    rows = random.standard_t(4, (count, depth)).astype(np.float32)
    matrix = 100 * random.standard_t(4, (queries, depth)).astype(np.float32)
    form = precision_of(precision, column("c", (depth,), "float32"), 512)
    parts = form.encode(rows)
    expected = np.empty((queries, count), np.float32)
    scorer_of(form, matrix).score(Block(0, parts), expected)
    scale = torch.from_numpy(parts["c.scale"]) if "c.scale" in parts else None
    stored = parts["c"].view(np.int16) if precision == "bf16" else parts["c"]
    found = scores_of(form, torch.from_numpy(stored), scale, query_planes(form, matrix, CPU)).T.numpy()
    if precision in ("int8", "sign"):
        assert np.array_equal(found, expected)
    else:
        norms = np.linalg.norm(matrix, axis=1)[:, None] * np.linalg.norm(rows, axis=1)
        assert (np.abs(found - expected) <= 2e-6 * norms).all()


@settings(deadline=None)
@given(st.integers(1, 4), st.integers(1, 12), st.integers(1, 60), st.integers(1, 20), st.integers(0, 99))
def test_keys_keep_what_heaps_keep(queries: int, k: int, rows: int, step: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    scores = random.choice(np.float32([-2.5, -0.0, 0.0, 1e-38, 3.0, np.inf, -np.inf]), (queries, rows))
    heaps, keys = Heaps(queries, min(k, rows)), None
    heaps.push(np.ascontiguousarray(scores), rows, 0)
    for start in range(0, rows, step):
        part = torch.from_numpy(np.ascontiguousarray(scores[:, start : start + step].T))
        keys = best_keys(keys, part, start, k)
    assert keys is not None
    found, (expected, where) = from_keys(keys), merged([heaps])
    assert np.array_equal(found.rows, where) and np.array_equal(found.scores, expected)


def test_what_has_no_key_is_an_error() -> None:
    with pytest.raises(DataError, match="rows 7 to 8 is not a number"):
        best_keys(None, torch.tensor([[0.0], [float("nan")]]), 7, 1)
    with pytest.raises(DataError, match="at most 4294967296 rows"):
        best_keys(None, torch.zeros(2, 1), MOST_ROWS - 1, 1)
    best_keys(None, torch.zeros(2, 1), MOST_ROWS - 2, 1)
