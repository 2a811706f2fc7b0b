"""Threads of one core each, which share a training step's tiles. Knows nothing of tiles.

torch's own threads meet at each of a step's thousands of small operations; threads that each take a tile from its beginning to
its end meet once a step. Results come in the order of the items, so that sums do not depend on who was first.
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
_AHEAD = 2  # items a thread that wait, at most


@dataclass(frozen=True, slots=True)
class Workers:
    """As many threads as torch would use; on a GPU the caller's alone."""

    count: int
    _pool: list[ThreadPoolExecutor] = field(default_factory=list, repr=False)

    @classmethod
    def of(cls, device: torch.device) -> Workers:
        """For work on a device."""
        return cls(torch.get_num_threads() if device.type == "cpu" else 1)

    def each(self, work: Callable[[Item], Output], items: Iterable[Item]) -> Iterator[Output]:
        """work(item), in the items' order; meanwhile torch starts no thread."""
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
            for one in waiting:
                one.cancel()
            torch.set_num_threads(before)
