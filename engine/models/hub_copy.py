"""The local copy of a model that is named by its hub id: downloaded, continued, or taken from the cache.

The hub is asked once, with one time limit, and gives exactly the files that are read; from then on the model is a folder.
Knows no head, no method and no store.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ...store.errors import ModelError
from .third_party_errors import one_line, without_credentials
from .transformers_types import HfClass

_SMALL = (".json", ".txt", ".model", ".jinja", ".py")
"""Endings of the files beside the weights: config, tokenizer, templates, code."""
_CONFIGS = ("config.json", "adapter_config.json")
_WEIGHTS, _INDEX, _ADAPTER = "model.safetensors", "model.safetensors.index.json", "adapter_model.safetensors"


def local_copy(path: str, *, weights: bool = True) -> str:
    """The path itself if it exists on this machine, else the folder of the hub's copy, which is downloaded if need be.

    Where the hub cannot be reached within HF_HUB_ETAG_TIMEOUT seconds (10), or refuses, a whole copy in the cache is taken.
    Without `weights`, only the small files are needed.

    Raises:
        ModelError: no such folder, no such model on the hub, no access to it, or the download stopped.
    """
    if Path(path).exists():
        return path
    if path.startswith((".", "/", "~")) or path.count("/") > 1 or path.lower().endswith(".gguf"):
        raise ModelError(
            f"{path}: no such folder or file", hint="give a Hugging Face model folder, a hub id or a GGUF file"
        )
    try:
        return str(_downloaded(path, weights))
    except ModelError:
        raise
    except Exception as error:  # the library raises many kinds of exceptions
        copy = cached_copy(path)
        if copy and not missing_files(copy, weights):
            return str(copy)
        raise ModelError(_explained(path, error, copy)) from None


def cached_copy(path: str) -> Path | None:
    """Folder of a hub model in the cache, whole or not; None if there is none."""
    from huggingface_hub import try_to_load_from_cache

    for name in _CONFIGS:
        try:
            file = try_to_load_from_cache(path, name)
        except ValueError:  # no hub id
            return None
        if isinstance(file, str):
            return Path(file).parent
    return None


def missing_files(folder: Path, weights: bool) -> list[str]:
    """Names of the files of weights that a model's folder lacks: those that its index lists, or the only one."""
    if not weights:
        return []
    needed = _weight_files(folder, (file.name for file in folder.iterdir()))
    return [name for name in needed if not (folder / name).is_file()]


def _downloaded(path: str, weights: bool) -> Path:
    from huggingface_hub import HfApi, constants, snapshot_download

    info = HfApi().model_info(path, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    names = [file.rfilename for file in info.siblings or () if "/" not in file.rfilename]
    if not any(name in names for name in _CONFIGS):
        hint = ": download its GGUF file and name this" if any(name.endswith(".gguf") for name in names) else ""
        raise ModelError(f"{path} on the hub is no model of transformers (it has no config.json){hint}")
    with _quiet():
        folder = Path(snapshot_download(path, allow_patterns=[name for name in names if name.endswith(_SMALL)]))
        if weights:
            needed = [name for name in _weight_files(folder, names) if name in names]
            if not needed:
                raise ModelError(
                    f"{path} on the hub has no safetensors weights, and pickles, which can run code, are not read"
                )
            snapshot_download(path, allow_patterns=needed)
    return folder


def _weight_files(folder: Path, file_names: Iterable[str]) -> list[str]:
    """Names of the files of weights that transformers reads, of a model whose small files are there."""
    names = set(file_names)
    if "adapter_config.json" in names:
        return [_ADAPTER]
    if _WEIGHTS in names or _INDEX not in names:
        return [_WEIGHTS]
    try:
        return sorted(set(json.loads((folder / _INDEX).read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        raise ModelError(f"{folder / _INDEX} cannot be read: remove it, and run the command again") from None


def _explained(path: str, error: Exception, copy: Path | None) -> str:
    """What a failed request means, and what helps; never with the access token."""
    from huggingface_hub import constants, get_token
    from huggingface_hub.errors import GatedRepoError, HFValidationError, OfflineModeIsEnabled

    status = getattr(getattr(error, "response", None), "status_code", 0)
    hub = f"the hub at {without_credentials(constants.ENDPOINT)}"
    part = "only a part of it" if copy else "no copy of it"
    token = f"{'another' if get_token() else 'an'} access token by HF_TOKEN or `hf auth login`"
    if isinstance(error, HFValidationError):
        return f"{path} is neither a model folder nor a model on the hub: {one_line(error)}"
    if isinstance(error, OfflineModeIsEnabled):
        return f"{path} is no folder, HF_HUB_OFFLINE is set, and the cache holds {part}: unset it, or give a folder"
    if isinstance(error, GatedRepoError):
        return f"{path} is gated: accept its terms on the hub, and give {token}, of an account that has access"
    if status == 401 and get_token():
        return f"{hub} refuses the access token for {path} (401; has it expired?), or has no such model: give {token}"
    if status in (401, 404):
        return (
            f"{path} is neither a model folder nor a public model on the hub ({status}): if it is private, give {token}"
        )
    if status == 403:
        return f"{hub} forbids access to {path} (403): give {token}, with the right to read it"
    if status != 429 and (
        copy or (isinstance(error, OSError) and not status)
    ):  # it began, or this machine's disk refuses it
        reason = f"it answers {status}" if status else one_line(error)
        return f"the download of {path} from {hub} stopped ({reason}): run the command again to continue it"
    if status:
        return f"{hub} answers {status} for {path}, and the cache holds {part}: try again later, or give a folder"
    return (
        f"{path} is no folder, {hub} cannot be reached ({one_line(error)}), and the cache holds {part}: give a folder"
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's progress bars, unless a person sees them."""
    from huggingface_hub import utils

    bars: HfClass = utils
    hidden = not sys.stderr.isatty() and not bars.are_progress_bars_disabled()
    if hidden:
        bars.disable_progress_bars()
    try:
        yield
    finally:
        if hidden:
            bars.enable_progress_bars()
