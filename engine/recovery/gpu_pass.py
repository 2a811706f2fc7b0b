"""The solvers' correlation pass on a GPU, by CuPy: subsets of all rows are copied to the device once.

Written over what NumPy and CuPy have in common, so that the same lines are tested on a processor; on a GPU they have not run yet:
untested. Knows memberships; no solver.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...store.errors import DeviceError
from ...store.layout import Array
from .membership import Membership

_BLOCK = 1 << 16  # rows that are summed together
_BLOCK_NUMBERS = 1 << 26  # float32 gathered at once, at most


def cupy_on(device: int) -> Any:
    """CuPy, with the device in use.

    Raises:
        DeviceError: CuPy or the device is not there.
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
    """Passes over a membership on a device."""

    def __init__(self, xp: Any, membership: Membership) -> None:
        """xp: CuPy, or NumPy."""
        self._xp, self._of = xp, membership
        self._blocks: list[Any] = []

    def best(self, residual: Array, most: int) -> tuple[Array, Array]:
        """What :func:`membership.correlated` finds: rows (Q, most) int64, -1 fills up, and |Mᵀ residual| there, float32.

        Raises:
            DeviceError: the device has no room.
        """
        try:
            return self._best(residual, most)
        except MemoryError as error:  # CuPy's is one
            raise DeviceError(f"the device has no room for the subsets of {self._of.rows:,} rows: {error}") from None

    def _best(self, residual: Array, most: int) -> tuple[Array, Array]:
        xp, queries = self._xp, residual.shape[1]
        padded = xp.zeros((self._of.subsets + 1, queries), xp.float32)
        padded[:-1] = xp.asarray(residual, xp.float32)
        sizes, rows = xp.zeros((queries, 0), xp.float32), xp.zeros((queries, 0), xp.int64)
        first = 0
        for ids in self._tables(queries):
            found = xp.abs(padded[ids].sum(1, dtype=xp.float32)).T  # (Q, n)
            here = xp.broadcast_to(xp.arange(first, first + found.shape[1]), found.shape)
            sizes, rows = xp.concatenate([sizes, found], 1), xp.concatenate([rows, here], 1)
            if sizes.shape[1] > most:
                kept = xp.argpartition(-sizes, most - 1, axis=1)[:, :most]
                sizes, rows = xp.take_along_axis(sizes, kept, 1), xp.take_along_axis(rows, kept, 1)
            first += found.shape[1]
        return _ordered(_host(sizes), _host(rows), most)

    def _tables(self, queries: int) -> list[Any]:
        """(n, d) ids of every block of rows, on the device; blocks as small as the queries ask for."""
        degree = max(1, self._of.of(np.zeros(1, np.int64)).shape[1])
        block = max(1, min(_BLOCK, _BLOCK_NUMBERS // (queries * degree)))
        if not self._blocks or len(self._blocks[0]) > block:
            starts = range(0, self._of.rows, block)
            ids = (self._of.of(np.arange(start, min(start + block, self._of.rows))) for start in starts)
            self._blocks = [self._xp.asarray(one.astype(np.int32)) for one in ids]
        return self._blocks


def _host(array: Any) -> Array:
    found: Array = array.get() if hasattr(array, "get") else array
    return found


def _ordered(sizes: Array, rows: Array, most: int) -> tuple[Array, Array]:
    """Descending, of equal ones the lower row first, filled up to `most`."""
    order = np.lexsort((rows, -sizes), axis=1)
    sizes, rows = np.take_along_axis(sizes, order, 1), np.take_along_axis(rows, order, 1)
    short = ((0, 0), (0, max(0, most - sizes.shape[1])))
    return np.pad(rows, short, constant_values=-1), np.pad(sizes, short)
