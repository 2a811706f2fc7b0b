"""Writes files that appear whole or not at all, and locks that end with their owner's process. Knows nothing of rows.

A file is written under a hidden name in the same folder, flushed to the device, and then renamed to its own name, which is one
atomic step. Two processes that write one name never write into one file: a store's files are written in turn, under a lock on the
hidden file; what a user named is written in a hidden folder of its own. A lock is an advisory one of the operating system on an
open file, so that `kill -9` frees it.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from .errors import HeadwaterError, SettingsError, StoreBusy, StoreDamaged, StoreError, StoreFull, StoreMissing
from .json_values import ParsedJson

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_SHOWN = (
    50  # most characters of a name that its hidden folder shows: a longer one would exceed what a file system allows
)
_NO_LINKS = (errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


def write_file(path: Path, parts: list[bytes | memoryview], size: int | None = None) -> None:
    """Write `parts` as one file that appears whole. With `size`, zeros fill the file before the last part, so that the file has
    `size` bytes.

    Raises:
        StoreFull: no room; the path is as it was before.
    """
    make_folder(path.parent)
    hidden = hidden_name(path)
    with _writing(path):
        with _locked_file(hidden) as file:
            for part in parts[:-1]:
                file.write(part)
            if size is not None:
                file.seek(size - len(parts[-1]))
            file.write(parts[-1])
            file.flush()
            os.fsync(file.fileno())
            hidden.replace(path)
        _sync(path.parent)


@contextmanager
def _locked_file(hidden: Path) -> Iterator[BinaryIO]:
    """The empty hidden file, opened to be written by this process alone; another one that wants to write it waits. If the block
    raises, the file is removed.
    """
    while True:
        with os.fdopen(os.open(hidden, os.O_RDWR | os.O_CREAT, 0o666), "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if not _is_at(file.fileno(), hidden):
                continue  # another process has finished with this file, or given it up
            try:
                file.truncate(0)
                yield file
            except BaseException:
                with suppress(OSError):
                    hidden.unlink()
                raise
            return


def _is_at(handle: int, path: Path) -> bool:
    """Whether an open file or folder still has a path."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


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
                _sync(file)
            hidden.replace(path)
        _sync(path.parent)
    except HeadwaterError:
        raise  # StoreDamaged is an OSError, too, but has nothing to do with writing this file
    except OSError as error:
        raise write_error(path, error) from None


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
            if not _is_at(handle, folder):
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


def write_error(path: Path, error: OSError) -> HeadwaterError:
    """The error to raise if the operating system refused to write a file that a user named."""
    if error.errno in _FULL:
        return StoreFull(f"{path} cannot be written: no room left on the device ({error.strerror}); free some space")
    return SettingsError(f"{path} cannot be written: {error.strerror or error}")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def hidden_beside(path: Path) -> list[Path]:
    """The hidden files and folders in which :func:`whole_file`, or an earlier version of it, writes `path`."""
    name = rf"{re.escape(f'.{path.name[:_SHOWN]}.')}([0-9a-f]{{8}}\.)?new"
    return [entry for entry in path.parent.iterdir() if re.fullmatch(name, entry.name)]


def hidden_name(path: Path) -> Path:
    """The hidden path at which a file of a store is written before it is renamed to `path`. A crash may leave it; the next write
    replaces it.
    """
    return path.with_name(f".{path.name}.new")


def make_folder(path: Path) -> None:
    """Make a folder and those above it, each flushed to the device, so that it survives a power failure."""
    if path.is_dir():
        return
    make_folder(path.parent)
    with _writing(path):
        path.mkdir(exist_ok=True)
        _sync(path.parent)


def refuse_links(root: Path, path: Path) -> None:
    """Refuse a path whose parts below `root` are symbolic links: writing there would change files outside the store.

    Raises:
        StoreDamaged: one of them is a link.
    """
    for place in (path, *path.parents):
        if place == root:
            return
        if place.is_symlink():
            raise StoreDamaged(
                f"{place} is a symbolic link: replace it by what it leads to before the store is written to"
            )


def link_tree(source: Path, target: Path) -> None:
    """Hard-link every file of a folder, except hidden ones, into another folder.

    Files are copied where the file system has no hard links, and what a symbolic link leads to is copied. When it
    returns, the names are flushed to the device.

    Raises:
        StoreFull: no room; names that were made before remain. StoreDamaged: a link to a folder.
    """
    places = sorted(source.rglob("[!.]*"))
    for place in places:
        if place.is_dir() and place.is_symlink():
            refuse_links(source, place)
    files = [place for place in places if place.is_file()]
    for file in files:
        name = target / file.relative_to(source)
        make_folder(name.parent)
        with _writing(name):
            try:
                if file.is_symlink():
                    raise OSError(errno.EMLINK, "a link to a file is copied")
                os.link(file, name)
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                write_file(name, [file.read_bytes()])
    for folder in sorted({(target / file.relative_to(source)).parent for file in files}):
        _sync(folder)


def remove_tree(path: Path) -> None:
    """Remove a folder with all that is in it, or a file; what a link points to stays."""
    with _writing(path):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn errors of the operating system into StoreError and StoreFull."""
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


def write_json(path: Path, value: Any, *, compact: bool = False) -> None:
    """Write JSON as a file that appears whole; `compact`: without spaces, on one line."""
    spaces: ParsedJson = {"separators": (",", ":")} if compact else {"indent": 1}
    write_file(path, [(json.dumps(value, allow_nan=False, **spaces) + "\n").encode()])


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


class OwnerLock:
    """An exclusive lock on a folder, until it is closed or its process dies. It is on the folder itself, and leaves no file."""

    def __init__(self, folder: Path, work: str) -> None:
        """Lock an existing folder; `work`: what its owner does, for the message.

        Raises:
            StoreBusy: it is locked already, by this process or another one.
        """
        with _writing(folder):
            self._handle = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.close()
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise StoreError(f"cannot lock {folder}: {error.strerror}") from error
            raise StoreBusy(f"another process {work}: wait for it, or stop it") from None

    def close(self) -> None:
        """Release the lock."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Wait for the lock on a folder, and hold it. It is on the folder itself: a Zarr group must hold no foreign file."""
    with _writing(folder):
        handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
