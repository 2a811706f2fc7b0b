"""Fingerprints of models and tokenizers, which depend on what they compute with, not on where they lie.

Knows safetensors as a layout of bytes, and no model class, no method, no store.
"""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path

from .transformers_types import HfTokenizer

_SAMPLE, _SAMPLES = 4096, 16
_SCALING = ("lora_alpha", "r", "alpha_pattern", "rank_pattern", "use_rslora", "use_dora", "fan_in_fan_out")


def weights_digest(base: str, path: str, kind: str) -> str:
    """Hash of every tensor's name, shape, type and 16 samples of 4 KiB, whatever files they are in; not of every byte.

    `path` is `base`, or the folder of an adapter of it, whose scaling counts as well; `kind` says what else of the config
    decides what the weights compute.
    """
    folders = [_snapshot(base)] + ([Path(path)] if path != base else [])
    entries = [entry for folder in folders for file in folder.glob("*.safetensors") for entry in _samples(file)]
    digest = hashlib.sha256(kind.encode())
    for name, sample in sorted(entries):
        digest.update(name.encode() + b"\0" + sample)
    if path != base:
        config = json.loads((Path(path) / "adapter_config.json").read_text())
        digest.update(json.dumps([config.get(key) for key in _SCALING], sort_keys=True).encode())
    return digest.hexdigest()[:32]


def tokenizer_digest(tokenizer: HfTokenizer) -> str:
    """Hash of a fast tokenizer's whole state, its begin-of-text token and its chat template."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state.pop("truncation", None)  # set by calls, not part of what the tokenizer is
    state.pop("padding", None)
    told = json.dumps([state, tokenizer.bos_token_id, tokenizer.chat_template], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:32]


def _snapshot(path: str) -> Path:
    """Folder of a model that is loaded already: itself, or the hub's local copy."""
    if Path(path).is_dir():
        return Path(path)
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(path, local_files_only=True))


def _samples(file: Path) -> list[tuple[str, bytes]]:
    """(name, type, shape and samples) of each tensor of one file."""
    found = []
    with file.open("rb") as handle:
        (size,) = struct.unpack("<Q", handle.read(8))
        for name, entry in json.loads(handle.read(size)).items():
            if name == "__metadata__":
                continue
            start, stop = entry["data_offsets"]
            sample = f"{entry['dtype']}{entry['shape']}".encode()
            for step in range(_SAMPLES):
                at = start + (stop - start) * step // _SAMPLES
                handle.seek(8 + size + at)
                sample += handle.read(min(_SAMPLE, stop - at))
            found.append((name, sample))
    return found
