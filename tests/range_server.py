"""A web server on loopback that sends a folder's files, with or without ranges, and can fail in the ways that servers do."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class RangeServer(ThreadingHTTPServer):
    """Counts the bytes of bodies that it sends."""

    daemon_threads = True
    headers: dict[str, str] = {}  # noqa: RUF012 — further headers of each file
    absent_headers: dict[str, str] = {}  # noqa: RUF012 — of an answer that there is none

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.ranges = True
        """Whether ranges are sent; otherwise a request for one gets the whole file, as of Python's own server."""
        self.sent = 0
        self.requests: list[str] = []
        """Method and address of each request."""
        self.failures: list[int] = []
        """Status of the next answers to GET; 0: half of the body is sent."""
        self.cut_at: int | None = None
        """Byte of a file from which on nothing is sent, although it was promised."""
        self.head = True
        """Whether HEAD is allowed; of a URL that is signed for GET it is not."""
        self.length = True
        """Whether an answer says how long it is; otherwise it ends with the connection."""
        self.status = 0
        """Status of every answer; 0: the file's own."""

    def api(self, handler: BaseHTTPRequestHandler) -> bool:
        """Whether a request was answered that is for no file."""
        return False

    def name_of(self, path: str) -> str:
        """The file's name below the folder for a path of the server."""
        return path.lstrip("/")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: RangeServer

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_POST(self) -> None:
        self._answer(with_body=True)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, with_body: bool) -> None:
        server = self.server
        server.requests.append(f"{self.command} {self.path}")
        if self.server.api(self):
            return
        file = server.folder / server.name_of(self.path.partition("?")[0])
        refused = 403 if not (with_body or server.head) else 0
        status = server.status or refused or (server.failures.pop(0) if with_body and server.failures else 200)
        if status > 200 or not file.is_file():
            self.send_response(status if status > 200 else 404)
            self.send_header("Content-Length", "0")
            for name, value in server.absent_headers.items():
                self.send_header(name, value)
            self.end_headers()
            return
        data, asked = file.read_bytes(), re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        first, last = (
            (int(asked[1]), min(int(asked[2]), len(data) - 1)) if asked and server.ranges else (0, len(data) - 1)
        )
        body = data[first : last + 1]
        self.send_response(206 if asked and server.ranges else 200)
        if server.ranges:
            self.send_header("Accept-Ranges", "bytes")
        if asked and server.ranges:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        if server.length:
            self.send_header("Content-Length", str(len(body)))
        else:
            self.close_connection = True
        for name, value in server.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self._send(body, first, half=status == 0)

    def _send(self, body: bytes, first: int, half: bool) -> None:
        cut = len(body) // 2 if half else len(body)
        if self.server.cut_at is not None:
            cut = max(0, min(cut, self.server.cut_at - first))
        self.server.sent += cut
        with suppress(OSError):  # the client has read enough
            self.wfile.write(body[:cut])
        if cut < len(body):
            self.close_connection = True

    def log_message(self, format: str, *arguments: object) -> None:
        """Print nothing."""


@contextmanager
def serving(folder: Path, kind: type[RangeServer] = RangeServer) -> Iterator[RangeServer]:
    """A server of a folder, in a thread."""
    server = kind(folder)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
