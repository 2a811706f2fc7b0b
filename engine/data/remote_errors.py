"""What an error of a remote file system means for the user, and whether another try may help.

Libraries raise many types, which are distinguished by status code, class name and cause. No message of theirs is passed on
where it may hold an address with secrets.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from .urls import is_web, scheme_of, shown

_CREDENTIALS = {
    "NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "TokenRetrievalError", "NoAuthTokenError",
    "UnauthorizedSSOTokenError", "SSOTokenLoadError", "ProfileNotFound", "DefaultCredentialsError", "RefreshError",
    "LocalTokenNotFoundError",
}  # fmt: skip
_UNREACHABLE = {
    "ClientConnectorError", "ClientConnectorDNSError", "ClientConnectionError", "EndpointConnectionError", "ConnectError",
    "ConnectTimeout", "ConnectTimeoutError", "ReadTimeout", "ReadTimeoutError", "ConnectionTimeoutError", "gaierror",
    "OfflineModeIsEnabled",
}  # fmt: skip
_LOGINS = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS, or run gcloud auth application-default login",
    "hf": "set HF_TOKEN, or run hf auth login",
    "http": "a signed URL may have expired: make a new one",
}
_DENIED = {"s3": (400, 401, 403)}  # S3 answers an expired token with 400, and a HEAD request has no further words
_SAME = {"s3a": "s3", "gcs": "gs", "https": "http"}
_EXTRAS = ("s3", "gs", "http")


class BrokenOff(OSError):
    """A file at a URL that could not be read to its end."""

    def __init__(self, text: str, hint: str) -> None:
        super().__init__(text)
        self.hint = hint
        """What to do about it."""


def reason_of(error: BaseException, url: str) -> tuple[str, str]:
    """Why a URL cannot be read, in a few words without secrets; and what helps, "" if nothing is known."""
    scheme = _SAME.get(scheme_of(url), scheme_of(url))
    login = _LOGINS.get(scheme, f"log in to {scheme}://")
    status, names = _status(error), {type(cause).__name__ for cause in _causes(error)}
    if _is(error, ImportError):
        package = f"pip install 'headwater[{scheme}]'" if scheme in _EXTRAS else " ".join(str(error).split())
        return f"the package that reads {scheme}:// is not installed", package
    if names & _CREDENTIALS:
        return "credentials are missing", login
    if status in _DENIED.get(scheme, (401, 403)) or _is(error, PermissionError):
        code = _code(error) or (str(status) if status else "denied")
        return f"access was denied ({code}): credentials are missing, expired or not enough", login
    if status in (404, 410):
        return f"no such file or folder ({status})", ""
    if names & _UNREACHABLE or _is(error, ConnectionError, TimeoutError):
        return f"{_host(url)} cannot be reached", "check the address and the network"
    if status:
        return f"the server answered with status {status}", ""
    if _is(error, FileNotFoundError):
        return "no such file or folder", ""
    if isinstance(error, ValueError) and "rotocol not known" in str(error):
        return (
            f"no file system is known for {scheme}://",
            "give an s3, gs, hf, http or https URL, or another that fsspec knows",
        )
    return _message(error, url), ""


def _is(error: BaseException, *types: type[BaseException]) -> bool:
    """Whether an error, or one that led to it, is of one of these types."""
    return any(isinstance(cause, types) for cause in _causes(error))


def lacks_ranges(error: BaseException) -> bool:
    """Whether an error of fsspec says that a web server sends no ranges."""
    return isinstance(error, ValueError) and "range requests" in str(error)


def is_transient(error: BaseException) -> bool:
    """Whether the same request may succeed a moment later."""
    if (status := _status(error)) is not None:
        return status >= 500 or status in (408, 425, 429)
    if lacks_ranges(error):
        return False
    lasting = (ImportError, FileNotFoundError, PermissionError, NotImplementedError, IsADirectoryError)
    return not any(
        isinstance(cause, lasting) or type(cause).__name__ in _CREDENTIALS | {"OfflineModeIsEnabled"}
        for cause in _causes(error)
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and the chain of errors that led to it."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _status(error: BaseException) -> int | None:
    """The HTTP status that an error reports: as aiohttp, httpx and botocore do."""
    for cause in _causes(error):
        response: Any = getattr(cause, "response", None)
        of_boto = response.get("ResponseMetadata", {}).get("HTTPStatusCode") if isinstance(response, dict) else None
        for value in (getattr(cause, "status", None), getattr(response, "status_code", None), of_boto):
            if isinstance(value, int):
                return value
    return None


def _code(error: BaseException) -> str:
    """The error code of S3, such as ExpiredToken; "" if there is none."""
    for cause in _causes(error):
        response: Any = getattr(cause, "response", None)
        if isinstance(response, dict) and re.fullmatch(r"\w+", code := str(response.get("Error", {}).get("Code", ""))):
            return code
    return ""


def _host(url: str) -> str:
    return shown(url).split("://", 1)[1].partition("/")[0] if is_web(url) else f"the service of {shown(url)}"


def _message(error: BaseException, url: str) -> str:
    """The error's own words, if the address holds no secret; else its type alone."""
    words = " ".join(str(error).split())
    return words if words and shown(url) == url else type(error).__name__
