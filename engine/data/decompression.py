"""Opens a file or URL, decompressed by the suffix of its name, in bounded memory. Knows nothing of lines or records.

A file that cannot be read to its end is a CorpusError that names the line or row reached.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from ...store.errors import CorpusError
from .urls import is_url, name_in

BUFFER = 1 << 18  # bytes per read; larger buffers are not faster
COMPRESSIONS = (".gz", ".zst", ".xz", ".bz2")  # keys of _READERS
ZSTD_WINDOW = 1 << 31
"""Bytes of the longest window that zstd writes (`zstd --long=31`); the default limit of its reader is 128 MiB."""
_SHARD = re.compile(r"-\d{5,}-of-\d{5,}$")


def split_suffix(name: str) -> tuple[str, str]:
    """The format suffix and the compression suffix of a file name or URL, in lower case; each is "" if absent.

    The number of a shard is no part of a suffix: `x.jsonl-00000-of-00002` has the suffix `.jsonl`.
    """
    path = Path(_SHARD.sub("", (name_in(name) if is_url(name) else name).lower()))
    compression = path.suffix if path.suffix in COMPRESSIONS else ""
    return Path(_SHARD.sub("", path.stem)).suffix if compression else path.suffix, compression


def open_binary(path: str, *, places: bool = False) -> BinaryIO:
    """The bytes of a file or URL as they are; with `places` those of a URL can be read in any order.

    Raises:
        OSError: a file cannot be opened. CorpusError: a URL cannot.
    """
    if not is_url(path):
        return Path(path).open("rb", BUFFER)
    from .remote_bytes import open_url

    return cast(BinaryIO, io.BufferedReader(open_url(path, places=places), BUFFER))


@contextmanager
def open_decompressed(path: str, lines_read: Callable[[], int], *, places: bool = False) -> Iterator[BinaryIO]:
    """The file's bytes, decompressed by its suffix; an error becomes a CorpusError that names the line or row reached.

    `places`: as of :func:`open_binary`.
    """
    compression = split_suffix(path)[1]
    try:
        with open_binary(path, places=places) as raw:
            yield io.BufferedReader(_READERS[compression](raw), BUFFER) if compression else raw
    except CorpusError:  # it says where
        raise
    except (OSError, EOFError, ValueError, RuntimeError, zlib.error, lzma.LZMAError) as error:
        reason = (error.strerror if isinstance(error, OSError) else "") or " ".join(str(error).split()) or repr(error)
        where = f"{path}:{lines_read()}: cannot read beyond this" if lines_read() else f"{path}: cannot read"
        raise CorpusError(f"{where}: {reason}", hint=getattr(error, "hint", "")) from error


class _ZstdReader(io.RawIOBase):
    """The decompressed bytes of a zstd file, frame after frame. A file that is cut short is an EOFError.

    zstandard's own reader takes a file that is cut short for a whole one. So a frame of known content, the end mark, is
    appended to the file: it is decoded as the last bytes only if all frames before it are whole.
    """

    def __init__(self, raw: BinaryIO) -> None:
        import zstandard

        self._mark = os.urandom(32) * 4  # repeated, so that the frame does not hold the mark itself
        end_frame = zstandard.ZstdCompressor(write_checksum=True).compress(self._mark)
        self._stream = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW).stream_reader(
            cast(IO[bytes], _Appended(raw, end_frame)),  # only its `read` is called
            read_size=BUFFER,
            read_across_frames=True,
        )
        self._error = zstandard.ZstdError
        self._decoded = bytearray()  # ends with the mark once the stream has ended

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while len(self._decoded) <= len(self._mark):
            try:
                chunk = self._stream.read(BUFFER)
            except self._error as error:
                raise ValueError(f"not a whole zstd file: {error}") from None
            if not chunk:
                if self._decoded != self._mark:
                    raise EOFError("the zstd file is cut short")
                return 0
            self._decoded += chunk
        count = min(len(buffer), len(self._decoded) - len(self._mark))
        buffer[:count] = self._decoded[:count]
        del self._decoded[:count]
        return count


_READERS: dict[str, Callable[[BinaryIO], Any]] = {  # each an io.RawIOBase or io.BufferedIOBase
    ".gz": lambda raw: gzip.GzipFile(fileobj=raw),
    ".zst": _ZstdReader,
    ".xz": lzma.LZMAFile,
    ".bz2": bz2.BZ2File,
}


class _Appended:
    """A file followed by further bytes, which come in one piece with the file's last: where a piece ends within a frame's header,
    zstandard ends the stream without an error.
    """

    def __init__(self, raw: BinaryIO, appended: bytes) -> None:
        self._raw, self._appended = raw, appended
        self._ahead = raw.read(BUFFER // 2)

    def read(self, size: int) -> bytes:
        """The next bytes, fewer than BUFFER whatever the `size`; b"" at the end."""
        data, self._ahead = self._ahead, self._raw.read(BUFFER // 2)
        if not self._ahead:
            data, self._appended = data + self._appended, b""
        return data
