"""Opens files at URLs through fsspec. Knows no format and no record.

A file is read by ranges where the server has them: in long blocks from beginning to end, or in short ones of which the last used
stay in memory, for formats that are read in places. A web server without ranges is read as one stream. A request that fails is
repeated, at most three times in all. Errors name the URL without its secrets.
"""

from __future__ import annotations

import io
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar, cast

from ...store.errors import CorpusError
from .remote_errors import BrokenOff, is_transient, lacks_ranges, reason_of
from .urls import is_web, shown

STREAM_BLOCK = 4 << 20
"""Bytes of a request for a file that is read from beginning to end."""
PLACES_BLOCK, PLACES_BLOCKS = 1 << 20, 32
"""Bytes of a request for a file that is read in places, and how many of these blocks stay in memory."""
MOST_BYTES = PLACES_BLOCK * PLACES_BLOCKS + STREAM_BLOCK
"""Upper bound of the memory of a file at a URL while it is read."""
WAITS = (0.5, 2.0)
"""Seconds before the second and the third try."""
SECONDS = 60
"""Seconds that a web server may take for a connection, and between two pieces of an answer."""
T = TypeVar("T")


@contextmanager
def naming(url: str) -> Iterator[None]:
    """Turn any error of a file system into a CorpusError that names the URL.

    Raises:
        CorpusError: as said.
    """
    try:
        yield
    except CorpusError:
        raise
    except Exception as error:  # each file system raises errors of its own
        reason, hint = reason_of(error, url)
        raise CorpusError(f"{shown(url)}: {reason}", hint=hint) from None


def repeated(action: Callable[[], T]) -> T:
    """The result of an action, after up to three tries."""
    for wait in WAITS:
        try:
            return action()
        except Exception as error:
            if not is_transient(error):
                raise
            time.sleep(wait)
    return action()


def file_system(url: str) -> tuple[Any, str]:
    """The file system of fsspec for a URL, and the path in it."""
    from fsspec.core import url_to_fs

    system, path = url_to_fs(url, **(_web_options() if is_web(url) else {}))
    return system, path


def _web_options() -> dict[str, Any]:
    """Options of requests to web servers: bytes as they lie in the file, not compressed for the transfer; and no limit on the
    time of a whole file, only on that of a connection and of a silence.
    """
    try:
        from aiohttp import ClientTimeout
    except ImportError:
        return {}  # fsspec says what is missing
    timeout = ClientTimeout(total=None, sock_connect=SECONDS, sock_read=SECONDS)
    return {"headers": {"Accept-Encoding": "identity"}, "client_kwargs": {"timeout": timeout, "auto_decompress": False}}


def open_url(url: str, *, places: bool = False) -> io.RawIOBase:
    """The bytes of a file at a URL; with `places` it can be read in any order.

    Raises:
        CorpusError: it cannot be opened; or, with `places`, the server has no ranges.
    """
    with naming(url):
        opened = repeated(lambda: _open(url, PLACES_BLOCK if places else STREAM_BLOCK))
    if _size(opened) is None and not places:
        return Stream(url, opened)
    if _size(opened) is None:
        raise _no_ranges(url)
    return Blocks(url, opened, places)


def _open(url: str, block: int) -> Any:
    """fsspec's file without its own cache."""
    system, path = file_system(url)
    return system.open(path, "rb", block_size=block, cache_type="none")


def _size(opened: Any) -> int | None:
    """Bytes of a file that can be read by ranges; None for a stream."""
    size = getattr(opened, "size", None)
    return size if isinstance(size, int) and type(opened).__name__ != "HTTPStreamFile" else None


def _no_ranges(url: str) -> CorpusError:
    text = f"{shown(url)}: this format is read in places, but the server sends no ranges"
    return CorpusError(text, hint="download the file first")


class Blocks(io.RawIOBase):
    """A file that is read by ranges, in blocks."""

    def __init__(self, url: str, opened: Any, places: bool) -> None:
        self._url, self._opened, self._places = url, opened, places
        self.size = cast(int, _size(opened))
        self._block, self._most = (PLACES_BLOCK, PLACES_BLOCKS) if places else (STREAM_BLOCK, 1)
        self._blocks: OrderedDict[int, bytes] = OrderedDict()  # block number → bytes, the last used at the end
        self._at = 0
        self._stream: Stream | None = None  # in place of ranges, if the server has none

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._places

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if self._stream:
            return self._stream.readinto(buffer)
        if self._at >= self.size:
            return 0
        number, offset = divmod(self._at, self._block)
        if number not in self._blocks and not self._fetch(number):
            return self.readinto(buffer)  # from the stream
        self._blocks.move_to_end(number)
        data = memoryview(self._blocks[number])[offset : offset + len(buffer)]
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def _fetch(self, number: int) -> bool:
        """Read a block; False if the server has no ranges, so that a stream takes over.

        Raises:
            OSError: three tries failed, or the file ended early.
        """
        start = number * self._block
        count = min(self._block, self.size - start)
        while len(self._blocks) >= self._most:
            self._blocks.popitem(last=False)
        try:
            self._blocks[number] = repeated(lambda: self.bytes_at(start, count))
        except Exception as error:
            if lacks_ranges(error) and self._places:
                raise _no_ranges(self._url) from None
            if lacks_ranges(error):
                self._stream = Stream(self._url, streamed(self._url), skip=start)
                return False
            raise _broken_off(self._url, start, self.size, error) from None
        return True

    def bytes_at(self, start: int, count: int) -> bytes:
        """Bytes of the file, by one request."""
        self._opened.seek(start)
        data = bytes(self._opened.read(count))
        if len(data) != count:
            raise EOFError(f"{len(data):,} bytes came in place of {count:,}")
        return data

    def close(self) -> None:
        if not self.closed:
            with suppress(Exception):  # it was only read
                self._opened.close()
            if self._stream:
                self._stream.close()
        super().close()


class Stream(io.RawIOBase):
    """A file of a server without ranges, read from beginning to end; after an error it is read again from its beginning."""

    def __init__(self, url: str, opened: Any, skip: int = 0) -> None:
        self._url, self._opened, self._at, self._again = url, opened, 0, False
        self._size = _length(opened)
        while self._at < skip and (data := self._next(min(STREAM_BLOCK, skip - self._at))):
            self._at += len(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._next(len(buffer))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def _next(self, count: int) -> bytes:
        """The next bytes, at most `count`; b"" at the end.

        Raises:
            OSError: three tries failed, or the file ended early.
        """
        try:
            return repeated(lambda: self._try(count))
        except Exception as error:
            raise _broken_off(self._url, self._at, self._size, error) from None

    def _try(self, count: int) -> bytes:
        if self._again:
            self._opened.close()
            self._opened = streamed(self._url)
            skipped = 0
            while skipped < self._at:
                if not (data := self._opened.read(min(STREAM_BLOCK, self._at - skipped))):
                    raise EOFError(f"only {skipped:,} bytes came")
                skipped += len(data)
        self._again = True  # unless this read succeeds
        data = bytes(self._opened.read(count))
        if not data and count and self._size is not None and self._at < self._size:
            raise EOFError(f"only {self._at:,} bytes came")
        self._again = False
        return data

    def close(self) -> None:
        if not self.closed:
            with suppress(Exception):  # it was only read
                self._opened.close()
        super().close()


def streamed(url: str) -> Any:
    """The file at a URL, opened to be read once from beginning to end."""
    system, path = file_system(url)
    return system.open(path, "rb", block_size=0)


def _length(opened: Any) -> int | None:
    """Bytes of a stream, if its server says so."""
    headers = getattr(getattr(opened, "r", None), "headers", {})
    length = headers.get("Content-Length", "") if not headers.get("Content-Encoding") else ""
    return int(length) if length.isdecimal() else None


def _broken_off(url: str, at: int, size: int | None, error: BaseException) -> BrokenOff:
    whole = f" of {size:,}" if size is not None else ""
    reason, hint = reason_of(error, url)
    return BrokenOff(
        f"broke off at byte {at:,}{whole}: {reason}", hint or "run the same command again, which continues here"
    )
