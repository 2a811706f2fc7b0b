"""Writes files and folders that a user named, so that they appear whole or not at all. Knows nothing of what they hold.

Each process writes in a hidden folder of its own beside the name, so that two runs with one output name do not mix; the last one
to end is the one whose output stays. What a killed run left is removed by the next.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ...store.errors import HeadwaterError, SettingsError, StoreFull
from ...store.files import FULL, is_at, sync

_SHOWN = 50  # most characters of a name that its hidden folder shows: a file system limits the length of names


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a hidden path at which to write a file (or a folder) that a user named. When the block ends, what was written is
    flushed to the device and renamed to `path`; when the block raises, it is removed. Missing parent folders of `path` are
    created.

    Raises:
        StoreFull: no room. SettingsError: it cannot be written there. The path is as it was before.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path)
        with _own_folder(path) as folder:
            hidden = folder / path.name
            yield hidden
            for file in [hidden] if hidden.is_file() else [file for file in hidden.rglob("*") if file.is_file()]:
                sync(file)
            hidden.replace(path)
        sync(path.parent)
    except HeadwaterError:
        raise  # StoreDamaged is an OSError, too, but has nothing to do with writing this file
    except OSError as error:
        raise error_of_writing(path, error) from None


@contextmanager
def _own_folder(path: Path) -> Iterator[Path]:
    """A hidden folder beside `path` with a name of its own, locked by this process; removed at the end."""
    while True:
        folder = path.with_name(f".{path.name[:_SHOWN]}.{secrets.token_hex(4)}.new")
        folder.mkdir()
        try:
            handle = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:
            continue  # removed as abandoned, before it was locked
        try:
            with suppress(OSError):  # a file system without locks: what a crash leaves there stays
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not is_at(handle, folder):
                continue
            yield folder
            return
        finally:
            _remove(folder)
            os.close(handle)


def _remove_abandoned(path: Path) -> None:
    """Remove what killed processes left of writing `path`, except what a process that runs has locked."""
    for entry in hidden_beside(path):
        with suppress(OSError):
            handle = os.open(entry, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(entry)
            finally:
                os.close(handle)


def error_of_writing(path: Path, error: OSError) -> HeadwaterError:
    """The error to raise if the operating system refused to write a file that a user named."""
    if error.errno in FULL:
        return StoreFull(f"{path} cannot be written: no room left on the device ({error.strerror}); free some space")
    return SettingsError(f"{path} cannot be written: {error.strerror or error}")


def hidden_beside(path: Path) -> list[Path]:
    """The hidden files and folders in which :func:`whole_file`, or an earlier version of it, writes `path`."""
    name = rf"{re.escape(f'.{path.name[:_SHOWN]}.')}([0-9a-f]{{8}}\.)?new"
    return [entry for entry in path.parent.iterdir() if re.fullmatch(name, entry.name)]


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()
