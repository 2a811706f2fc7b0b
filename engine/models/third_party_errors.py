"""Messages of other libraries' errors in one line, without credentials. Knows no model and no store."""

from __future__ import annotations

import re

_SECRETS = (
    (re.compile(r"hf_\w{6,}"), "hf_…"),
    (re.compile(r"(?i)(bearer\s+)[^\s'\"]+"), r"\1…"),
    (re.compile(r"(?<=://)[^/\s@]+@"), "…@"),
    (re.compile(r"(https?://[^\s?'\"]+)\?[^\s'\"]+"), r"\1?…"),  # signatures of temporary addresses
)
"""What may let somebody in, wherever it stands, and what stands in its place."""


def one_line(error: BaseException) -> str:
    """The message of another library's error, in one line of at most 300 characters, without credentials."""
    return " ".join(without_credentials(str(error)).split())[:300]


def without_credentials(text: str) -> str:
    """A text without access tokens, passwords in addresses, and signatures of addresses."""
    from huggingface_hub import get_token

    token = get_token()
    text = text.replace(token, "…") if token else text
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text
