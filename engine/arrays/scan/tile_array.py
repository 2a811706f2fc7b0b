"""An array whose matrix products give a row and a query the same bits at every position in a tile.

A BLAS product does not guarantee this: OpenBLAS' kernels for AVX2 processors (Haswell, Zen) sum in another order at the edge of a
panel. Of the 128 positions of a row in a tile with 64 queries, 68 give other bits than the first; no tile size avoids this for
both rows and queries. Knows arrays alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ....store.layout import Array
from ..kernels.product import products


class TileArray(np.ndarray[Any, Any]):
    """The arrays of a method's `score`: each element of `@` depends on its two vectors alone; other operations are NumPy's."""

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        """Matrix products by the package's own kernel, all other functions by NumPy, on plain NumPy arrays."""
        plain = [_plain(value) for value in inputs]
        if "out" in options:
            options["out"] = tuple(_plain(value) for value in options["out"])
        if ufunc is np.matmul and method == "__call__" and not options:
            result: Any = _matmul(np.asarray(plain[0]), np.asarray(plain[1]))
        else:
            result = getattr(ufunc, method)(*plain, **options)
        return result.view(TileArray) if isinstance(result, np.ndarray) else result


def _plain(value: Any) -> Any:
    return value.view(np.ndarray) if isinstance(value, TileArray) else value


def _matmul(left: Array, right: Array) -> Array:
    """left @ right, with np.matmul's shapes; each element depends on its own row and column alone."""
    if left.ndim == 1 or right.ndim == 1:
        whole = _matmul(left[None] if left.ndim == 1 else left, right[:, None] if right.ndim == 1 else right)
        return whole.reshape([size for size, side in zip(whole.shape, (left, right), strict=True) if side.ndim > 1])
    if left.ndim == right.ndim == 2 and left.dtype == right.dtype == np.float32:
        return products(np.ascontiguousarray(left), np.ascontiguousarray(right.T))
    rows, columns = np.ascontiguousarray(left), np.ascontiguousarray(np.swapaxes(right, -1, -2))
    summed: Array = np.einsum("...id,...jd->...ij", rows, columns)
    return summed
