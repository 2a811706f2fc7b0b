"""Compares a loaded tokenizer with the `tokenizer.json` that it was loaded from. Knows no model and no store."""

from __future__ import annotations

import json
from pathlib import Path

from ...store.errors import ModelError
from .transformers_types import HfClass, HfTokenizer

_TEXTS = (
    "the river runs down to the sea",
    " a leading space",
    "two  spaces,   three, and a trailing one ",
    "a line\nanother\n\na third\ttab\r\n  indented",
    "It's 1234567 (x_1 + 2.5) != f(y);",
    "Füße, 漢字, עברית, e\u0301 and 🙂",
)
_GENERAL = ("PreTrainedTokenizerFast", "TokenizersBackend")
"""Classes that follow tokenizer.json, by their names in a config."""


def checked_tokenizer(tokenizer: HfTokenizer, path: str) -> HfTokenizer:
    """The tokenizer, if it gives the tokens that the file `tokenizer.json` gives, by which a model was trained.

    transformers builds some classes of tokenizers from their vocabulary and the class's own rules, not by the file's rules, and
    takes such a class for some kinds of models even where the config names a general one; then the general one is loaded.

    Raises:
        ModelError: the tokens differ, or the file cannot be read.
    """
    file = tokenizer_file(path)
    if file is None:
        return tokenizer
    from transformers import PreTrainedTokenizerFast

    text = differing_text(tokenizer, file)
    if text is not None and _declared_class(file) in _GENERAL:
        general: HfClass = PreTrainedTokenizerFast
        tokenizer = general.from_pretrained(path)
        text = differing_text(tokenizer, file)
    if text is not None:
        raise ModelError(
            f"{path}: its tokenizer, loaded as {type(tokenizer).__name__}, gives other tokens than its tokenizer.json for "
            f"{text!r}: if the model was trained by that file, set tokenizer_class to PreTrainedTokenizerFast in "
            "tokenizer_config.json; otherwise save the loaded tokenizer with save_pretrained"
        )
    return tokenizer


def _declared_class(file: Path) -> object:
    """The class that the `tokenizer_config.json` beside a `tokenizer.json` names; None if it names none."""
    try:
        config = json.loads(file.with_name("tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return config.get("tokenizer_class") if isinstance(config, dict) else None


def differing_text(tokenizer: HfTokenizer, file: Path) -> str | None:
    """The first text of `_TEXTS` for which a tokenizer gives other ids than the file; None if there is none."""
    from tokenizers import Tokenizer

    try:
        by_file = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises bare exceptions
        raise ModelError(f"{file} cannot be read: {' '.join(str(error).split())[:300]}") from None
    by_file.no_truncation()
    by_file.no_padding()
    for text in _TEXTS:
        if tokenizer(text, add_special_tokens=False)["input_ids"] != by_file.encode(text, add_special_tokens=False).ids:
            return text
    return None


def tokenizer_file(path: str) -> Path | None:
    """The `tokenizer.json` of a folder; None if there is none, or if the path is a GGUF file, which holds its tokenizer."""
    file = Path(path) / "tokenizer.json"
    return file if file.is_file() else None
