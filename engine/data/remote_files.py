"""Files at URLs: which there are in a folder or of a glob, and the bytes by which one is identified. Knows no format."""

from __future__ import annotations

from typing import Any

from .remote_bytes import STREAM_BLOCK, Blocks, Stream, file_system, naming, open_url, repeated, streamed
from .remote_errors import lacks_ranges
from .urls import is_web, name_in


def ends_of(url: str, span: int) -> tuple[int, bytes, bytes]:
    """(size, first bytes, last bytes) of a file, at most `span` bytes each, by which it is identified. From a server without
    ranges the whole file is read for this.

    Raises:
        CorpusError: it cannot be read.
    """
    with naming(url):
        file = open_url(url)
        try:
            if isinstance(file, Blocks) and (ends := _ranges(file, span)):
                return ends
            return _stream_ends(file if isinstance(file, Stream) else Stream(url, streamed(url)), span)
        finally:
            file.close()


def _ranges(file: Blocks, span: int) -> tuple[int, bytes, bytes] | None:
    size, start = file.size, max(0, file.size - span)
    first = repeated(lambda: file.bytes_at(0, min(span, size)))
    if start == 0:
        return size, first, first
    try:
        return size, first, repeated(lambda: file.bytes_at(start, size - start))
    except ValueError as error:
        if lacks_ranges(error):
            return None
        raise


def _stream_ends(file: Stream, span: int) -> tuple[int, bytes, bytes]:
    size, first, last = 0, b"", b""
    with file:
        while data := file.read(STREAM_BLOCK):
            size += len(data)
            first = first if len(first) >= span else (first + data)[:span]
            last = (last + data)[-span:]
    return size, first, last


def list_url(url: str) -> list[tuple[str, str, int]] | None:
    """(name relative to the folder, URL, bytes) of the files in a folder or of a glob at a URL, sorted; None for a single file.

    Raises:
        CorpusError: there is nothing at the URL, or it cannot be listed.
    """
    if is_web(url):  # a web server lists nothing
        return None
    with naming(url):
        system, path = file_system(url)
        system.invalidate_cache()
        is_glob = any(mark in path for mark in "*?[") and not repeated(lambda: system.exists(path))
        listed: dict[str, dict[str, Any]]
        if is_glob:
            listed = repeated(lambda: system.glob(path, detail=True))
        else:
            info = repeated(lambda: system.info(path))
            if info["type"] != "directory":
                return None
            listed = repeated(lambda: system.find(path, detail=True))
        files = [(file, int(entry.get("size") or 0)) for file, entry in listed.items() if entry["type"] == "file"]
        folder = path.rstrip("/") + "/"
        return sorted(
            (name_in(file) if is_glob else file.removeprefix(folder), system.unstrip_protocol(file), size)
            for file, size in files
        )
