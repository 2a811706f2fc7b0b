"""A kernel that was just compiled gives the bytes of the same kernel from Numba's cache: the first run is like any other."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import hashlib
import numpy as np
import torch
from headwater.engine.sketches.residual import Loss, SparseResidual
from headwater.engine.sketches.tensor_sketch import BucketedResidual

draw = np.random.default_rng(0)
for reduction in (BucketedResidual(512, 0), Loss(), SparseResidual(1.0, 64, 0.99, 4)):
    digest = hashlib.md5()
    for vocabulary, positions in ((320, 300), (4099, 40)):
        logits = torch.from_numpy(draw.normal(0, 3, (positions, vocabulary)).astype(np.float32))
        targets = torch.from_numpy(draw.integers(vocabulary, size=positions))
        for part in reduction(logits, targets):
            digest.update(part.numpy().tobytes())
    print(type(reduction).__name__, digest.hexdigest())
"""


def test_the_first_run_gives_the_bytes_of_later_ones(tmp_path: Path) -> None:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    run = [
        subprocess.run(
            [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True
        ).stdout
        for _ in range(2)
    ]
    assert run[0] == run[1] and run[0].count("\n") == 3
