"""Threads of one core each that compute the tiles of a training step in parallel. Knows nothing of tiles.

torch's own threads synchronise at each of a step's thousands of small operations; threads that compute whole tiles synchronise
once per step. Results come in the order of the items, so that sums do not depend on which thread was first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import torch

Item = TypeVar("Item")
Output = TypeVar("Output")
_AHEAD = 2  # items per thread that may wait in the queue


@dataclass(frozen=True, slots=True)
class Workers:
    """As many threads as torch would use; on a GPU only the caller's thread."""

    count: int
    _pool: list[ThreadPoolExecutor] = field(default_factory=list, repr=False)

    @classmethod
    def of(cls, device: torch.device) -> Workers:
        """Threads for work on a device."""
        return cls(torch.get_num_threads() if device.type == "cpu" else 1)

    def each(self, work: Callable[[Item], Output], items: Iterable[Item]) -> Iterator[Output]:
        """Results of work(item), in the order of the items; torch uses one thread in the meantime."""
        if self.count == 1:
            yield from map(work, items)
            return
        if not self._pool:
            self._pool.append(ThreadPoolExecutor(self.count, initializer=lambda: torch.set_num_threads(1)))
        before, waiting = torch.get_num_threads(), deque[Future[Output]]()
        torch.set_num_threads(1)
        try:
            for item in items:
                waiting.append(self._pool[0].submit(work, item))
                if len(waiting) > _AHEAD * self.count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
            torch.set_num_threads(before)
