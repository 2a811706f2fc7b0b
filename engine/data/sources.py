"""Which files a corpus consists of: paths, folders and globs resolved; each file identified by its content.

Knows the files' formats by their names alone, and nothing of records, tokens or models.
"""

import os
import re
from collections import Counter
from collections.abc import Container, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path

from ...store.errors import CorpusError
from .decompression import COMPRESSIONS, split_suffix
from .formats import SUFFIXES, Record, read_records
from .record_source import Data, RecordSource
from .unread_files import ZARR, describe, escaped, format_of, unread_files

_DIGITS = 6  # of a digest in a name
DIGEST_SPAN = 64 << 10  # bytes at each end of a file that enter its digest; hashing 100 GB would take too long


@dataclass(frozen=True, slots=True)
class Source:
    """One corpus file."""

    path: str
    """Path to open."""
    name: str
    """Name in messages and ids: the base name, or the path relative to the folder that was given."""
    format: str
    """How it is read: jsonl, json, text, lines, csv, parquet, npz, zarr, bergson; records: from memory; store: from the rows of a
    store; absent: not at all, because the store was made from this file, but the present command does not name it.
    """
    size: int
    """Bytes on disk."""
    digest: str
    """Hex BLAKE2b of its size and its first and last `DIGEST_SPAN` bytes; or the digest of `content`."""
    content: RecordSource | None = None
    """The records, if they do not lie in a file; `path` is then their name."""


def find_sources(data: Sequence[Data], *, lines: bool = False) -> list[Source]:
    """The files that paths (files, folders, globs) stand for, each once, and records; with `lines`, every line of a text file is
    a record. Records come after the files.

    Records that are given twice are read once. Of a folder or glob, files are left out that no reader takes, that are empty, or
    that describe the data beside them: `left_out_notes` names them.

    Raises:
        CorpusError: a path does not exist, or has no corpus file, or a file is unreadable, or a file that is named itself is
            empty or of an unknown format.
    """
    named_files: dict[Path, tuple[str, Path]] = {}
    try:
        for path in (item for item in data if isinstance(item, str)):
            for name, file in _expand(path)[0]:
                named_files.setdefault(file.absolute(), (name, file))
        names = _unique_names(list(named_files), [name for name, _ in named_files.values()])
        sources = [_source(file, name, lines) for (_, file), name in zip(named_files.values(), names, strict=True)]
    except OSError as error:
        raise CorpusError(f"{error.filename}: cannot read: {error.strerror or error}") from error
    taken = {source.name for source in sources}
    for content in {item.digest: item for item in data if isinstance(item, RecordSource)}.values():
        sources.append(renamed(_source_of_records(content), taken))
        taken.add(sources[-1].name)
    if not sources:
        raise CorpusError("no corpus file given: name a file, a folder or a glob")
    return sources


def read_source(source: Source, start: int, columns: Container[str] | None) -> Iterator[Record]:
    """The records of a source from number `start` on; of a columnar file only `columns` are read (None: all).

    Raises:
        CorpusError: the file cannot be read to its end.
    """
    if source.content is None:
        yield from read_records(source.path, source.format, start, columns)
        return
    for ordinal, fields in enumerate(source.content.records(start), start):
        yield Record(ordinal + 1, ordinal, dict(fields))


def _source_of_records(content: RecordSource) -> Source:
    return Source(content.name, content.name, "records", content.size, content.digest, content)


def renamed(source: Source, taken: Container[str]) -> Source:
    """A source under a name that is not taken: a file's is lengthened by parent folders, that of records by their digest."""
    name, length = source.name, 1
    parts = (*source.digest,) if source.content else Path(source.path).absolute().parts
    while name in taken and length < len(parts):
        length += 1
        more = "".join(parts[: max(_DIGITS, length)]) if source.content else ""
        name = f"{source.content.name}-{more}" if source.content else "/".join(parts[-length:])
    return replace(source, name=name)


def left_out_notes(paths: Sequence[str]) -> list[str]:
    """One line for each folder or glob of which `find_sources` leaves out files: how many, which and why."""
    with suppress(OSError):  # such as a folder without permission, which `find_sources` reports
        return [escaped(f"{path}: {left_out}") for path in paths if (left_out := _expand(path)[1])]
    return []


def _expand(path: str) -> tuple[list[tuple[str, Path]], str]:
    """(name, file) for each file that one path stands for, and a sentence about those that are left out, "" if none is."""
    folder = Path(path)
    if path and folder.is_dir():
        listed = sorted((file.relative_to(folder).as_posix(), file) for file in _walk(folder))
    elif path and folder.exists():
        return [(folder.name, folder)], ""
    elif re.search(r"[*?[]", path):
        listed = [(file.name, file) for file in _matches(folder)]
    else:
        raise CorpusError(f"{path or repr(path)}: no such file or folder")
    left_out = unread_files(listed)
    files = [(name, file) for name, file in listed if name not in left_out]
    if not files:
        reason = f"; {describe(left_out)}" if left_out else ""
        raise CorpusError(f"{path}: no corpus file there (known: {_known_suffixes()}){reason}")
    return files, describe(left_out)


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
    format = format_of(file)
    if not format:
        raise CorpusError(f"{file}: unknown suffix {suffix + compression!r} (known: {_known_suffixes()})")
    if format == "parquet" and compression:
        raise CorpusError(f"{file}: Parquet inside {compression} cannot be read in part; decompress it first")
    format = "lines" if lines and format == "text" else format
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
