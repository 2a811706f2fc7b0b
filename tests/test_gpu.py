"""What runs on CUDA: reductions and ingestion agree with the CPU. Skipped where torch sees no device."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from headwater.engine.intake.job import IngestJob, prepare
from headwater.engine.intake.model import ModelChoice
from headwater.engine.intake.residual import Loss, SparseResidual
from headwater.store.feature_store import FeatureStore
from headwater.store.reader import open_column
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
