"""CountSketch tables never change, are uniform and independent; sketched inner products are unbiased, of the known variance."""

import hashlib

import numpy as np
import pytest
import torch
from headwater.engine.runtime.hashing import hashed
from headwater.engine.sketches.count_sketch import count_sketch

GOLDEN = {
    (0, "rise.r"): ([0xADB95071C7AE9FFB, 0xB80A563DD4045B9D], [86, 92, 37, 77, 38, 18, 96, 108], [1, 1, 1, 1, 1, -1, 1, -1]),
    (0, "rise.g"): ([0xF221CD1B1BE050B6, 0x1A9B59C2ABD234AD], [121, 13, 48, 35, 98, 89, 36, 78], [-1, 1, -1, -1, 1, 1, 1, -1]),
    (1, "rise.h"): ([0xCCC5851A89C52F8D, 0xEC54E12942015BA7], [102, 118, 67, 78, 67, 121, 36, 37], [1, 1, 1, -1, -1, 1, 1, -1]),
    (2**31, ""): ([0x227DEAD50B12FA56, 0xCF4455C6A7DCE379], [17, 103, 5, 102, 5, 16, 120, 46], [-1, 1, 1, -1, 1, 1, -1, 1]),
}  # fmt: skip


def splitmix64(state: int, count: int) -> list[int]:
    """SplitMix64 as Steele, Lea & Flood wrote it down, in whole numbers."""
    mask, out = 2**64 - 1, []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & mask
        z = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 & mask
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB & mask
        out.append(z ^ (z >> 31))
    return out


@pytest.mark.parametrize(("seed", "stream"), GOLDEN)
def test_the_tables_of_a_seed_never_change(seed, stream):
    hashes, buckets, signs = GOLDEN[seed, stream]
    assert [int(x) for x in hashed(seed, stream, 2)] == hashes
    sketch = count_sketch(8, 128, seed, stream)
    assert sketch.bucket.tolist() == buckets
    assert sketch.sign.tolist() == signs


def test_the_far_end_of_a_table_never_changes_either():
    assert count_sketch(100_000, 128, 0, "rise.r").bucket[-3:].tolist() == [45, 87, 114]


@pytest.mark.parametrize(("seed", "stream"), GOLDEN)
def test_hashes_are_splitmix64_under_a_blake2b_key(seed, stream):
    key = int.from_bytes(hashlib.blake2b(f"{seed}:{stream}".encode(), digest_size=8).digest(), "little")
    assert [int(x) for x in hashed(seed, stream, 500)] == splitmix64(key, 500)


def test_a_table_is_a_prefix_of_a_longer_one():
    short, long = count_sketch(100, 16, 3, "x"), count_sketch(1000, 16, 3, "x")
    assert torch.equal(short.bucket, long.bucket[:100])
    assert torch.equal(short.sign, long.sign[:100])


@pytest.mark.parametrize("buckets", [1, 2, 7, 64, 128])
def test_buckets_and_signs_are_uniform_and_independent(buckets):
    sketch = count_sketch(100_000, buckets, 5, "chi")
    cells = torch.bincount(sketch.bucket * 2 + (sketch.sign > 0), minlength=2 * buckets).numpy()
    assert len(cells) == 2 * buckets
    expected, freedom = 100_000 / len(cells), len(cells) - 1
    chi_square = float(((cells - expected) ** 2 / expected).sum())
    assert abs(chi_square - freedom) < 5 * np.sqrt(2 * freedom)


def test_tables_of_two_streams_or_seeds_are_independent():
    base = count_sketch(100_000, 8, 0, "rise.r")
    for other in (count_sketch(100_000, 8, 0, "rise.h"), count_sketch(100_000, 8, 1, "rise.r")):
        cells = torch.bincount(base.bucket * 8 + other.bucket, minlength=64).numpy()
        assert ((cells - 100_000 / 64) ** 2 / (100_000 / 64)).sum() < 63 + 5 * np.sqrt(2 * 63)
        assert abs(float((base.sign * other.sign).mean())) < 5 / np.sqrt(100_000)


@pytest.mark.parametrize("aligned", [False, True])
def test_inner_products_are_unbiased_with_the_stated_variance(aligned):
    rng = np.random.default_rng(1)
    x = rng.standard_normal(50)
    y = x + 0.3 * rng.standard_normal(50) if aligned else rng.standard_normal(50)
    estimates = []
    for seed in range(4000):
        dense = count_sketch(50, 16, seed, "variance").matrix().numpy()
        estimates.append((x @ dense) @ (y @ dense))
    found, exact = np.array(estimates), (x @ x * (y @ y) + (x @ y) ** 2 - 2 * (x**2 * y**2).sum()) / 16
    assert abs(found.mean() - x @ y) < 4 * found.std() / np.sqrt(len(found))
    deviations = (found - found.mean()) ** 2
    assert abs(deviations.mean() - exact) < 4 * deviations.std() / np.sqrt(len(found))
    assert exact <= 2 * (x @ x) * (y @ y) / 16


def test_sparse_rows_sketch_like_the_dense_rows_that_they_are():
    rng = np.random.default_rng(2)
    sketch = count_sketch(30, 8, 0, "x")
    index, value = (
        torch.from_numpy(rng.integers(0, 30, (7, 5))),
        torch.from_numpy(rng.standard_normal((7, 5)).astype("f4")),
    )
    dense = torch.zeros(7, 30).scatter_add_(1, index, value)
    torch.testing.assert_close(sketch.sparse(index, value), dense @ sketch.matrix())
