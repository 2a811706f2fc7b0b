"""Reads the lines of a file, plain, gzipped or zstd, in bounded memory. Knows nothing of records.

A file that cannot be read to its end is a CorpusError that names the line reached.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeAlias

from ...store.errors import CorpusError

RECORD_LIMIT = 64 << 20  # bytes of the longest line or record; a longer one is a record error and never read whole
BUFFER = 1 << 18  # bytes per read; larger buffers are not faster
COMPRESSIONS = (".gz", ".zst")
Lines: TypeAlias = Iterator[tuple[int, bytes | None]]  # (1-based number, bytes; None if beyond RECORD_LIMIT)


def split_suffix(name: str) -> tuple[str, str]:
    """The format suffix and the compression suffix of a file name, in lower case; each is "" if absent."""
    path = Path(name.lower())
    compression = path.suffix if path.suffix in COMPRESSIONS else ""
    return Path(path.stem).suffix if compression else path.suffix, compression


@contextmanager
def open_decompressed(path: str, lines_read: Callable[[], int]) -> Iterator[BinaryIO]:
    """The file's bytes, decompressed by its suffix; an error becomes a CorpusError that names the line or row reached."""
    compression = split_suffix(path)[1]
    try:
        with Path(path).open("rb", BUFFER) as raw:
            if compression == ".gz":
                yield io.BufferedReader(gzip.GzipFile(fileobj=raw), BUFFER)
            elif compression == ".zst":
                import pyarrow as pa  # zstandard's stream_reader takes a truncated file for a complete one

                yield io.BufferedReader(pa.CompressedInputStream(raw, "zstd"), BUFFER)
            else:
                yield raw
    except (
        OSError,
        EOFError,
        ValueError,
        RuntimeError,
        zlib.error,
    ) as error:  # RuntimeError: a codec that pyarrow lacks
        reason = (error.strerror if isinstance(error, OSError) else "") or " ".join(str(error).split()) or repr(error)
        where = f"{path}:{lines_read()}: cannot read beyond this" if lines_read() else f"{path}: cannot read"
        raise CorpusError(f"{where}: {reason}") from error


def lines_of(path: str) -> Lines:
    """Yield every line of the file, blank ones included, without the byte order mark."""
    number = 0
    with open_decompressed(path, lambda: number) as stream:
        while line := stream.readline(RECORD_LIMIT + 1):
            number += 1
            long = len(line) > RECORD_LIMIT and not line.endswith(b"\n")
            while long and (rest := stream.readline(BUFFER)) and not rest.endswith(b"\n"):
                pass
            yield number, None if long else line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line


def is_blank(line: bytes | None) -> bool:
    """Whether a line holds only white space, Unicode white space included."""
    head = b"!" if line is None else line.lstrip()[:1]
    return not head or (line is not None and not b"!" <= head <= b"~" and not line.decode(errors="replace").strip())


def nonblank_lines(path: str) -> Lines:
    """The lines that hold more than white space."""
    return ((number, line) for number, line in lines_of(path) if not is_blank(line))
