"""Writes files of a store that appear whole or not at all. Knows nothing of rows.

A file is written under a hidden name in the same folder, flushed to the device, and then renamed to its own name, which is one
atomic step. Two processes that write one name write in turn, under a lock on the hidden file. A lock is an advisory one of the
operating system on an open file, so that `kill -9` frees it.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from .errors import StoreDamaged, StoreError, StoreFull, StoreMissing
from .json_values import ParsedJson

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors of the operating system that mean that there is no room."""
_NO_LINKS = (errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


def write_file(path: Path, parts: list[bytes | memoryview], size: int | None = None) -> None:
    """Write `parts` as one file that appears whole. With `size`, zeros fill the file before the last part, so that the file has
    `size` bytes.

    Raises:
        StoreFull: no room; the path is as it was before.
    """
    make_folder(path.parent)
    hidden = hidden_name(path)
    with writing(path):
        with _locked_file(hidden) as file:
            for part in parts[:-1]:
                file.write(part)
            if size is not None:
                file.seek(size - len(parts[-1]))
            file.write(parts[-1])
            file.flush()
            os.fsync(file.fileno())
            hidden.replace(path)
        sync(path.parent)


@contextmanager
def _locked_file(hidden: Path) -> Iterator[BinaryIO]:
    """The empty hidden file, opened to be written by this process alone; another one that wants to write it waits. If the block
    raises, the file is removed.
    """
    while True:
        with os.fdopen(os.open(hidden, os.O_RDWR | os.O_CREAT, 0o666), "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if not is_at(file.fileno(), hidden):
                continue  # another process has finished with this file, or given it up
            try:
                file.truncate(0)
                yield file
            except BaseException:
                with suppress(OSError):
                    hidden.unlink()
                raise
            return


def is_at(handle: int, path: Path) -> bool:
    """Whether an open file or folder still has a path."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


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
    with writing(path):
        path.mkdir(exist_ok=True)
        sync(path.parent)


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
                f"{place} is a symbolic link", hint="replace it by what it leads to before the store is written to"
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
        with writing(name):
            try:
                if file.is_symlink():
                    raise OSError(errno.EMLINK, "a link to a file is copied")
                os.link(file, name)
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                write_file(name, [file.read_bytes()])
    for folder in sorted({(target / file.relative_to(source)).parent for file in files}):
        sync(folder)


def remove_tree(path: Path) -> None:
    """Remove a folder with all that is in it, or a file; what a link points to stays."""
    with writing(path):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn errors of the operating system into StoreError and StoreFull."""
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        if error.errno in FULL:
            raise StoreFull(
                f"no room left on the device while writing {path}; what was committed is whole",
                hint="free some space and run the same command again",
            ) from None
        raise StoreError(f"cannot write {path}: {error.strerror}") from error


def sync(path: Path) -> None:
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
        hint = f"headwater ingest CORPUS --store {path.parent} --model MODEL makes one"
        raise StoreMissing(f"{path.parent} is not a headwater store: it has no {path.name}", hint=hint) from None
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise StoreDamaged(f"{path} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise StoreDamaged(f"{path} is not a JSON object")
    return value
