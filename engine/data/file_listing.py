"""The files that a path, folder, glob or URL stands for. Knows their names, and no record.

Hidden files are not looked at, and of each Zarr group, such as a store, only its `zarr.json`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from ...store.errors import CorpusError
from .decompression import COMPRESSIONS
from .formats import SUFFIXES
from .unread_files import ZARR, ListedFile, describe, unread_files
from .urls import is_url, name_in, shown


def expand(path: str) -> tuple[list[ListedFile], str]:
    """The files that one path or URL stands for, and a sentence about those that are left out, "" if none is.

    Raises:
        CorpusError: there is none. OSError: a local folder cannot be read.
    """
    listed = _listed_url(path) if is_url(path) else _listed(path)
    if isinstance(listed, ListedFile):
        return [listed], ""
    left_out = unread_files(listed)
    files = [file for file in listed if file.name not in left_out]
    if not files:
        reason = f"; {describe(left_out)}" if left_out else ""
        raise CorpusError(f"{shown(path)}: no corpus file there (known: {known_suffixes()}){reason}")
    return files, describe(left_out)


def _listed(path: str) -> ListedFile | list[ListedFile]:
    """A local file, or the files of a folder or glob."""
    folder = Path(path)
    if path and folder.is_dir():
        below = sorted((file.relative_to(folder).as_posix(), str(file)) for file in _walk(folder))
        return [ListedFile(name, file) for name, file in below]
    if path and folder.exists():
        return ListedFile(folder.name, str(folder))
    if re.search(r"[*?[]", path):
        return [ListedFile(file.name, str(file)) for file in _matches(folder)]
    raise CorpusError(f"{path or repr(path)}: no such file or folder")


def _listed_url(url: str) -> ListedFile | list[ListedFile]:
    """The file at a URL, or the files of a folder or glob: without hidden ones, and of each Zarr group its `zarr.json` alone."""
    from .remote_files import list_url

    listed = list_url(url)
    if listed is None:
        return ListedFile(name_in(url), url)
    files = [ListedFile(*entry) for entry in listed]
    groups = [file.path.removesuffix(ZARR) for file in files if file.base_name == ZARR]
    return [
        file
        for file in files
        if not any(part.startswith(".") for part in file.name.split("/"))
        and not any(file.path.startswith(group) and file.path != group + ZARR for group in groups)
    ]


def known_suffixes() -> str:
    """The suffixes of corpus files, for messages."""
    return f"{' '.join(SUFFIXES)}, each also with {' or '.join(COMPRESSIONS)}"


def _matches(pattern: Path) -> list[Path]:
    """Files that a glob matches; hidden ones only where the pattern names them; `**` does not follow links."""
    try:
        files = sorted(Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor))))
    except ValueError as error:
        raise CorpusError(f"{pattern}: {error}") from None
    visible = [f for f in files if not any(part.startswith(".") for part in {*f.parts} - {*pattern.parts, ".."})]
    return [f for f in visible if not f.is_dir() and not (f.parent / ZARR).exists()]


def _walk(folder: Path) -> Iterator[Path]:
    """Files below a folder, hidden ones excluded, and the `zarr.json` of each Zarr group, such as a store, which is not searched;
    linked folders are followed, each real folder once, so that cycles end.
    """
    seen: set[str] = set()
    errors: list[OSError] = []
    for here, folders, files in os.walk(folder, onerror=errors.append, followlinks=True):
        unseen = (real_path := os.path.realpath(here)) not in seen
        seen.add(real_path)
        zarr = ZARR in files
        folders[:] = sorted(name for name in folders if unseen and not zarr and not name.startswith("."))
        visible = [ZARR] if zarr else [name for name in files if not name.startswith(".")]
        yield from (Path(here, name) for name in visible if unseen)
    if errors:
        raise errors[0]
