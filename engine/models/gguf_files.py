"""GGUF files: which paths are ones, how transformers is asked for them.

transformers builds config, weights and tokenizer of such a file by its own tables of names. Knows no head, no method and no
store.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from importlib.util import find_spec
from pathlib import Path

from ...store.errors import ModelError
from .transformers_types import HfClass


def is_gguf(path: str) -> bool:
    """Whether a path names a GGUF file."""
    return path.lower().endswith(".gguf") and Path(path).is_file()


def location(path: str) -> tuple[str, dict[str, str]]:
    """(folder or hub id, further arguments) with which transformers reads a model's path."""
    return (str(Path(path).parent), {"gguf_file": Path(path).name}) if is_gguf(path) else (path, {})


def require_gguf(path: str) -> None:
    """Raise ModelError if a path is a GGUF file and the libraries that read it are missing."""
    if is_gguf(path) and not (find_spec("gguf") and find_spec("accelerate")):
        raise ModelError(f"{path} is a GGUF file: pip install 'headwater[gguf]' to read it")


@contextmanager
def dequantised(path: str) -> Iterator[dict[str, object]]:
    """Further arguments with which weights are read, none unless a path is a GGUF file: all blocks are dequantised at once.

    Within the context, the library's progress bar is not shown.
    """
    if not is_gguf(path):
        yield {}
        return
    import transformers

    library: HfClass = transformers
    config = getattr(library, "GgufConfig", None)  # earlier versions always dequantise
    with redirect_stderr(io.StringIO()):
        yield {"quantization_config": config(dequantize=True)} if config else {}
