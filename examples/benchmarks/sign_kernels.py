"""Three ways to multiply queries with sign bits, on one thread: tables of sixteen sums, ±1 bytes, popcounts of bit planes.

Tables are what the engine uses; ±1 bytes are its int8 product over unpacked rows (unpacking counted); planes cut a query to
four bits, sign and magnitude in two's complement, and count the bits that a row and each plane share.

    python examples/benchmarks/sign_kernels.py
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import machine
import numpy as np
from numba import njit, types
from numba.extending import intrinsic

PLANES = 4


@intrinsic
def ones(typing: Any, word: Any) -> Any:
    """The number of set bits of a uint64."""
    return types.uint64(types.uint64), lambda context, b, signature, values: b.ctpop(values[0])


@njit(nogil=True)
def by_planes(rows: np.ndarray, planes: np.ndarray, out: np.ndarray) -> None:
    """out[j, i] = Σ_p weight_p · |rows_i ∧ plane_jp|: rows (n, w), planes (Q, PLANES, w) uint64; the top plane is negative."""
    for i in range(len(rows)):
        for j in range(len(planes)):
            total = 0
            for p in range(PLANES):
                shared = 0
                for k in range(rows.shape[1]):
                    shared += ones(rows[i, k] & planes[j, p, k])
                total += (-1 if p == PLANES - 1 else 1) * (shared << p)
            out[j, i] = total


def fastest(run: Callable[[], object], rounds: int) -> float:
    """Seconds of the fastest of some rounds; the first, which compiles, is not counted."""
    run()
    found = []
    for _ in range(rounds):
        begun = time.perf_counter()
        run()
        found.append(time.perf_counter() - begun)
    return min(found)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Run, print, write; returns what was measured."""
    from headwater.engine.arrays.kernels.lookup import SignQueries

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=machine.OUT, help="where tables go")
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--bits", type=int, default=8192)
    parser.add_argument("--queries", type=int, nargs="*", default=[1, 64, 1000])
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args(arguments)
    random = np.random.default_rng(0)
    signs = random.integers(0, 256, (given.rows, given.bits // 8), dtype=np.uint8)
    words = signs.view(np.uint64)
    lines = []
    for count in given.queries:
        values = random.integers(-8, 8, (count, given.bits)).astype(np.int16)
        planes = np.stack([np.packbits((values >> p) & 1, axis=1, bitorder="little") for p in range(PLANES)], 1)
        tables, unpacked = SignQueries(values), SignQueries(values, tables=False)
        found = [np.empty((count, given.rows), np.int32) for _ in range(3)]
        ways: dict[str, Callable[[], object]] = {
            "tables": lambda t=tables, f=found: t.multiply(signs, f[0]),  # type: ignore[misc]
            "±1 bytes": lambda u=unpacked, f=found: u.multiply(signs, f[1]),  # type: ignore[misc]
            f"{PLANES} planes": lambda p=planes, f=found: by_planes(words, p.view(np.uint64), f[2]),  # type: ignore[misc]
        }
        for name, run in ways.items():
            seconds = fastest(run, given.rounds)
            lines.append({"what": name, "queries": count, "seconds": seconds,
                          "per_second": given.rows * given.bits * count / seconds})  # fmt: skip
        whole = 2 * found[2] - values.sum(1, dtype=np.int32)[:, None]  # Σ ±q = 2 Σ_{bit set} q - Σ q
        assert np.array_equal(found[0], found[1]) and np.array_equal(found[0], whole), "the three ways differ"
    table = machine.markdown(["kernel", "Q", "10⁹ bits · queries/s"],
                             [[f["what"], str(f["queries"]), f"{f['per_second'] / 1e9:.0f}"] for f in lines])  # fmt: skip
    result = {"machine": machine.describe(), "kernels": lines}
    machine.save(given.out, "sign_kernels", result, table)
    return result


if __name__ == "__main__":
    main()
