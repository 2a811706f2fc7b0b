"""Writes files that appear whole or not at all, and locks that are freed when their owner dies. Knows nothing of rows.

Finished = renamed: bytes go to a hidden sibling, are flushed to the device, and take their name in one step. A lock is an
advisory one of the operating system on an open file, so that `kill -9` frees it.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias

from .errors import HeadwaterError, SettingsError, StoreBusy, StoreDamaged, StoreError, StoreFull, StoreMissing

JsonObject: TypeAlias = dict[str, Any]
"""A JSON object: names and JSON values, to be written or as it was read."""
JsonFacts: TypeAlias = Mapping[str, Any]
"""The same, read only."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FLOCK = "hhqqi4x"  # struct flock on 64-bit Linux: type, whence, start, len, pid


def write_file(path: Path, parts: list[bytes | memoryview], size: int | None = None) -> None:
    """Write `parts` as one file that appears whole. With `size`, the last part ends there and a hole of zeros is left
    before it.

    Raises:
        StoreFull: no room; the path is as it was before.
    """
    make_folder(path.parent)
    hidden = hidden_name(path)
    with _writing(path):
        try:
            with hidden.open("wb") as file:
                for part in parts[:-1]:
                    file.write(part)
                if size is not None:
                    file.seek(size - len(parts[-1]))
                file.write(parts[-1])
                file.flush()
                os.fsync(file.fileno())
            hidden.replace(path)
        except BaseException:
            with suppress(OSError):
                hidden.unlink()
            raise
        _sync(path.parent)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Where to write a file (or a folder) that a user named: a hidden sibling, which is flushed to the device and takes its name
    when the block ends, and is removed when the block raises. Folders above it are made.

    Raises:
        StoreFull: no room. SettingsError: it cannot be written there. The path is as it was before.
    """
    hidden = hidden_name(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove(hidden)
        yield hidden
        for file in [hidden] if hidden.is_file() else [file for file in hidden.rglob("*") if file.is_file()]:
            _sync(file)
        hidden.replace(path)
        _sync(path.parent)
    except HeadwaterError:
        raise  # a damaged chunk of a store is an OSError, and none of this file's
    except OSError as error:
        raise write_error(path, error) from None
    finally:
        _remove(hidden)


def write_error(path: Path, error: OSError) -> HeadwaterError:
    """What to raise where the operating system refused to write a file that a user named."""
    if error.errno in _FULL:
        return StoreFull(f"{path} cannot be written: no room left on the device ({error.strerror}); free some space")
    return SettingsError(f"{path} cannot be written: {error.strerror or error}")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def hidden_name(path: Path) -> Path:
    """Where a file's bytes lie before they take its name; a crash leaves it there, and the next write takes it over."""
    return path.with_name(f".{path.name}.new")


def make_folder(path: Path) -> None:
    """Make a folder and those above it; each outlives a power cut."""
    if path.is_dir():
        return
    make_folder(path.parent)
    with _writing(path):
        path.mkdir(exist_ok=True)
        _sync(path.parent)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn what the operating system refuses into our own errors."""
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        if error.errno in _FULL:
            raise StoreFull(f"no room left on the device while writing {path}; what was committed is whole: "
                            "free some space and run the same command again") from None  # fmt: skip
        raise StoreError(f"cannot write {path}: {error.strerror}") from error


def _sync(path: Path) -> None:
    """Flush a file, or a folder's list of names, to the device."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, value: Any) -> None:
    """Write JSON as a file that appears whole."""
    write_file(path, [(json.dumps(value, indent=1, allow_nan=False) + "\n").encode()])


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises:
        StoreMissing: it is not there.
        StoreDamaged: it is not a JSON object.
    """
    try:
        value = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise StoreMissing(f"{path.parent} is not a headwater store: it has no {path.name}") from None
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise StoreDamaged(f"{path} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise StoreDamaged(f"{path} is not a JSON object")
    return value


class RangeLock:
    """An exclusive lock on a range of a file's bytes, held until closed or until its process dies.

    Open-file-description locks where the system has them, so that two writers in one process exclude each other too.
    """

    def __init__(self, path: Path, start: int, length: int) -> None:
        """Lock `length` bytes (0: to infinity) of `path` from `start`.

        Raises:
            StoreBusy: another writer holds some of the range.
        """
        make_folder(path.parent)
        with _writing(path):
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                self._take(start, length)
            except OSError as error:
                self.close()
                if error.errno in (errno.EAGAIN, errno.EACCES):
                    raise StoreBusy(f"another writer owns these rows of {path.parent.parent}: "
                                    "wait for it, or stop it") from None  # fmt: skip
                raise

    def _take(self, start: int, length: int) -> None:
        if hasattr(fcntl, "F_OFD_SETLK"):
            fcntl.fcntl(
                self._file, fcntl.F_OFD_SETLK, struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, start, length, 0)
            )
        else:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, length, start)

    def close(self) -> None:
        """Give the range back."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder, waiting for it. The lock is on the folder itself: a Zarr group must hold no foreign file."""
    with _writing(folder):
        handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
