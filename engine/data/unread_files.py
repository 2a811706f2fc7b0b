"""Which files of a folder are no part of a corpus: those that no reader takes, empty parts, cards that describe the data.

Knows the files' names and their first bytes, and nothing of records.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...store.errors import CorpusError
from .decompression import open_decompressed, split_suffix
from .formats import SUFFIXES
from .urls import is_url

ZARR = "zarr.json"
MAX_NAMES = 5  # files named for each reason; the line says how many there are
_PART = re.compile(r"part-(\w-)?\d{3,}|.*-\d{5,}-of-\d{5,}")  # names that Spark and TensorFlow Datasets give to parts
_CARD_NAMES = ("readme", "license", "licence", "notice", "citation", "changelog")
_DATASET_METADATA = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")
_EMPTY_ARCHIVE = 4096  # bytes: a compressed file above this size is not empty, so it need not be opened
_START = 64


@dataclass(frozen=True, slots=True)
class ListedFile:
    """A file of a corpus before it is read."""

    name: str
    """Its base name, or its path relative to the folder that the user names."""
    path: str
    """Path or URL to open."""
    size: int | None = None
    """Bytes of a file at a URL, as its folder lists it; None: the file is looked at."""

    @property
    def base_name(self) -> str:
        """The last part of its name."""
        return self.name.rpartition("/")[2]

    def is_regular(self) -> bool:
        """Whether it is a file, no pipe and no broken link."""
        return is_url(self.path) or Path(self.path).is_file()

    def byte_count(self) -> int | None:
        """Its size; None if only opening it tells."""
        return self.size if is_url(self.path) else Path(self.path).stat().st_size


def format_of(file: ListedFile) -> str:
    """The format of a file by its suffix, or of a part without suffix (part-00000) by its first bytes; "" if there is no reader.

    Raises:
        CorpusError: a part without suffix cannot be read.
    """
    suffix, compression = split_suffix(file.base_name)
    stem = file.base_name[: -len(compression)] if compression else file.base_name
    if suffix or not _PART.fullmatch(stem.lower()) or not file.is_regular():
        return SUFFIXES.get(suffix, "")
    start = _first_bytes(file).removeprefix(b"\xef\xbb\xbf").lstrip()
    return "parquet" if start.startswith(b"PAR1") else "jsonl" if start.startswith(b"{") else "text"


def unread_files(files: Sequence[ListedFile]) -> dict[str, str]:
    """Name → reason of each of these files that is no part of the corpus."""
    formats = {file.name: format_of(file) for file in files}
    reasons = {}
    for file in files:
        name = file.name
        if file.base_name == ZARR:
            reasons[name] = "in a Zarr group"
        elif not formats[name]:
            reasons[name] = "of unknown suffix"
        elif _is_empty(file):
            reasons[name] = "empty"
    data = {name for name, format in formats.items() if format and name not in reasons}
    has_tables = any(formats[name] != "text" and name.rpartition("/")[2] not in _DATASET_METADATA for name in data)
    for file in files:
        name = file.name
        if name in data and len(data) > 1 and (_has_front_matter(file) or (has_tables and _is_card(file))):
            reasons[name] = "about the data"
    return reasons


def describe(reasons: Mapping[str, str]) -> str:
    """The files that are left out, in one clause with their number, names and reasons; "" if there are none."""
    if not reasons:
        return ""
    clauses = []
    for reason in dict.fromkeys(reasons.values()):
        names = [name for name, of_file in reasons.items() if of_file == reason]
        named = ", ".join(names[:MAX_NAMES]) + ", …" * (len(names) > MAX_NAMES)
        clauses.append(f"{len(names)} {reason} ({named})")
    files = "1 file is" if len(reasons) == 1 else f"{len(reasons)} files are"
    return f"{files} not read: {', '.join(clauses)}; a file that is named itself is read"


def escaped(text: str) -> str:
    """The text with every unprintable character escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _is_card(file: ListedFile) -> bool:
    """Whether a file beside tables is a text about them by its name: any .md, or a README or licence of whatever suffix."""
    name = file.base_name.lower()
    about = name.split(".")[0].startswith(_CARD_NAMES) and SUFFIXES.get(split_suffix(name)[0]) == "text"
    return about or split_suffix(name)[0] == ".md" or name in _DATASET_METADATA


def _has_front_matter(file: ListedFile) -> bool:
    """Whether a file is a dataset card: a README.md that opens with YAML between lines of `---`."""
    return file.base_name.lower() == "readme.md" and _first_bytes(file).lstrip().startswith(b"---")


def _is_empty(file: ListedFile) -> bool:
    if not file.is_regular():
        return False  # such as a pipe or a broken link: opening it says what it is
    size = file.byte_count()
    if not size or not split_suffix(file.base_name)[1]:
        return size == 0
    try:
        return size <= _EMPTY_ARCHIVE and not _first_bytes(file)
    except CorpusError:
        return False  # damaged: reading it says where


def _first_bytes(file: ListedFile) -> bytes:
    with open_decompressed(file.path, lambda: 0) as stream:
        return stream.read(_START)
