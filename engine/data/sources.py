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
from .formats import SUFFIXES
from .line_reader import COMPRESSIONS, split_suffix

DIGEST_SPAN = 64 << 10  # bytes at each end of a file that enter its digest; hashing 100 GB would take too long
_ZARR = "zarr.json"


@dataclass(frozen=True, slots=True)
class Source:
    """One corpus file."""

    path: str
    """Path to open."""
    name: str
    """Name in messages and ids: the base name, or the path relative to the folder that was given."""
    format: str
    """How it is read: jsonl, json, text, lines, csv, parquet, npz, zarr, bergson; store: from the rows of a store; absent: not at
    all, because the store was made from this file, but the present command does not name it.
    """
    size: int
    """Bytes on disk."""
    digest: str
    """Hex BLAKE2b of its size and its first and last `DIGEST_SPAN` bytes."""


def find_sources(paths: Sequence[str], *, lines: bool = False) -> list[Source]:
    """The files that `paths` (files, folders, globs) stand for, each once; with `lines`, every line of a text file is a record.

    Raises:
        CorpusError: a path does not exist, or has no corpus file, or a file is empty, unreadable or of an unknown format.
    """
    named_files: dict[Path, tuple[str, Path]] = {}
    try:
        for path in [paths] if isinstance(paths, str) else paths:
            for name, file in _expand(path):
                named_files.setdefault(file.absolute(), (name, file))
        names = _unique_names(list(named_files), [name for name, _ in named_files.values()])
        sources = [_source(file, name, lines) for (_, file), name in zip(named_files.values(), names, strict=True)]
    except OSError as error:
        raise CorpusError(f"{error.filename}: cannot read: {error.strerror or error}") from error
    if not sources:
        raise CorpusError("no corpus file given: name a file, a folder or a glob")
    return sources


def _expand(path: str) -> list[tuple[str, Path]]:
    """(name, file) for each file that one path stands for."""
    folder = Path(path)
    if path and folder.is_dir():
        files = sorted((file.relative_to(folder).as_posix(), file) for file in _walk(folder))
    elif path and folder.exists():
        return [(folder.name, folder)]
    elif re.search(r"[*?[]", path):
        files = [(file.name, file) for file in _matches(folder)]
    else:
        raise CorpusError(f"{path or repr(path)}: no such file or folder")
    if not files:
        raise CorpusError(f"{path}: no corpus file there (known: {_known_suffixes()})")
    return files


def _matches(pattern: Path) -> list[Path]:
    """Corpus files that a glob matches; hidden folders only where the pattern names them; `**` does not follow links."""
    try:
        files = sorted(Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor))))
    except ValueError as error:
        raise CorpusError(f"{pattern}: {error}") from None
    visible = [f for f in files if not any(part.startswith(".") for part in {*f.parts} - {*pattern.parts, ".."})]
    return [f for f in visible if _is_corpus(f.name) and not f.is_dir() and not (f.parent / _ZARR).exists()]


def _walk(folder: Path) -> Iterator[Path]:
    """Corpus files below a folder; linked folders are followed, each real folder once, so that cycles end."""
    seen: set[str] = set()
    errors: list[OSError] = []
    for here, folders, files in os.walk(folder, onerror=errors.append, followlinks=True):
        unseen = (real_path := os.path.realpath(here)) not in seen
        seen.add(real_path)
        zarr = _ZARR in files  # a Zarr group, such as a store in the corpus's folder, is not searched
        folders[:] = sorted(name for name in folders if unseen and not zarr and not name.startswith("."))
        yield from (Path(here, name) for name in files if unseen and not zarr and _is_corpus(name))
    if errors:
        raise errors[0]


def _is_corpus(name: str) -> bool:
    return not name.startswith(".") and split_suffix(name)[0] in SUFFIXES


def _known_suffixes() -> str:
    return f"{' '.join(SUFFIXES)}, each also with {' or '.join(COMPRESSIONS)}"


def _unique_names(files: list[Path], names: list[str]) -> list[str]:
    """The files' names, each lengthened by as many parent folders as make it unique."""
    depth = 1
    while len(occurrences := Counter(names)) < len(names):
        depth += 1
        names = [n if occurrences[n] == 1 else "/".join(f.parts[-depth:]) for f, n in zip(files, names, strict=True)]
    return [os.fsencode(name).decode(errors="backslashreplace") for name in names]


def _source(file: Path, name: str, lines: bool) -> Source:
    """Describe one file: its format by its name, its size, its digest."""
    suffix, compression = split_suffix(file.name)
    if suffix not in SUFFIXES:
        raise CorpusError(f"{file}: unknown suffix {suffix + compression!r} (known: {_known_suffixes()})")
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
