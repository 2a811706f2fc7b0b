"""What runs on CUDA: reductions, ingestion and scans agree with the CPU. Skipped where torch sees no device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from headwater.engine.arrays.precision.precisions import precision_of
from headwater.engine.arrays.scan.scan_loop import ScanShape
from headwater.engine.arrays.scan.scorers import scorer_of
from headwater.engine.arrays.scan.top_k import top_k
from headwater.engine.ingest.ingest_job import IngestJob, prepare
from headwater.engine.models.language_model import ModelChoice
from headwater.engine.runtime.run import SILENT_STAGE
from headwater.engine.sketches.residual import Loss, SparseResidual
from headwater.store.errors import DeviceError
from headwater.store.feature_store import FeatureStore
from headwater.store.layout import column
from headwater.store.reader import open_column
from scanned import stored
from small import save_model, sentences, write_corpus

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]


@pytest.mark.parametrize("tau", [0.1, 1.0])
@pytest.mark.parametrize("vocabulary", [300, 50_000])
def test_reductions_agree_with_the_cpus(tau: float, vocabulary: int) -> None:
    logits = 3 * torch.randn(200, vocabulary, generator=torch.Generator().manual_seed(0))
    targets = torch.randint(vocabulary, (200,), generator=torch.Generator().manual_seed(1))
    for reduction in (Loss(), SparseResidual(tau, 256, 0.92, 4)):
        ours, theirs = reduction(logits, targets), reduction(logits.cuda(), targets.cuda())
        for here, there in zip(ours, theirs, strict=True):
            torch.testing.assert_close(there.cpu(), here, rtol=1e-4, atol=1e-5)


def test_a_store_made_on_the_device_is_the_cpus(tmp_path: Path) -> None:
    model = save_model(tmp_path / "model")
    corpus = write_corpus(tmp_path / "c.jsonl", sentences(100))
    found = {}
    for device in ("cpu", "cuda"):
        choice = ModelChoice(str(model), device=device, dtype="float32")
        prepare(IngestJob([str(corpus)], str(tmp_path / device), choice, {"rise": {"tau": 1.0}})).ingest()
        reader = open_column(FeatureStore.open(tmp_path / device), "methods/rise", "signature")
        found[device] = reader.gather(np.arange(100)).astype(np.float32)
    cosines = (found["cpu"] * found["cuda"]).sum(1)
    assert cosines.min() > 0.999


@pytest.mark.parametrize("precision", ["float32", "float16", "bf16", "int8", "sign"])
@pytest.mark.parametrize("resident", [True, False])
def test_a_scan_on_the_device_is_the_cpus(tmp_path: Path, precision: str, resident: bool, monkeypatch) -> None:
    cupy = pytest.importorskip("cupy", reason="scans on a GPU need CuPy")
    from headwater.engine.arrays.scan import gpu_scan as gpu

    rows = np.random.default_rng(0).standard_t(4, (5000, 256)).astype(np.float32)
    matrix = rows[:33] + 1
    form = precision_of(precision, column("c", (256,), "float32"), 1024)
    columns = stored(tmp_path / "s", rows, form=form)
    expected = top_k(columns, scorer_of(form, matrix), 50, ScanShape(500, 2), SILENT_STAGE)
    monkeypatch.setattr(gpu, "BLOCK_BYTES", 600 * 256)
    memory = (1 << 30) if resident else 8 << 20
    scan = gpu.GpuScan(columns, form, 0, memory)
    for _ in range(2):  # the second time from the device's memory, if it fits
        found = scan.top_k(matrix, 50, SILENT_STAGE)
        if precision in ("int8", "sign"):
            assert np.array_equal(found.rows, expected.rows) and np.array_equal(found.scores, expected.scores)
        else:
            np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-5, atol=1e-4)
            assert (found.rows == expected.rows).mean() > 0.99
    assert cupy.get_default_memory_pool().total_bytes() <= memory


def test_a_device_without_room_is_an_error_and_no_answer(tmp_path: Path) -> None:
    pytest.importorskip("cupy", reason="scans on a GPU need CuPy")
    from headwater.engine.arrays.scan.gpu_scan import GpuScan

    rows = np.ones((100_000, 256), np.float32)
    form = precision_of("float32", column("c", (256,), "float32"))
    columns = stored(tmp_path / "s", rows, 1 << 20, form)
    with pytest.raises(DeviceError, match="out of memory"):
        GpuScan(columns, form, 0, 1 << 20).top_k(rows[:1], 10, SILENT_STAGE)


def test_a_recovery_on_the_device_is_the_cpus() -> None:
    pytest.importorskip("cupy", reason="recovery on a GPU needs CuPy")
    from headwater.engine.recovery.design import PartitionDesign
    from headwater.engine.recovery.gpu_pass import DevicePass, cupy_on
    from headwater.engine.recovery.recover import Recovery, RecoveryResources, recovered

    design = PartitionDesign(100_000, 1000, 8, 0)
    y = np.random.default_rng(0).normal(size=(4, 1000))
    ours = recovered(design, y, Recovery(solver="lasso"))
    theirs = recovered(design, y, Recovery(solver="lasso"), RecoveryResources(device=DevicePass(cupy_on(0), design)))
    assert ours.regularization == theirs.regularization and np.allclose(
        ours.dense(design), theirs.dense(design), atol=1e-3
    )


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"omega": "example"},
        {"states_from": "forward", "depth": 0.5},
        {"space": "activations", "depth": 0.5, "linearity": 0.1},
    ],
)
def test_a_fit_on_the_device_measures_as_the_cpus(tmp_path: Path, more: dict[str, Any]) -> None:
    pytest.importorskip("cupy", reason="recovery on a GPU needs CuPy")
    from headwater.engine.attribution.query_options import QueryOptions
    from headwater.engine.attribution.recovered_session import RecoveredSession
    from headwater.engine.fitting.fit_job import prepare_fit
    from headwater.engine.fitting.fit_request import FitJob

    model, corpus = save_model(tmp_path / "model"), write_corpus(tmp_path / "c.jsonl", sentences(100))
    queries = write_corpus(tmp_path / "q.jsonl", sentences(4, seed=3))
    prepare(
        IngestJob([str(corpus)], str(tmp_path / "S"), ModelChoice(str(model), dtype="float32"), {"repsim": {}})
    ).ingest()
    measurements = []
    for device in ("cpu", "cuda"):
        choice = ModelChoice("", device, "float32")
        job = FitJob(
            str(tmp_path / "S"),
            "stride",
            {"subsets": 60, "degree": 3, "updates": 20, **more},
            model=choice,
            again=True,
        )
        prepare_fit(job).run()
        store = FeatureStore.open(tmp_path / "S")
        question = RecoveredSession(store, "stride", str(queries), QueryOptions(5, choice))
        (member,) = question._member.weights(scaled=False).members
        measurements.append(member.centred)
    assert np.corrcoef(measurements[0].ravel(), measurements[1].ravel())[0, 1] > 0.99
