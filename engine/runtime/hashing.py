"""A hash that no library version changes: the source of all random numbers that decide stored values. Knows nothing of their
use.

Random streams of libraries change between versions, and a store outlives versions. So buckets and signs come from BLAKE2b (the
key) and SplitMix64 (Steele, Lea & Flood 2014: the stream), both fixed by their definitions. A test compares hashes with recorded
values.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def hashed(seed: int, stream: str, count: int) -> npt.NDArray[np.uint64]:
    """(count,) uniform 64-bit hashes of 0 … count-1 under the key (seed, stream)."""
    key = np.frombuffer(hashlib.blake2b(f"{seed}:{stream}".encode(), digest_size=8).digest(), "<u8")[0]
    with np.errstate(over="ignore"):
        z = key + _GOLDEN * np.arange(1, count + 1, dtype=np.uint64)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(z ^ (z >> np.uint64(31)))
