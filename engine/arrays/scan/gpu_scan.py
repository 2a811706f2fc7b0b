"""The scan on one GPU: chunks go through pinned buffers to the device while the previous block is multiplied. It has not been run
on a GPU yet; only its arithmetic, `tensor_scores.py`, is tested, on the CPU.

CuPy allocates device memory, in a pool limited to the plan, and owns the streams; torch multiplies on the same memory through
DLPack. Rows that fit stay on the device between query batches. Knows columns, blocks and precisions; no method.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from ....store.blocks import BlockStream
from ....store.columns import ColumnReader
from ....store.errors import DeviceError
from ....store.layout import Array, Block
from ...runtime.run import Stage
from ..precision.precisions import Precision, Sign
from .scan_loop import ScanShape, row_bytes
from .tensor_scores import best_keys, from_keys, query_planes, scores_of
from .top_k import TopK

BLOCK_BYTES = 64 << 20
"""Size of a block copied to the device; copies of this size reach the full bus rate."""
DeviceArrays = dict[str, Any]
"""Column → CuPy array; CuPy is not typed."""
_SLOTS = 2


class GpuScan:
    """Top-k search over a column's rows on a GPU."""

    def __init__(self, columns: Sequence[ColumnReader], precision: Precision, device: int, memory: int) -> None:
        """`memory`: device memory budget in bytes.

        Raises:
            DeviceError: CuPy or the device is not available.
        """
        try:
            import cupy
        except ImportError as error:
            raise DeviceError(f"scans on a GPU need CuPy: pip install 'headwater[cuda12]' ({error})") from None
        self._cupy, self._columns, self._precision, self._memory = cupy, columns, precision, memory
        self._device = torch.device("cuda", device)
        self._resident: list[Block] = []
        with self._guarded():
            cupy.cuda.Device(device).use()
            cupy.get_default_memory_pool().set_limit(size=memory // 2)  # rows; the other half is for scores and keys
            total = torch.cuda.get_device_properties(self._device).total_memory
            torch.cuda.set_per_process_memory_fraction(min(1.0, memory / 2 / total), self._device)
            self._copies = cupy.cuda.Stream(non_blocking=True)

    def top_k(self, matrix: Array, k: int, stage: Stage) -> TopK:
        """The k best rows for each query (Q, D), as :func:`top_k.top_k` returns them.

        If the device runs out of memory, the scan restarts once with blocks a quarter as large; a second failure is an error.

        Raises:
            DeviceError: out of memory twice, or the device was lost.
        """
        rows = self._block_rows(len(matrix), k)
        with self._guarded():
            try:
                return self._scanned(matrix, k, rows, stage)
            except (self._cupy.cuda.memory.OutOfMemoryError, torch.cuda.OutOfMemoryError) as error:
                traceback.clear_frames(error.__traceback__)  # frames keep device arrays alive
            self._resident.clear()
            self._cupy.get_default_memory_pool().free_all_blocks()
            torch.cuda.empty_cache()
            message = f"the device has no memory for blocks of {rows:,} rows: trying {max(1, rows // 4):,}"
            print(message, file=sys.stderr)
            return self._scanned(matrix, k, max(1, rows // 4), stage)

    def _block_rows(self, queries: int, k: int) -> int:
        """Rows of a block: `BLOCK_BYTES`, or fewer if scores and keys (about 60 bytes per row and query) exceed the budget."""
        row = row_bytes(self._columns)
        work = 60 * queries + (16 if isinstance(self._precision, Sign) else 2) * row
        return max(1, min(BLOCK_BYTES // row, (self._memory // 2 - 24 * queries * k) // work))

    def _scanned(self, matrix: Array, k: int, rows: int, stage: Stage) -> TopK:
        queries, keys, done = query_planes(self._precision, matrix, self._device), None, 0
        name = self._precision.declared.name
        for block in self._blocks(rows):
            parts = {n: torch.utils.dlpack.from_dlpack(v) for n, v in block.columns.items()}
            scores = scores_of(self._precision, parts[name], parts.get(f"{name}.scale"), queries)
            keys = best_keys(keys, scores, block.start, k)
            done += block.rows
            stage.report(done)
        assert keys is not None
        return from_keys(keys)

    def _blocks(self, rows: int) -> Iterator[Block]:
        """Yield blocks of device arrays; they stay on the device if all of them fit in a quarter of the memory."""
        if self._resident:
            yield from self._resident
            return
        whole = row_bytes(self._columns) * self._columns[0].rows
        keep = 4 * whole <= self._memory
        resident = []
        for block in self._copied(rows, keep):
            yield block
            if keep:
                resident.append(block)
        self._resident = resident

    def _copied(self, rows: int, keep: bool) -> Iterator[Block]:
        """Yield blocks in order; the next block is copied while the current one is used."""
        cupy = self._cupy
        import cupyx

        slots: list[DeviceArrays] = [{} for _ in range(_SLOTS)]
        shape = ScanShape(rows, 1)
        with BlockStream(self._columns, rows, shape.buffers, allocate=cupyx.empty_pinned) as stream:
            before: Block | None = None
            number = 0
            while (block := stream.take()) is not None:
                slot = {} if keep else slots[number % _SLOTS]
                arrays: DeviceArrays = {}
                for name, values in block.columns.items():
                    if name not in slot:
                        slot[name] = cupy.empty((rows, *values.shape[1:]), values.dtype)
                    arrays[name] = slot[name][: block.rows]
                    arrays[name].set(np.ascontiguousarray(values), stream=self._copies)
                arrived = self._copies.record()
                if before is not None:
                    yield before  # multiplied while the copy runs
                arrived.synchronize()
                torch.cuda.synchronize(self._device)
                before, number = Block(block.start, arrays), number + 1
                stream.give(block)
            if before is not None:
                yield before

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Convert driver errors to DeviceError."""
        cupy = self._cupy
        room = (cupy.cuda.memory.OutOfMemoryError, torch.cuda.OutOfMemoryError)
        try:
            yield
        except room as error:
            raise DeviceError(f"the device is out of memory: {' '.join(str(error).split())[:200]}") from None
        except (cupy.cuda.runtime.CUDARuntimeError, torch.AcceleratorError) as error:
            raise DeviceError(f"the device failed: {' '.join(str(error).split())[:200]}") from None
