"""The reductions of logits, against float64: losses, and truncated residuals by the CPU's kernel and by torch operations."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from headwater.engine.sketches.count_sketch import count_sketch
from headwater.engine.sketches.head_gradient import whole_residual
from headwater.engine.sketches.residual import Loss, SparseResidual
from headwater.engine.sketches.tensor_sketch import BucketedResidual
from hypothesis import assume, given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.usefixtures("one_thread")


def dense_residual(index: np.ndarray, value: np.ndarray, vocabulary: int) -> np.ndarray:
    """Sparse residuals as (p, V) float32."""
    out = np.zeros((len(index), vocabulary), np.float32)
    np.add.at(out, (np.arange(len(index))[:, None], index), value)
    return out


def oracle(logits: np.ndarray, targets: np.ndarray, asked: SparseResidual) -> tuple[np.ndarray, float]:
    """Dense residuals in float64, ties by index; and how near any kept prefix's mass came to the bound."""
    out, margin = np.zeros(logits.shape), 1.0
    top = min(asked.top or logits.shape[1], logits.shape[1])
    for row, (z, y) in enumerate(zip(logits.astype(np.float64), targets, strict=True)):
        order = np.argsort(-z, kind="stable")[:top]
        if y not in order:
            order[-1] = y
        e = np.exp((z[order] - z[order].max()) / asked.tau)
        p = e / (e.sum() + 1e-8)
        ahead = np.concatenate([[0.0], np.cumsum(p)[:-1]])
        kept = (ahead < asked.mass) | (np.arange(top) < asked.least) | (order == y)
        out[row, order[kept]] = p[kept] / p[kept].sum()
        out[row, y] = -p[kept & (order != y)].sum() / p[kept].sum()
        if asked.mass < 1:
            margin = min(margin, np.abs(ahead - asked.mass).min())
    return out, margin


def both(logits: np.ndarray, targets: np.ndarray, asked: SparseResidual) -> list[np.ndarray]:
    """The kernel's residuals and torch's, dense."""
    z, y = torch.from_numpy(logits), torch.from_numpy(targets)
    top = min(asked.top or logits.shape[1], logits.shape[1])
    dense = []
    for index, value in (asked(z, y), asked.by_torch(z, y, top)):
        assert index.shape == value.shape == (len(targets), index.shape[1])
        assert index.dtype == torch.int64 and value.dtype == torch.float32
        dense.append(dense_residual(index.numpy(), value.numpy(), logits.shape[1]))
    return dense


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    width=st.sampled_from([1, 2, 3, 5, 40, 300, 3000]),
    rows=st.integers(1, 6),
    spread=st.sampled_from([1e-3, 0.3, 3.0, 30.0, 1000.0]),
    tau=st.sampled_from([0.01, 0.1, 1.0, 30.0]),
    top=st.sampled_from([0, 1, 2, 4, 16, 256, 5000]),
    mass=st.sampled_from([0.05, 0.5, 0.92, 0.999, 1.0]),
    least=st.sampled_from([1, 4, 9]),
)
def test_residuals_of_random_logits(seed, width, rows, spread, tau, top, mass, least):
    rng = np.random.default_rng(seed)
    logits = (spread * rng.standard_normal((rows, width))).astype(np.float32)
    targets, asked = rng.integers(0, width, rows), SparseResidual(tau, top, mass, least)
    wanted, margin = oracle(logits, targets, asked)
    assume(margin > 1e-5)
    for found in both(logits, targets, asked):
        np.testing.assert_allclose(found, wanted, rtol=2e-4, atol=1e-6)


def rows_of(width: int, **entries: float) -> np.ndarray:
    """One row of `fill`, some places set: `at3=7.0`."""
    row = np.full((1, width), entries.pop("fill", 0.0), np.float32)
    for place, value in entries.items():
        row[0, int(place[2:])] = value
    return row


ADVERSARIAL = {
    "one dominates": (rows_of(600, at7=1e4), 7),
    "one dominates, another is the target": (rows_of(600, at7=1e4), 9),
    "the target is the last of all": (-np.arange(600, dtype=np.float32)[None], 599),
    "the target is minus 1e30": (rows_of(600, at5=-1e30), 5),
    "all but two are minus 1e30": (rows_of(600, fill=-1e30, at3=1.0, at4=1.05), 4),
    "a spread beyond float32": (rows_of(600, at0=3e38, at1=-3e38), 1),
    "one token": (rows_of(1, at0=3.0), 0),
    "one token, absurdly low": (rows_of(1, at0=-1e30), 0),
}


@pytest.mark.parametrize("case", ADVERSARIAL)
@pytest.mark.parametrize("tau", [1e-40, 0.1, 1.0, 1e6])
@pytest.mark.parametrize("top", [0, 1, 4, 256, 700])
def test_residuals_of_adversarial_logits(case, tau, top):
    logits, target = ADVERSARIAL[case]
    asked, targets = SparseResidual(tau, top, 1.0, 4), np.array([target])
    wanted, _ = oracle(logits, targets, asked)
    for found in both(logits, targets, asked):
        assert np.isfinite(found).all()
        if top in (0, 1, 700):  # between, equal logits leave it open which are kept
            np.testing.assert_allclose(found, wanted, rtol=2e-4, atol=1e-6)
        np.testing.assert_allclose(np.sort(found, 1), np.sort(wanted, 1), rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize("tau", [0.1, 1.0])
@pytest.mark.parametrize(
    ("top", "mass", "least", "kept"), [(0, 1.0, 1, 600), (256, 1.0, 4, 256), (256, 0.3, 4, 77), (8, 0.1, 4, 4)]
)
def test_equal_logits_share_alike(top, mass, least, kept, tau):
    """A prefix is cut, and which of equals is in it is free; that is so for the target's place, too, unless it is none."""
    logits, targets = np.zeros((3, 600), np.float32), np.array([0, 300, 599])
    for found in both(logits, targets, SparseResidual(tau, top, mass, least)):
        for row, y in enumerate(targets):
            slots = np.flatnonzero(found[row])
            assert y in slots
            assert len(slots) in (kept, kept + 1)
            np.testing.assert_allclose(found[row, slots[slots != y]], 1 / len(slots), rtol=1e-5)
            assert found[row].sum() == pytest.approx(0, abs=1e-6)


def test_the_kernel_breaks_ties_by_index_whatever_stands_around():
    logits = np.round(np.random.default_rng(0).standard_normal((50, 300)) * 4).astype(np.float32)
    asked, targets = SparseResidual(1.0, 16, 1.0, 4), np.arange(50)
    wanted, _ = oracle(logits, targets, asked)
    np.testing.assert_allclose(both(logits, targets, asked)[0], wanted, rtol=1e-5, atol=1e-7)


def test_a_sure_model_keeps_the_direction_of_what_is_left():
    """p(target) rounds to 1 in float32; the residual must still be the others' probabilities, not rounding."""
    logits = rows_of(50, fill=-9.0, at3=2.0, at4=-0.5, at5=-0.6)
    wanted, _ = oracle(logits, np.array([3]), SparseResidual(0.1, 256, 1.0, 4))
    assert 0 < -wanted[0, 3] < 1e-9
    for found in both(logits, np.array([3]), SparseResidual(0.1, 256, 1.0, 4)):
        np.testing.assert_allclose(found / np.linalg.norm(found), wanted / np.linalg.norm(wanted), atol=1e-5)


def test_no_positions_give_no_rows():
    for index, value in (
        SparseResidual(0.1, 4, 0.9, 4)(torch.zeros(0, 9), torch.zeros(0, dtype=torch.int64)),
        SparseResidual(0.1, 4, 0.9, 4).by_torch(torch.zeros(0, 9), torch.zeros(0, dtype=torch.int64), 4),
    ):
        assert len(index) == len(value) == 0
    assert Loss()(torch.zeros(0, 9), torch.zeros(0, dtype=torch.int64))[0].shape == (0,)


@pytest.mark.parametrize("width", [1, 2, 31, 4096, 4097, 50304])
@pytest.mark.parametrize("spread", [0.0, 1e-3, 1.0, 20.0, 1e4])
def test_losses(width, spread):
    rng = np.random.default_rng(width)
    logits = (spread * rng.standard_normal((8, width)) + 3).astype(np.float32)
    targets = rng.integers(0, width, 8)
    targets[:3] = 0, width - 1, logits[2].argmax()
    z = logits.astype(np.float64)
    peak = z.max(1)
    wanted = np.log(np.exp(z - peak[:, None]).sum(1)) + peak - z[np.arange(8), targets]
    (found,) = Loss()(torch.from_numpy(logits), torch.from_numpy(targets))
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-6, atol=1e-5)


def test_losses_of_adversarial_logits():
    logits = np.concatenate([rows_of(600, fill=-1e30, at3=1.0), rows_of(600, at7=1e4), rows_of(600, at0=-1e30)])
    (found,) = Loss()(torch.from_numpy(logits), torch.tensor([3, 8, 0]))
    np.testing.assert_allclose(found.numpy(), [0, 1e4, 1e30], rtol=1e-6, atol=1e-6)


def test_dense_residual_adds_up_what_is_said_twice():
    dense = dense_residual(np.array([[2, 0, 0], [1, 0, 0]]), np.array([[0.5, -0.5, 0.25], [1, 0, 0]], np.float32), 4)
    np.testing.assert_array_equal(dense, [[-0.25, 0, 0.5, 0], [0, 1, 0, 0]])


def test_threads_change_nothing(tmp_path):
    """The kernels on two threads, in a process of their own: this one may have a single thread."""
    code = (
        "import numpy as np, sys, torch\n"
        "from headwater.engine.sketches.residual import Loss, SparseResidual\n"
        "draw = np.random.default_rng(0)\n"
        "z = torch.from_numpy(draw.standard_normal((64, 900)).astype('f4') * 3)\n"
        "y = torch.from_numpy(draw.integers(0, 900, 64))\n"
        "parts = [*SparseResidual(0.1, 32, 0.92, 4)(z, y), *Loss()(z, y)]\n"
        "np.savez(sys.argv[1], *(part.numpy() for part in parts))\n"
    )
    found = []
    for threads in ("1", "2"):
        path = tmp_path / f"{threads}.npz"
        environment = {**os.environ, "NUMBA_NUM_THREADS": threads}
        subprocess.run([sys.executable, "-c", code, str(path)], env=environment, check=True)
        with np.load(path) as arrays:
            found.append([arrays[name] for name in sorted(arrays)])
    assert all(np.array_equal(one, two) for one, two in zip(*found, strict=True))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    width=st.sampled_from([1, 2, 3, 5, 40, 300, 9001]),
    buckets=st.sampled_from([2, 7, 64, 1024]),
    spread=st.sampled_from([1e-3, 3.0, 1000.0]),
)
def test_the_whole_residual_in_buckets(seed: int, width: int, buckets: int, spread: float) -> None:
    chance = np.random.default_rng(seed)
    logits = (spread * chance.standard_normal((4, width))).astype(np.float32)
    targets = chance.integers(0, width, 4)
    wide = logits.astype(np.float64)
    whole = np.exp(wide - wide.max(1, keepdims=True))
    whole /= whole.sum(1, keepdims=True)
    whole[np.arange(4), targets] -= 1
    sketch, asked = count_sketch(width, buckets, 3, "tensor.r"), BucketedResidual(buckets, 3)
    expected = whole @ sketch.matrix().double().numpy()
    z, y = torch.from_numpy(logits), torch.from_numpy(targets)
    assert np.abs(asked(z, y)[0].numpy() - expected).max() < 1e-5
    assert np.abs(asked.by_torch(z, y, sketch).numpy() - expected).max() < 1e-5


def test_a_sure_models_residual_keeps_its_digits() -> None:
    """Where all but 1e-9 of the probability is the target's, p − 1 in float32 would be 0."""
    logits = torch.zeros(1, 8)
    logits[0, 2] = float(np.log(7e9))
    found = BucketedResidual(64, 0)(logits, torch.tensor([2]))[0].numpy()[0]
    assert np.isclose(np.abs(found).max(), 1e-9, rtol=1e-4)


@pytest.mark.parametrize("width", [2, 15, 16, 17, 4096, 4113, 9000])
def test_the_whole_residual_is_that_of_float64(width: int) -> None:
    draw = torch.Generator().manual_seed(width)
    logits = 6 * torch.randn(5, width, generator=draw)
    targets = torch.randint(width, (5,), generator=draw)
    targets[0] = logits[0].argmax()
    before, residual = logits.clone(), whole_residual(logits, targets).double()
    expected = torch.softmax(before.double(), 1) - torch.nn.functional.one_hot(targets, width)
    assert torch.equal(logits, before)
    assert (residual - expected).abs().max() < 5e-7 and residual.sum(1).abs().max() < 1e-5
    alone = torch.cat([whole_residual(logits[i : i + 1], targets[i : i + 1]) for i in range(5)])
    assert torch.equal(alone.double(), residual)
