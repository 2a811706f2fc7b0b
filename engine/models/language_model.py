"""Loads a causal language model and its tokenizer, and checks its head.

Knows no method, no corpus, no store.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import torch

from ...store.errors import DeviceError, ModelError, StoreMismatch
from ..interface.model_view import ModelShape
from .adapters import base_model_of, with_adapter
from .batch_outputs import LinearHead
from .fingerprint import tokenizer_digest, weights_digest
from .gguf_files import is_gguf
from .hub_copy import local_copy
from .model_files import (
    computation_settings,
    dtype_of,
    end_tokens,
    prefix_tokens,
    read_config,
    read_tokenizer,
    read_weights,
    silence_libraries,
)
from .output_head import activation_bytes, check_head, output_head, weight_bytes
from .quantised import note_on, quantisation_of
from .tokenizer_check import tokenizer_file
from .transformers_types import HfClass, HfModel, HfTokenizer


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """Which model to load, on which device and in which dtype."""

    path: str
    """Folder or hub id of a Hugging Face causal LM, folder of a LoRA adapter of one, or GGUF file."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:i."""
    dtype: str = "auto"
    """auto (float32 on a CPU, the checkpoint's own on a GPU), float32, bfloat16 or float16."""
    trust_remote_code: bool = False
    """Whether Python code that ships with the model may be executed."""
    loaded: LanguageModel | None = field(default=None, compare=False, repr=False)
    """A model that is in memory already, which is used in place of `path`."""

    def of_store(self, path: str) -> ModelChoice:
        """The choice itself, or the model at a store's recorded path if it names none."""
        return self if self.path or self.loaded else replace(self, path=path)

    def other(self, path: str) -> ModelChoice:
        """The model at another path, such as a member's own, loaded in the same way; "" chooses none. A model in memory stays the
        choice if it was loaded from this path.
        """
        return self if path and path == self.path else replace(self, path=path, loaded=None)


@dataclass(slots=True)
class LanguageModel:
    """A loaded model, split into its trunk and its output head."""

    path: str
    """Absolute folder or GGUF file, or hub id; empty if the weights are in memory alone."""
    trunk: HfModel
    """Module: token ids (n, T) → last hidden state (n, T, D), final norm included."""
    head: LinearHead
    tokenizer: HfTokenizer
    prefix: tuple[int, ...]
    """Token ids that the tokenizer adds before every text: the begin-of-text token, or none."""
    fingerprint: dict[str, str]
    """Digests `model` and `tokenizer`; a store accepts only a model with the same ones."""
    memory: dict[str, int]
    """`weights` in bytes, and `activations` in bytes per padded token."""
    device: torch.device
    notes: tuple[str, ...] = ()
    """What the user should know of how the weights were read, one line each."""
    ends: tuple[int, ...] = ()
    """Ids of the tokens that end an answer."""
    is_unchanged: Callable[[], bool] = field(default=lambda: True, repr=False)
    """Whether the weights are still those of the fingerprint: a user's object may be trained further."""


def require_unchanged(model: LanguageModel) -> None:
    """Raise StoreMismatch if a model in memory has other weights than when it was given."""
    if not model.is_unchanged():
        raise StoreMismatch(
            "the model object was changed after it was given: a store's rows are of the model as it was",
            hint="open the store with the model that it was made with, or ingest by the changed one as a member (base)",
        )


def pick_device(name: str) -> torch.device:
    """The torch device of a name: auto, cpu, cuda or cuda:i.

    Raises:
        DeviceError: the name is unknown, or this machine has no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise DeviceError(f"no device {name}: there are auto, cpu, cuda and cuda:i; choose one with --device") from None
    if device.type not in ("cpu", "cuda"):
        raise DeviceError(f"no device {name}: there are auto, cpu, cuda and cuda:i; choose one with --device")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise DeviceError(f"device {name} is not available: torch finds no CUDA device; use --device cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceError(f"device {name} does not exist: torch finds {torch.cuda.device_count()} CUDA device(s)")
    return device


def load(choice: ModelChoice) -> LanguageModel:
    """Load a model for inference; one that is in memory already is returned as it is.

    Raises:
        ModelError: no model is named, or there is none, no safetensors, not a causal LM, weights are missing, or the head is not
            linear.
        DeviceError: this machine has no such device. StoreMismatch: a model in memory was changed after it was given.
    """
    device = pick_device(choice.device)
    if choice.loaded:
        require_unchanged(choice.loaded)
        return _as_chosen(choice.loaded, choice)
    _require_path(choice.path)
    silence_libraries()
    place = local_copy(choice.path)
    try:
        return _loaded(place, choice, device)
    except ModelError as error:
        raise ModelError(str(error).replace(place, choice.path), hint=error.hint.replace(place, choice.path)) from None


def _loaded(place: str, choice: ModelChoice, device: torch.device) -> LanguageModel:
    """The model at a path on this machine."""
    base = _base_of(place)
    config = read_config(base, choice.trust_remote_code)
    dtype = torch.float32 if is_gguf(base) and choice.dtype == "auto" else dtype_of(choice.dtype, config, device)
    model, kind = read_weights(base, config, dtype, choice.trust_remote_code, device), quantisation_of(config)
    if base != place:
        model = with_adapter(model, place)
    model = (model if kind else model.to(device)).eval().requires_grad_(False)
    tokenizer = read_tokenizer(place if tokenizer_file(place) else base, choice.trust_remote_code)
    head = output_head(model, config)
    check_head(model, head, place, quantised=bool(kind))
    return LanguageModel(
        path=str(Path(choice.path).resolve()) if Path(choice.path).exists() else choice.path,
        trunk=model.base_model,
        head=head,
        tokenizer=tokenizer,
        prefix=prefix_tokens(tokenizer),
        fingerprint={
            "model": weights_digest(base, place, computation_settings(config)),
            "tokenizer": tokenizer_digest(tokenizer),
        },
        memory={"weights": weight_bytes(model), "activations": activation_bytes(config, dtype)},
        device=device,
        notes=_notes(base, head, kind),
        ends=end_tokens(model),
    )


def _base_of(place: str, *, weights: bool = True) -> str:
    """The path on this machine of an adapter's base model; the path itself if it is no adapter's."""
    base = base_model_of(place)
    return place if base == place else local_copy(base, weights=weights)


def _notes(base: str, head: LinearHead, kind: str) -> tuple[str, ...]:
    """What the user should know of how the weights of a model are read."""
    if kind:
        return (note_on(kind, head),)
    dtype = str(head.weight.dtype).removeprefix("torch.")
    return (f"GGUF weights are dequantised to {dtype}; the head is read as {dtype}",) if is_gguf(base) else ()


def _as_chosen(model: LanguageModel, choice: ModelChoice) -> LanguageModel:
    """A model in memory; an error if the choice names another device or dtype than it has."""
    own, dtype = model.device, str(model.head.weight.dtype).removeprefix("torch.")
    if choice.device not in ("auto", own.type, str(own)):
        raise ModelError(
            f"the model in memory is on {own}, not on {choice.device}: move it there, or leave the device out"
        )
    if choice.dtype not in ("auto", dtype):
        raise ModelError(f"the model in memory computes in {dtype}, not in {choice.dtype}: leave the dtype out")
    return model


def _require_path(path: str) -> None:
    """Raise ModelError for the empty path that a store records of a model without one."""
    if not path:
        raise ModelError("the store's model was an object in memory: give it again (--model PATH, or model= in Python)")


def load_trainable(choice: ModelChoice) -> HfModel:
    """Load the full model with its weights for training; in float32 unless another dtype is chosen.

    Raises:
        ModelError: see :func:`load`.
    """
    silence_libraries()
    place = local_copy(choice.path)
    config = read_config(place, choice.trust_remote_code)
    if kind := quantisation_of(config):
        raise ModelError(
            f"{choice.path} is quantised ({kind}) and cannot be trained: give the model that it was made from"
        )
    return read_weights(place, config, dtype_of(choice.dtype, config, torch.device("cpu")), choice.trust_remote_code)


def init_from_config(path: str, seed: int, trust_remote_code: bool = False) -> HfModel:
    """Build a model from a folder's config with weights drawn from a seed, in float32.

    Raises:
        ModelError: no config of a causal LM is there.
    """
    from transformers import AutoModelForCausalLM

    silence_libraries()
    place, auto = local_copy(path, weights=False), cast(HfClass, AutoModelForCausalLM)
    config = read_config(place, trust_remote_code)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return auto.from_config(config, trust_remote_code=trust_remote_code).float()


def load_untrained(path: str, trust_remote_code: bool = False) -> LanguageModel:
    """Build a model from a folder's config and tokenizer with random weights, for tokenizing texts only.

    Raises:
        ModelError: no config, or no fast tokenizer.
    """
    model = init_from_config(path, 0, trust_remote_code).eval().requires_grad_(False)
    tokenizer = read_tokenizer(local_copy(path, weights=False), trust_remote_code)
    return LanguageModel(
        path=str(Path(path).resolve()),
        trunk=model.base_model,
        head=output_head(model, model.config),
        tokenizer=tokenizer,
        prefix=prefix_tokens(tokenizer),
        fingerprint={"model": config_digest(path, weights=False), "tokenizer": tokenizer_digest(tokenizer)},
        memory={"weights": weight_bytes(model), "activations": activation_bytes(model.config, torch.float32)},
        device=torch.device("cpu"),
    )


def model_shape_of(path: str) -> ModelShape:
    """Shape of the model that a folder's config describes, adapters included; no weights are read or allocated.

    Raises:
        ModelError: no config of a causal LM is there.
    """
    from transformers import AutoModelForCausalLM

    _require_path(path)
    silence_libraries()
    base = _base_of(local_copy(path, weights=False), weights=False)
    config, auto = read_config(base, False), cast(HfClass, AutoModelForCausalLM)
    with torch.device("meta"):
        model = auto.from_config(config)
    return output_head(model, config).model_shape


def config_digest(path: str, *, weights: bool) -> str:
    """Digest of what decides a model's computation: its config and, with `weights`, its weights."""
    place = local_copy(path, weights=weights)
    config = computation_settings(read_config(place, False))
    return weights_digest(place, place, config) if weights else hashlib.sha256(config.encode()).hexdigest()[:32]


def tokenizer_of(path: str, remote_code: bool, digest: str) -> HfTokenizer:
    """The tokenizer of a model or an adapter, whose digest is `digest`.

    Raises:
        ModelError: it is not there any more, does not load, or is another one.
    """
    silence_libraries()
    place = local_copy(path, weights=False)
    tokenizer = read_tokenizer(place if tokenizer_file(place) else _base_of(place, weights=False), remote_code)
    if tokenizer_digest(tokenizer) != digest:
        raise ModelError(f"{path} has another tokenizer now")
    return tokenizer
