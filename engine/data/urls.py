"""URLs as text: which strings are URLs, their names, and how they are shown without secrets. Opens nothing."""

from __future__ import annotations

import re
from urllib.parse import urlsplit, urlunsplit

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://\S+")
_WEB = ("http", "https")


def is_url(path: str) -> bool:
    """Whether a path is a URL, SCHEME://…"""
    return _URL.fullmatch(path) is not None


def scheme_of(url: str) -> str:
    """The scheme of a URL, in lower case; "" for a path."""
    return url.partition("://")[0].lower() if is_url(url) else ""


def is_web(url: str) -> bool:
    """Whether a URL is of a web server, which has neither folders nor globs; its query is part of the address."""
    return scheme_of(url) in _WEB


def shown(path: str) -> str:
    """A path as messages and records name it: a URL without user, password, query and fragment, which may hold secrets, such as
    those of a signed URL. Of other schemes than http and https a question mark is part of the name.
    """
    if not is_url(path):
        return path
    scheme, rest = path.split("://", 1)
    if is_web(path):
        parts = urlsplit(path)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    host, slash, name = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{name}"


def name_in(url: str) -> str:
    """The last part of a URL's path, which is the file's name."""
    return shown(url).rstrip("/").rpartition("/")[2]
