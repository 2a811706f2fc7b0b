"""Which files a corpus consists of: each named, and identified by its content; and their records.

Knows the files' formats by their names alone, and nothing of records, tokens or models.
"""

import os
from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from hashlib import blake2b
from pathlib import Path

from ...store.errors import CorpusError
from .decompression import split_suffix
from .file_listing import expand, known_suffixes
from .formats import Record, read_records
from .hub_datasets import hub_dataset, is_hub_dataset
from .record_source import Data, RecordSource
from .unread_files import ListedFile, escaped, format_of
from .urls import is_url, shown

_DIGITS = 6  # of a digest in a name
_REQUESTS = 16  # files at URLs that are looked at at the same time
DIGEST_SPAN = 64 << 10  # bytes at each end of a file that enter its digest; hashing 100 GB would take too long


@dataclass(frozen=True, slots=True)
class Source:
    """One corpus file."""

    path: str
    """Path, or URL without its secrets, for messages and records."""
    name: str
    """Name in messages and ids: the base name, or the path relative to the folder that the user names."""
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
    address: str = ""
    """What is opened, if that is not `path`: a URL with its secrets. It is neither printed nor recorded."""

    @property
    def opened(self) -> str:
        """The path or URL to open."""
        return self.address or self.path


def find_sources(data: Sequence[Data], *, lines: bool = False) -> list[Source]:
    """The files that paths (files, folders, globs) stand for, each once, and records; with `lines`, every line of a text file is
    a record. Records come after the files.

    Records that are named twice are read once. Of a folder or glob, files are left out that no reader takes, that are empty, or
    that describe the data beside them: `left_out_notes` names them.

    Raises:
        CorpusError: a path does not exist, or has no corpus file, or a file is unreadable, or a file that is named itself is
            empty or of an unknown format.
    """
    named_files: dict[str, ListedFile] = {}
    try:
        for path in (item for item in data if isinstance(item, str) and _is_file(item)):
            for file in expand(path)[0]:
                named_files.setdefault(file.path if is_url(file.path) else str(Path(file.path).absolute()), file)
        files = _with_unique_names(named_files)
        sources = _sources(files, lines)
    except OSError as error:
        raise CorpusError(f"{error.filename}: cannot read: {error.strerror or error}") from error
    taken = {source.name for source in sources}
    records = [hub_dataset(item) if isinstance(item, str) else item for item in data if not _is_file(item)]
    for content in {item.digest: item for item in records}.values():
        sources.append(renamed(_source_of_records(content), taken))
        taken.add(sources[-1].name)
    if not sources:
        raise CorpusError("no corpus file is named", hint="name a file, a folder, a glob or a URL")
    return sources


def read_source(source: Source, start: int, columns: Container[str] | None) -> Iterator[Record]:
    """The records of a source from number `start` on; of a columnar file only `columns` are read (None: all).

    Raises:
        CorpusError: the file cannot be read to its end.
    """
    if source.content is None:
        try:
            yield from read_records(source.opened, source.format, start, columns)
        except CorpusError as error:
            if not source.address:
                raise
            raise CorpusError(str(error).replace(source.address, source.path), hint=error.hint) from None
        return
    for ordinal, fields in enumerate(source.content.records(start), start):
        yield Record(ordinal + 1, ordinal, dict(fields))


def _is_file(data: Data) -> bool:
    """Whether data are files: no records, and no data set's name."""
    return isinstance(data, str) and not is_hub_dataset(data)


def _source_of_records(content: RecordSource) -> Source:
    return Source(content.name, content.name, "records", content.size, content.digest, content)


def renamed(source: Source, taken: Container[str]) -> Source:
    """A source under a name that is not taken: a file's is lengthened by parent folders, that of records by their digest."""
    name, length = source.name, 1
    parts = (*source.digest,) if source.content else parts_of(source.path)
    while name in taken and length < len(parts):
        length += 1
        more = "".join(parts[: max(_DIGITS, length)]) if source.content else ""
        name = f"{source.content.name}-{more}" if source.content else "/".join(parts[-length:])
    return replace(source, name=name)


def left_out_notes(paths: Sequence[str]) -> list[str]:
    """One line for each folder or glob of which `find_sources` leaves out files: how many, which and why."""
    with suppress(OSError):  # such as a folder without permission, which `find_sources` reports
        return [
            escaped(f"{shown(path)}: {left_out}") for path in paths if _is_file(path) and (left_out := expand(path)[1])
        ]
    return []


def parts_of(path: str) -> tuple[str, ...]:
    """The folders of a path or URL and its name."""
    return tuple(path.split("/")) if is_url(path) else Path(path).absolute().parts


def _with_unique_names(files: Mapping[str, ListedFile]) -> list[ListedFile]:
    """The files of these paths, the name of each lengthened by as many parent folders as make it unique."""
    names, depth = [file.name for file in files.values()], 1
    while len(occurrences := Counter(names)) < len(names):
        depth += 1
        names = [
            name if occurrences[name] == 1 else "/".join(parts_of(shown(path))[-depth:])
            for path, name in zip(files, names, strict=True)
        ]
    names = [os.fsencode(name).decode(errors="backslashreplace") for name in names]
    return [replace(file, name=name) for file, name in zip(files.values(), names, strict=True)]


def _sources(files: Sequence[ListedFile], lines: bool) -> list[Source]:
    """The files described, those at URLs at the same time: each takes some requests."""
    if not any(is_url(file.path) for file in files):
        return [_source(file, lines) for file in files]
    with ThreadPoolExecutor(_REQUESTS) as pool:
        return list(pool.map(partial(_source, lines=lines), files))


def _source(file: ListedFile, lines: bool) -> Source:
    """Describe one file: its format by its name, its size, its digest."""
    path = shown(file.path)
    suffix, compression = split_suffix(file.path)
    format = format_of(replace(file, name=Path(path).name))
    if not format:
        raise CorpusError(f"{path}: unknown suffix {suffix + compression!r} (known: {known_suffixes()})")
    if format == "parquet" and compression:
        raise CorpusError(f"{path}: Parquet inside {compression} cannot be read in part", hint="decompress it first")
    format = "lines" if lines and format == "text" else format
    size, first, last = _ends_of(file.path)
    if not size:
        raise CorpusError(f"{path}: is empty")
    digest = blake2b(size.to_bytes(8, "little") + first + last, digest_size=16).hexdigest()
    return Source(path, file.name, format, size, digest, address="" if path == file.path else file.path)


def _ends_of(path: str) -> tuple[int, bytes, bytes]:
    """Size, first and last bytes of a file, which identify it."""
    if is_url(path):
        from .remote_files import ends_of

        return ends_of(path, DIGEST_SPAN)
    if Path(path).exists() and not Path(path).is_file():
        raise CorpusError(f"{path}: not a regular file")
    with Path(path).open("rb") as raw:
        size = os.fstat(raw.fileno()).st_size
        first = raw.read(DIGEST_SPAN)
        raw.seek(max(0, size - DIGEST_SPAN))
        return size, first, raw.read(DIGEST_SPAN)
