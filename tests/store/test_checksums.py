"""Checksums of wholes from their parts'."""

from itertools import pairwise

import numpy as np
import pytest
from headwater.store import checksums
from headwater.store.checksums import Pieces, crc32c, joined
from hypothesis import given
from hypothesis import strategies as st


def test_the_sum_is_castagnolis() -> None:
    assert crc32c(b"123456789") == 0xE3069283  # the check value of RFC 3720's polynomial


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_joined_is_the_sum_of_the_whole(first: bytes, second: bytes) -> None:
    assert joined(crc32c(first), crc32c(second), len(second)) == crc32c(first + second)


def test_long_parts_join() -> None:
    data = np.random.default_rng(0).integers(0, 256, 3 << 20, dtype=np.uint8)
    for cut in (1, 1 << 20, (1 << 20) + 7):
        assert joined(crc32c(data[:cut]), crc32c(data[cut:]), len(data) - cut) == crc32c(data)


@pytest.mark.parametrize("seed", range(20))
def test_a_whole_is_summed_from_parts_in_any_order(seed, monkeypatch):
    random, data = np.random.default_rng(seed), np.random.default_rng(seed).bytes(1000)
    monkeypatch.setattr(checksums, "_UNJOINED", 5 if seed % 2 else 1024)
    cuts = [0, *sorted(random.choice(np.arange(1, 1000), 30, replace=False).tolist()), 1000]
    parts, pieces = list(pairwise(cuts)), Pieces(1000)
    order = random.permutation(len(parts))
    for number, at in enumerate(order):
        first, end = parts[at]
        found = pieces.add(first, end - first, crc32c(data[first:end]))
        assert (found is None) == (number < len(order) - 1)
    assert found == crc32c(data)


@pytest.mark.parametrize("many", [3, 1024])
def test_parts_of_a_reading_that_was_left_are_forgotten(many, monkeypatch):
    monkeypatch.setattr(checksums, "_UNJOINED", many)
    data, pieces = bytes(range(100)), Pieces(100)
    for first in (0, 30, 60):
        assert pieces.add(first, 30, 12345) is None  # wrong sums, cut otherwise
    found = [pieces.add(first, 25, crc32c(data[first : first + 25])) for first in (75, 25, 0, 50)]
    assert found == [None, None, None, crc32c(data)]
