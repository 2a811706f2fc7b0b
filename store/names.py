"""Names that become a folder of a store: checked where they are given, and again where a store is read. Knows no file.

A store may come from a stranger, and a name from a command line: no name may lead out of the store, and under each name that is
accepted the store opens again.
"""

from __future__ import annotations

import re

from .errors import DataError

_NAME = re.compile(r"\w[\w.@-]*(?<!zarr\.json)")
_LONGEST_METHOD, _LONGEST = 160, 240
"""Most bytes of a method's name, and of a folder's, which may add a precision to it; a file system allows 255."""


def require_name(name: str, what: str) -> str:
    """The name, if it may be one folder of a store.

    Raises:
        DataError: it is empty, too long, holds a slash, or other characters than letters, digits and `. _ @ -`.
    """
    _require_length(name, what, _LONGEST)
    if not _NAME.fullmatch(name):
        raise DataError(
            f"{name!r} cannot be the name of a {what}: letters, digits and . _ @ - only, a letter or digit first"
        )
    return name


def require_method(name: str) -> str:
    """The name of a method or member (`rise@1`), if a store can hold its groups.

    Raises:
        DataError: it cannot be one folder of a store, or it is too long.
    """
    _require_length(name, "method", _LONGEST_METHOD)
    return require_name(name, "method")


def _require_length(name: str, what: str, longest: int) -> None:
    if len(name.encode("utf-8", "surrogatepass")) > longest:
        raise DataError(f"{name[:40]!r}… is too long for the name of a {what}: at most {longest} bytes")
