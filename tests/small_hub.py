"""A hub on this machine: serves the folders of models over HTTP as the Hugging Face hub does, or refuses, or breaks off."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class SmallHub:
    """A context manager; `models` and what is refused may be changed while it runs."""

    def __init__(self) -> None:
        self.models: dict[str, Path] = {}
        """Hub id → folder."""
        self.tokens: dict[str, str] = {}
        """Hub id → the access token that it asks for."""
        self.gated: set[str] = set()
        """Hub ids whose terms nobody has accepted."""
        self.breaks_off: set[str] = set()
        """Names of files of which half is sent; asked again, the hub answers 500."""
        self.requests: list[tuple[str, str]] = []
        """(verb, path) of all requests."""
        self.half_sent: set[str] = set()
        self.silent = False
        """Whether the hub takes requests and never answers."""
        self._stopped = threading.Event()

    def __enter__(self) -> SmallHub:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                """Print nothing."""

            def do_GET(self) -> None:
                hub.answer(self, body=True)

            def do_HEAD(self) -> None:
                hub.answer(self, body=False)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Refuse connections from now on."""
        self._stopped.set()
        if self._thread.is_alive():
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()

    def answer(self, request: Any, body: bool) -> None:
        """Answer one request."""
        if self.silent:
            self._stopped.wait(30)
            return
        path = request.path.split("?")[0]
        self.requests.append((request.command, path))
        words = path.strip("/").split("/")
        model = "/".join(words[2:4] if words[0] == "api" else words[:2])
        refusal = self._refusal(model, request.headers.get("Authorization"))
        if refusal:
            status, code = refusal
            _send(request, status, b"{}", {"X-Error-Code": code} if code else {}, body)
        elif words[0] == "api":
            facts = self._tree(model) if "tree" in words else self._facts(model)
            _send(request, 200, json.dumps(facts).encode(), {"Content-Type": "application/json"}, body)
        else:
            self._send_file(request, model, words[-1], body)

    def _refusal(self, model: str, authorization: str | None) -> tuple[int, str] | None:
        """(status, code of the error) if a model is not shown."""
        if model in self.gated:
            return 403, "GatedRepo"
        token = self.tokens.get(model)
        if model not in self.models or (token and authorization is None):
            return 401, "RepoNotFound"
        return (401, "") if token and authorization != f"Bearer {token}" else None

    def commit(self, model: str) -> str:
        """The commit of a model."""
        return hashlib.sha1(model.encode()).hexdigest()

    def _facts(self, model: str) -> dict[str, object]:
        names = sorted(file.name for file in self.models[model].iterdir())
        siblings = [{"rfilename": name} for name in ["README.md", *names]]
        return {"id": model, "modelId": model, "sha": self.commit(model), "private": False, "siblings": siblings}

    def _tree(self, model: str) -> list[dict[str, object]]:
        files = sorted(self.models[model].iterdir())
        entries = [(file.name, file.stat().st_size, hashlib.sha1(file.read_bytes()).hexdigest()) for file in files]
        return [
            {"type": "file", "path": name, "size": size, "oid": digest}
            for name, size, digest in [("README.md", 3, "0" * 40), *entries]
        ]

    def _send_file(self, request: Any, model: str, name: str, body: bool) -> None:
        file = self.models[model] / name
        if not file.is_file():
            _send(request, 404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": self.commit(model)}, body)
            return
        data = file.read_bytes()
        headers = {
            "X-Repo-Commit": self.commit(model),
            "ETag": f'"{hashlib.sha1(data).hexdigest()}"',
            "Accept-Ranges": "bytes",
        }
        if body and name in self.half_sent & self.breaks_off:
            _send(request, 500, b"", headers, body)
        elif body and name in self.breaks_off:
            self.half_sent.add(name)
            _send(request, 200, data[: len(data) // 2], {**headers, "Content-Length": str(len(data))}, body)
            request.close_connection = True
        else:
            first = int(request.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
            part = {"Content-Range": f"bytes {first}-{len(data) - 1}/{len(data)}"} if first else {}
            _send(request, 206 if first else 200, data[first:], {**headers, **part}, body)


def _send(request: Any, status: int, data: bytes, headers: dict[str, str], body: bool) -> None:
    request.send_response(status)
    for name, value in {"Content-Length": str(len(data)), **headers}.items():
        request.send_header(name, value)
    request.end_headers()
    if body:
        request.wfile.write(data)
        request.wfile.flush()
