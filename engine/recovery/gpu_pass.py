"""The solvers' correlation pass on a GPU, by CuPy: the subset ids of all rows are copied to the device once.

Uses only functions that NumPy and CuPy share, so that the same code is tested on the CPU; it has not been run on a GPU yet. Knows
memberships; no solver.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from ...store.errors import DeviceError
from ...store.layout import Array
from .membership import Membership

ArrayModule: TypeAlias = Any
"""NumPy or CuPy; CuPy has no type annotations."""
_BLOCK = 1 << 16  # rows per block
_BLOCK_NUMBERS = 1 << 26  # maximum float32 values gathered at once


def cupy_on(device: int) -> ArrayModule:
    """Import CuPy and select the device.

    Raises:
        DeviceError: CuPy or the device is not available.
    """
    try:
        import cupy

        cupy.cuda.Device(device).use()
    except ImportError as error:
        raise DeviceError(f"recovery on a GPU needs CuPy: pip install 'headwater[cuda12]' ({error})") from None
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise DeviceError(f"cuda:{device}: {error}") from None
    return cupy


class DevicePass:
    """Correlation passes over a membership, on a device."""

    def __init__(self, xp: ArrayModule, membership: Membership) -> None:
        """`xp`: the module CuPy or NumPy."""
        self._xp, self._of = xp, membership
        self._blocks: list[Array] = []

    def best(self, residual: Array, most: int) -> tuple[Array, Array]:
        """The result of :func:`membership.correlated`: rows (Q, most) int64, padded with -1, and their |Mᵀ residual|, float32.

        Raises:
            DeviceError: the device is out of memory.
        """
        try:
            return self._best(residual, most)
        except MemoryError as error:  # CuPy's is one
            raise DeviceError(
                f"the device has no memory for the subset ids of {self._of.rows:,} rows: {error}"
            ) from None

    def _best(self, residual: Array, most: int) -> tuple[Array, Array]:
        xp, queries = self._xp, residual.shape[1]
        padded = xp.zeros((self._of.subsets + 1, queries), xp.float32)
        padded[:-1] = xp.asarray(residual, xp.float32)
        sizes, rows = xp.zeros((queries, 0), xp.float32), xp.zeros((queries, 0), xp.int64)
        first = 0
        for ids in self._tables(queries):
            correlations = xp.abs(padded[ids].sum(1, dtype=xp.float32)).T  # (Q, n)
            block_rows = xp.broadcast_to(xp.arange(first, first + correlations.shape[1]), correlations.shape)
            sizes, rows = xp.concatenate([sizes, correlations], 1), xp.concatenate([rows, block_rows], 1)
            if sizes.shape[1] > most:
                best = xp.argpartition(-sizes, most - 1, axis=1)[:, :most]
                sizes, rows = xp.take_along_axis(sizes, best, 1), xp.take_along_axis(rows, best, 1)
            first += correlations.shape[1]
        return _ordered(_host(sizes), _host(rows), most)

    def _tables(self, queries: int) -> list[Array]:
        """Subset ids (n, d) of every block of rows, on the device; more queries need smaller blocks."""
        degree = max(1, self._of.of(np.zeros(1, np.int64)).shape[1])
        block = max(1, min(_BLOCK, _BLOCK_NUMBERS // (queries * degree)))
        if not self._blocks or len(self._blocks[0]) > block:
            starts = range(0, self._of.rows, block)
            ids = (self._of.of(np.arange(start, min(start + block, self._of.rows))) for start in starts)
            self._blocks = [self._xp.asarray(table.astype(np.int32)) for table in ids]
        return self._blocks


def _host(array: Array) -> Array:
    """An array of either module as a NumPy array."""
    host: Array = array.get() if hasattr(array, "get") else array
    return host


def _ordered(sizes: Array, rows: Array, most: int) -> tuple[Array, Array]:
    """Sort by descending size, ties to the lower row, padded to `most`."""
    order = np.lexsort((rows, -sizes), axis=1)
    sizes, rows = np.take_along_axis(sizes, order, 1), np.take_along_axis(rows, order, 1)
    short = ((0, 0), (0, max(0, most - sizes.shape[1])))
    return np.pad(rows, short, constant_values=-1), np.pad(sizes, short)
