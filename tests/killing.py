"""Kills a process at a chosen change of the disk."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any


def kill_before(change: int, *functions: tuple[Any, str]) -> None:
    """End this process just before the n-th call of any of these functions, each named by its module or class and its name."""
    left = [change]

    def counted(action: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **options: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return action(*args, **options)

        return wrapped

    for owner, name in functions:
        setattr(owner, name, counted(getattr(owner, name)))
