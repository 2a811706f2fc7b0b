"""Checksums of wholes from their parts'."""

import numpy as np
from headwater.store.checksums import crc32c, joined
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
