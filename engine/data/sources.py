"""Which files a corpus consists of: paths, folders and globs resolved; each file identified by its content.

Knows the files' formats by their names alone, and nothing of records, tokens or models.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from ...store.errors import CorpusError
from .formats import COMPRESSIONS, SUFFIXES, split_suffix

DIGEST_SPAN = 64 << 10  # bytes at either end of a file that enter its digest: what identity may cost on 100 GB
_ZARR = "zarr.json"


@dataclass(frozen=True, slots=True)
class Source:
    """One corpus file."""

    path: str
    """Where to open it."""
    name: str
    """How it is shown and cited: its base name, or its path below the folder that was given."""
    format: str
    """"jsonl", "json", "text", "lines", "csv" or "parquet"."""
    size: int
    """Bytes on disk."""
    digest: str
    """Hex BLAKE2b of its size and both its ends."""


def find_sources(paths: Sequence[str], *, lines: bool = False) -> list[Source]:
    """The files that `paths` (files, folders, globs) stand for, each once; with `lines`, text files go by line."""
    found: dict[Path, tuple[str, Path]] = {}
    try:
        for path in [paths] if isinstance(paths, str) else paths:
            for name, file in _expand(path):
                found.setdefault(file.absolute(), (name, file))
        names = _told_apart(list(found), [name for name, _ in found.values()])
        sources = [_source(file, name, lines) for (_, file), name in zip(found.values(), names, strict=True)]
    except OSError as error:
        raise CorpusError(f"{error.filename}: cannot read: {error.strerror or error}") from error
    if not sources:
        raise CorpusError("no corpus file given")
    return sources


def _expand(path: str) -> list[tuple[str, Path]]:
    """(name, file) for each file that one given path stands for."""
    here = Path(path)
    if path and here.is_dir():
        found = sorted((file.relative_to(here).as_posix(), file) for file in _walk(here))
    elif path and here.exists():
        return [(here.name, here)]
    elif re.search(r"[*?[]", path):
        found = [(file.name, file) for file in _matches(here)]
    else:
        raise CorpusError(f"{path or repr(path)}: no such file or folder")
    if not found:
        raise CorpusError(f"{path}: no corpus file there (known: {_known()})")
    return found


def _matches(pattern: Path) -> list[Path]:
    """Corpus files that a glob matches, none in a hidden folder that it does not name; `**` follows no links."""
    try:
        files = sorted(Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor))))
    except ValueError as error:
        raise CorpusError(f"{pattern}: {error}") from None
    shown = [f for f in files if not any(part.startswith(".") for part in {*f.parts} - {*pattern.parts, ".."})]
    return [f for f in shown if _is_corpus(f.name) and not f.is_dir() and not (f.parent / _ZARR).exists()]


def _walk(folder: Path) -> Iterator[Path]:
    """Corpus files below a folder; linked folders are followed, none twice, hence none for ever."""
    seen: set[str] = set()
    errors: list[OSError] = []
    for here, folders, files in os.walk(folder, onerror=errors.append, followlinks=True):
        new = (real := os.path.realpath(here)) not in seen
        seen.add(real)
        zarr = _ZARR in files  # a store, say, that was made beside its corpus
        folders[:] = sorted(name for name in folders if new and not zarr and not name.startswith("."))
        yield from (Path(here, name) for name in files if new and not zarr and _is_corpus(name))
    if errors:
        raise errors[0]


def _is_corpus(name: str) -> bool:
    return not name.startswith(".") and split_suffix(name)[0] in SUFFIXES


def _known() -> str:
    return f"{' '.join(SUFFIXES)}, each also with {' or '.join(COMPRESSIONS)}"


def _told_apart(files: list[Path], names: list[str]) -> list[str]:
    """The files' names, lengthened by as many parent folders as tell them apart."""
    depth = 1
    while len(times := Counter(names)) < len(names):
        depth += 1
        names = [n if times[n] == 1 else "/".join(f.parts[-depth:]) for f, n in zip(files, names, strict=True)]
    return [os.fsencode(name).decode(errors="backslashreplace") for name in names]


def _source(file: Path, name: str, lines: bool) -> Source:
    """Look at one file: its format by its name, its size, its digest."""
    suffix, compression = split_suffix(file.name)
    if suffix not in SUFFIXES:
        raise CorpusError(f"{file}: unknown suffix {suffix + compression!r} (known: {_known()})")
    if suffix == ".parquet" and compression:
        raise CorpusError(f"{file}: Parquet inside {compression} cannot be read in part; decompress it first")
    format = "lines" if lines and SUFFIXES[suffix] == "text" else SUFFIXES[suffix]
    if file.exists() and not file.is_file():
        raise CorpusError(f"{file}: not a regular file")
    with file.open("rb") as raw:
        size = os.fstat(raw.fileno()).st_size
        digest = blake2b(size.to_bytes(8, "little") + raw.read(DIGEST_SPAN), digest_size=16)
        raw.seek(max(0, size - DIGEST_SPAN))
        digest.update(raw.read(DIGEST_SPAN))
    if not size:
        raise CorpusError(f"{file}: is empty")
    return Source(str(file), name, format, size, digest.hexdigest())
