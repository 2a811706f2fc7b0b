"""Sums over rows against float64, whatever the form and the cut."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from headwater.engine.arrays.moments import column_sums, gram, moment_parts, weighted_sums
from headwater.engine.arrays.precision.precisions import precision_of
from headwater.engine.arrays.scan.scan_loop import ScanShape
from headwater.engine.runtime.run import SILENT_STAGE, Progress, Run
from headwater.store.errors import DataError, StoreDamaged
from headwater.store.layout import column
from scanned import stored

ROWS, DEPTH = 1500, 40


@pytest.mark.parametrize("precision", ["float16", "bf16", "int8", "float32"])
@pytest.mark.parametrize("shape", [ScanShape(64, 1), ScanShape(7, 2), ScanShape(10_000, 3)])
def test_sums_are_those_of_the_decoded_rows(tmp_path: Path, precision: str, shape: ScanShape) -> None:
    random = np.random.default_rng(0)
    form = precision_of(precision, column("c", (DEPTH,), "float32"))
    data = random.standard_t(4, (ROWS, DEPTH)).astype(np.float32)
    columns = stored(tmp_path / "s", data, form=form)
    rows = form.decode(form.encode(data)).astype(np.float64)
    scale = np.abs(rows).T @ np.abs(rows)
    found = gram(columns, form, shape, SILENT_STAGE)
    assert found.dtype == np.float32 and (np.abs(found - rows.T @ rows) <= 3e-6 * scale).all()
    assert np.allclose(column_sums(columns, form, shape, SILENT_STAGE), rows.sum(0), rtol=0, atol=1e-9 * ROWS)
    masks = random.random((6, ROWS)) < 0.5
    expected = masks.astype(np.float64) @ rows
    reports: list[Progress] = []
    for weights in (masks, masks.astype(np.int8), lambda start, stop: masks[:, start:stop]):
        sums = weighted_sums(columns, form, weights, shape, Run(on_progress=reports.append).stage("sums", ROWS))
        assert sums.shape == (6, DEPTH) and np.abs(sums - expected).max() <= 1e-6 * np.abs(rows).sum(0).max()
    assert reports[-1].done == ROWS
    u = random.standard_normal((1, ROWS))
    assert np.allclose(weighted_sums(columns, form, u, shape, SILENT_STAGE), u @ rows, atol=1e-3)
    assert moment_parts(columns, form, 0, shape).total > 4 * DEPTH**2


def test_weights_of_another_shape_or_not_finite_are_refused(tmp_path: Path) -> None:
    form = precision_of("auto", column("c", (DEPTH,), "float32"))
    columns = stored(tmp_path / "s", np.ones((50, DEPTH), np.float32), form=form)
    for weights in (np.ones((2, 49)), np.ones(50), np.full((1, 50), np.nan), lambda start, stop: np.ones((2, 1))):
        with pytest.raises(DataError, match=r"weights"):
            weighted_sums(columns, form, weights, ScanShape(16, 1), SILENT_STAGE)


def test_a_damaged_chunk_gives_no_sum(tmp_path: Path) -> None:
    form = precision_of("auto", column("c", (DEPTH,), "float32"))
    columns = stored(tmp_path / "s", np.ones((500, DEPTH), np.float32), form=form)
    path = tmp_path / "s/shards/0/methods/m/columns/c/c/3/0"
    data = bytearray(path.read_bytes())
    data[5] ^= 1
    path.write_bytes(data)
    for total in (gram, column_sums):
        with pytest.raises(StoreDamaged, match="chunk 3 "):
            total(columns, form, ScanShape(16, 1), SILENT_STAGE)
