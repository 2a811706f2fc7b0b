"""Fingerprints of models and tokenizers, which depend on their contents, not on their paths.

Knows the byte layout of safetensors; knows no model class, no method, no store.
"""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path

from .transformers_types import HfTokenizer

_SAMPLE, _SAMPLES = 4096, 16
_SCALING = ("lora_alpha", "r", "alpha_pattern", "rank_pattern", "use_rslora", "use_dora", "fan_in_fan_out")


def weights_digest(base: str, path: str, computation: str) -> str:
    """Hash of each tensor's name, dtype, shape and 16 samples of 4 KiB (not of all bytes), however they are split into files.

    `path` is `base`, or the folder of a LoRA adapter of `base`, whose scaling settings enter the hash; `computation` is the
    part of the config that decides what the weights compute.
    """
    folders = [_snapshot(base)] + ([Path(path)] if path != base else [])
    entries = [entry for folder in folders for file in folder.glob("*.safetensors") for entry in _samples(file)]
    digest = hashlib.sha256(computation.encode())
    for name, sample in sorted(entries):
        digest.update(name.encode() + b"\0" + sample)
    if path != base:
        config = json.loads((Path(path) / "adapter_config.json").read_text())
        digest.update(json.dumps([config.get(key) for key in _SCALING], sort_keys=True).encode())
    return digest.hexdigest()[:32]


def tokenizer_digest(tokenizer: HfTokenizer) -> str:
    """Hash of a fast tokenizer's full state, its begin-of-text token and its chat template."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state.pop("truncation", None)  # set by calls, not a property of the tokenizer
    state.pop("padding", None)
    description = json.dumps([state, tokenizer.bos_token_id, tokenizer.chat_template], sort_keys=True)
    return hashlib.sha256(description.encode()).hexdigest()[:32]


def _snapshot(path: str) -> Path:
    """Folder of a model that was loaded before: the path itself, or the hub's local copy."""
    if Path(path).is_dir():
        return Path(path)
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(path, local_files_only=True))


def _samples(file: Path) -> list[tuple[str, bytes]]:
    """(name; dtype, shape and sampled bytes) of each tensor of one file."""
    samples = []
    with file.open("rb") as handle:
        (size,) = struct.unpack("<Q", handle.read(8))
        for name, entry in json.loads(handle.read(size)).items():
            if name == "__metadata__":
                continue
            start, stop = entry["data_offsets"]
            sample = f"{entry['dtype']}{entry['shape']}".encode()
            for step in range(_SAMPLES):
                position = start + (stop - start) * step // _SAMPLES
                handle.seek(8 + size + position)
                sample += handle.read(min(_SAMPLE, stop - position))
            samples.append((name, sample))
    return samples
