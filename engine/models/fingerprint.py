"""Fingerprints of models and tokenizers, which depend on their contents, not on their paths.

Knows the byte layout of safetensors, and GGUF by its library; knows no model class, no method, no store.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .transformers_types import HfTokenizer

_SAMPLE, _SAMPLES = 4096, 16
_SCALING = ("lora_alpha", "r", "alpha_pattern", "rank_pattern", "use_rslora", "use_dora", "fan_in_fan_out")


def weights_digest(base: str, path: str, computation: str) -> str:
    """Hash of each tensor's name, dtype, shape and 16 samples of 4 KiB (not of all bytes), however they are split into files.

    `base`: folder or GGUF file of a model. `path` is `base`, or the folder of a LoRA adapter of `base`, whose scaling settings
    enter the hash; `computation` is the part of the config that decides what the weights compute.
    """
    folders = [Path(base)] + ([Path(path)] if path != base else [])
    samples = [(name, sampled) for folder in folders for name, sampled in folder_samples(folder)]
    if path == base:
        return samples_digest(samples, computation)
    return samples_digest(samples, computation, scaling(json.loads((Path(path) / "adapter_config.json").read_text())))


def scaling(adapter_config: Mapping[str, object]) -> str:
    """The part of an adapter's config that decides what its weights compute."""
    return json.dumps([adapter_config.get(key) for key in _SCALING], sort_keys=True)


def samples_digest(samples: Iterable[tuple[str, bytes]], computation: str, adapter: str = "") -> str:
    """Hash of the samples of tensors, in any order, and of what they compute; `adapter`: the :func:`scaling` of
    one that is not merged.
    """
    digest = hashlib.sha256(computation.encode())
    for name, sample in sorted(samples):
        digest.update(name.encode() + b"\0" + sample)
    digest.update(adapter.encode())
    return digest.hexdigest()[:32]


def tokenizer_digest(tokenizer: HfTokenizer) -> str:
    """Hash of a fast tokenizer's full state, its begin-of-text token and its chat template."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state.pop("truncation", None)  # set by calls, not a property of the tokenizer
    state.pop("padding", None)
    description = json.dumps([state, tokenizer.bos_token_id, tokenizer.chat_template], sort_keys=True)
    return hashlib.sha256(description.encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class FileTensor:
    """Where a tensor lies in a file."""

    file: Path
    dtype: str
    """The format's name of the dtype, such as F32, or of a quantised type of GGUF."""
    shape: tuple[int, ...]
    begin: int
    """First byte in the file."""
    end: int

    def read(self, start: int, stop: int) -> bytes:
        """The tensor's bytes from `start` to `stop`."""
        with self.file.open("rb") as handle:
            handle.seek(self.begin + start)
            return handle.read(stop - start)


def file_tensors(folder: Path) -> Iterator[tuple[str, FileTensor]]:
    """(name, tensor) of all safetensors files of a folder, where two files may have tensors of one name, or of a GGUF file."""
    if folder.is_file():
        yield from _gguf_tensors(folder)
        return
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as handle:
            (size,) = struct.unpack("<Q", handle.read(8))
            header = json.loads(handle.read(size))
        for name, entry in header.items():
            if name != "__metadata__":
                begin, end = (8 + size + offset for offset in entry["data_offsets"])
                yield name, FileTensor(file, entry["dtype"], tuple(entry["shape"]), begin, end)


def _gguf_tensors(file: Path) -> Iterator[tuple[str, FileTensor]]:
    from gguf import GGUFReader

    for tensor in GGUFReader(file).tensors:
        begin, shape = int(tensor.data_offset), tuple(int(length) for length in tensor.shape)
        yield tensor.name, FileTensor(file, tensor.tensor_type.name, shape, begin, begin + int(tensor.n_bytes))


def sampled_ranges(size: int) -> list[tuple[int, int]]:
    """(start, stop) of each sample of a tensor of `size` bytes."""
    starts = (size * step // _SAMPLES for step in range(_SAMPLES))
    return [(start, min(start + _SAMPLE, size)) for start in starts]


def sample(dtype: str, shape: Sequence[int], parts: Iterable[bytes]) -> bytes:
    """What enters the hash of a tensor: the format's name of its dtype, its shape, and the bytes of its sampled ranges."""
    return f"{dtype}{list(shape)}".encode() + b"".join(parts)


def folder_samples(folder: Path) -> Iterator[tuple[str, bytes]]:
    """(name; dtype, shape and sampled bytes) of each tensor of a folder or of a GGUF file."""
    for name, tensor in file_tensors(folder):
        ranges = sampled_ranges(tensor.end - tensor.begin)
        yield name, sample(tensor.dtype, tensor.shape, (tensor.read(start, stop) for start, stop in ranges))
