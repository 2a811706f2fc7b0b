"""The hub of Hugging Face on loopback, as far as data sets are read from it: ORG/NAME is a folder below the server's own."""

from __future__ import annotations

import json
import re
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote

from range_server import RangeServer

SHA = "a" * 40
_API = re.compile(r"/api/datasets/(?P<repo>[^/]+/[^/?]+)(?:/(?P<kind>revision|tree|paths-info)/[^/?]+)?(?P<path>[^?]*)")


class HubServer(RangeServer):
    """Every revision has the same files."""

    headers = {"X-Repo-Commit": SHA, "ETag": '"tag"'}  # noqa: RUF012
    absent_headers = {"X-Error-Code": "EntryNotFound"}  # noqa: RUF012

    def api(self, handler: BaseHTTPRequestHandler) -> bool:
        asked = _API.match(unquote(handler.path))
        if asked is None or self.status:
            return False
        folder = self.folder / asked["repo"]
        if not folder.is_dir():
            _send(handler, 404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        elif asked["kind"] == "tree":
            _send(
                handler,
                200,
                _entries(folder, folder / asked["path"].strip("/"), "recursive=true" in handler.path.lower()),
            )
        elif asked["kind"] == "paths-info":
            body = handler.rfile.read(int(handler.headers["Content-Length"])).decode()
            content = json.loads(body) if body.startswith("{") else parse_qs(body)
            _send(
                handler, 200, [_entry(folder, folder / path) for path in content["paths"] if (folder / path).exists()]
            )
        else:
            siblings = [
                {"rfilename": str(file.relative_to(folder))} for file in sorted(folder.rglob("*")) if file.is_file()
            ]
            _send(handler, 200, {"id": asked["repo"], "sha": SHA, "private": False, "gated": False, "disabled": False,
                                 "downloads": 0, "likes": 0, "tags": [], "siblings": siblings})  # fmt: skip
        return True

    def name_of(self, path: str) -> str:
        return re.sub(r"^/datasets/([^/]+/[^/]+)/resolve/[^/]+/", r"\1/", unquote(path))


def _entry(folder: Path, path: Path) -> dict[str, Any]:
    name = str(path.relative_to(folder))
    if path.is_dir():
        return {"type": "directory", "path": name, "oid": "0" * 40, "size": 0}
    return {"type": "file", "path": name, "oid": "0" * 40, "size": path.stat().st_size}


def _entries(folder: Path, below: Path, recursive: bool) -> list[dict[str, Any]]:
    return [_entry(folder, path) for path in sorted(below.rglob("*") if recursive else below.iterdir())]


def _send(handler: BaseHTTPRequestHandler, status: int, content: object, headers: dict[str, str] | None = None) -> None:
    body = json.dumps(content).encode()
    handler.send_response(status)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(body)))
    for name, value in (headers or {}).items():
        handler.send_header(name, value)
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(body)
