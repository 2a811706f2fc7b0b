"""Reads the lines of a UTF-8 file, plain or compressed, in bounded memory. Knows nothing of records.

A file that cannot be read to its end is a CorpusError that names the line reached.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import TypeAlias

from ...store.errors import CorpusError
from .decompression import BUFFER, open_decompressed

RECORD_LIMIT = 64 << 20  # bytes of the longest line or record; a longer one is a record error and never read whole
Lines: TypeAlias = Iterator[tuple[int, bytes | None]]  # (1-based number, bytes; None if beyond RECORD_LIMIT)
_WIDE_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)  # UTF-32-LE's begins with UTF-16-LE's
_WIDE_ZEROS = {
    (False, True, False, True), (True, False, True, False), (False, True, True, True), (True, True, True, False),
}  # fmt: skip  # which of the first four bytes are 0 where ASCII text is stored in 2 or 4 bytes a character


def require_utf8(path: str, start: bytes | bytearray) -> None:
    """Raise CorpusError if a file's first bytes are those of UTF-16 or UTF-32 text, with a byte order mark or without."""
    if start.startswith(_WIDE_MARKS) or tuple(byte == 0 for byte in start[:4]) in _WIDE_ZEROS:
        raise CorpusError(f"{path}: is UTF-16 or UTF-32 text; expected UTF-8: convert it with iconv -f UTF-16 -t UTF-8")


def lines_of(path: str) -> Lines:
    """Yield every line of the file, blank ones included, without the byte order mark."""
    number = 0
    with open_decompressed(path, lambda: number) as stream:
        while line := stream.readline(RECORD_LIMIT + 1):
            number += 1
            if number == 1:
                require_utf8(path, line)
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
