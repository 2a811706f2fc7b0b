"""Locks on folders, which end with their owner's process. Knows nothing of what a folder holds.

A lock is an advisory one of the operating system on the open folder: it leaves no file, and `kill -9` frees it.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import StoreBusy, StoreError
from .files import writing


class OwnerLock:
    """An exclusive lock on a folder, until it is closed or its process dies. It is on the folder itself, and leaves no file."""

    def __init__(self, folder: Path, work: str) -> None:
        """Lock an existing folder; `work`: what its owner does, for the message.

        Raises:
            StoreBusy: it is locked already, by this process or another one.
        """
        with writing(folder):
            self._handle = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.close()
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise StoreError(f"cannot lock {folder}: {error.strerror}") from error
            raise StoreBusy(f"another process {work}", hint="wait for it, or stop it") from None

    def close(self) -> None:
        """Release the lock."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Wait for the lock on a folder, and hold it. It is on the folder itself: a Zarr group must hold no foreign file."""
    with writing(folder):
        handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
