"""Loads a causal language model and its tokenizer, and checks its head.

Knows no method, no corpus, no store.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch

from ...store.errors import DeviceError, ModelError
from ..interface.model_view import ModelShape
from .adapters import base_model_of, with_adapter
from .batch_outputs import LinearHead
from .fingerprint import tokenizer_digest, weights_digest
from .linear_io import linear_layers_of, skipped_weights
from .model_files import (
    computation_settings,
    dtype_of,
    prefix_tokens,
    read_config,
    read_tokenizer,
    read_weights,
    silence_libraries,
)
from .transformers_types import HfClass, HfConfig, HfModel, HfTokenizer

_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 6e-2, torch.float16: 1e-2}


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """Which model to load, on which device and in which dtype."""

    path: str
    """Folder or hub id of a Hugging Face causal LM, or folder of a LoRA adapter of one."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:i."""
    dtype: str = "auto"
    """auto (float32 on a CPU, the checkpoint's own on a GPU), float32, bfloat16 or float16."""
    trust_remote_code: bool = False
    """Whether Python code that ships with the model may be executed."""


@dataclass(slots=True)
class LanguageModel:
    """A loaded model, split into its trunk and its output head."""

    path: str
    """Absolute folder, or hub id."""
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
    """Load a model for inference.

    Raises:
        ModelError: no such model, no safetensors, not a causal LM, weights are missing, or the head is not linear.
        DeviceError: this machine has no such device.
    """
    device = pick_device(choice.device)
    silence_libraries()
    base = base_model_of(choice.path)
    config = read_config(base, choice.trust_remote_code)
    dtype = dtype_of(choice.dtype, config, device)
    model = read_weights(base, config, dtype, choice.trust_remote_code)
    if base != choice.path:
        model = with_adapter(model, choice.path)
    model = model.to(device).eval().requires_grad_(False)
    has_tokenizer = (Path(choice.path) / "tokenizer.json").is_file()
    tokenizer = read_tokenizer(choice.path if has_tokenizer else base, choice.trust_remote_code)
    head = _head(model, config)
    _check_head(model, head, choice.path)
    return LanguageModel(
        path=str(Path(choice.path).resolve()) if Path(choice.path).is_dir() else choice.path,
        trunk=model.base_model,
        head=head,
        tokenizer=tokenizer,
        prefix=prefix_tokens(tokenizer),
        fingerprint={
            "model": weights_digest(base, choice.path, computation_settings(config)),
            "tokenizer": tokenizer_digest(tokenizer),
        },
        memory={"weights": _bytes(model), "activations": _activation_bytes(config, dtype)},
        device=device,
    )


def load_trainable(choice: ModelChoice) -> HfModel:
    """Load the full model with its weights for training; in float32 unless another dtype is chosen.

    Raises:
        ModelError: see :func:`load`.
    """
    silence_libraries()
    config = read_config(choice.path, choice.trust_remote_code)
    return read_weights(
        choice.path, config, dtype_of(choice.dtype, config, torch.device("cpu")), choice.trust_remote_code
    )


def init_from_config(path: str, seed: int, trust_remote_code: bool = False) -> HfModel:
    """Build a model from a folder's config with weights drawn from a seed, in float32.

    Raises:
        ModelError: no config of a causal LM is there.
    """
    from transformers import AutoModelForCausalLM

    silence_libraries()
    config, auto = read_config(path, trust_remote_code), cast(HfClass, AutoModelForCausalLM)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return auto.from_config(config, trust_remote_code=trust_remote_code).float()


def load_untrained(path: str, trust_remote_code: bool = False) -> LanguageModel:
    """Build a model from a folder's config and tokenizer with random weights, for tokenizing texts only.

    Raises:
        ModelError: no config, or no fast tokenizer.
    """
    model = init_from_config(path, 0, trust_remote_code).eval().requires_grad_(False)
    tokenizer = read_tokenizer(path, trust_remote_code)
    return LanguageModel(
        path=str(Path(path).resolve()),
        trunk=model.base_model,
        head=_head(model, model.config),
        tokenizer=tokenizer,
        prefix=prefix_tokens(tokenizer),
        fingerprint={"model": config_digest(path, weights=False), "tokenizer": tokenizer_digest(tokenizer)},
        memory={"weights": _bytes(model), "activations": _activation_bytes(model.config, torch.float32)},
        device=torch.device("cpu"),
    )


def model_shape_of(path: str) -> ModelShape:
    """Shape of the model that a folder's config describes, adapters included; no weights are read or allocated.

    Raises:
        ModelError: no config of a causal LM is there.
    """
    from transformers import AutoModelForCausalLM

    silence_libraries()
    config, auto = read_config(base_model_of(path), False), cast(HfClass, AutoModelForCausalLM)
    with torch.device("meta"):
        model = auto.from_config(config)
    return _head(model, config).model_shape


def config_digest(path: str, *, weights: bool) -> str:
    """Digest of what decides a model's computation: its config and, with `weights`, its weights."""
    config = computation_settings(read_config(path, False))
    return weights_digest(path, path, config) if weights else hashlib.sha256(config.encode()).hexdigest()[:32]


def _head(model: HfModel, config: HfConfig) -> LinearHead:
    output = model.get_output_embeddings()
    if output is None or not hasattr(output, "weight"):
        raise ModelError(f"{type(model).__name__} has no linear language-model head")
    text = config.get_text_config()
    context = getattr(text, "max_position_embeddings", None) or getattr(text, "n_positions", None) or 2048
    layers = int(getattr(text, "num_hidden_layers", 0))
    linear_layers = tuple(layer for _, layer in linear_layers_of(model.base_model).values())
    model_shape = ModelShape(
        output.weight.shape[1],
        output.weight.shape[0],
        layers,
        int(context),
        linear_layers,
        skipped_weights(model.base_model),
    )
    scale = float(getattr(text, "logit_scale", None) or 1.0) / float(getattr(text, "logits_scaling", None) or 1.0)
    softcap = float(getattr(text, "final_logit_softcapping", None) or 0.0)
    return LinearHead(model_shape, output.weight.detach(), getattr(output, "bias", None), scale, softcap)


def _check_head(model: HfModel, head: LinearHead, path: str) -> None:
    """Raise ModelError if the head does not reproduce the model's own logits, or if the trunk is not causal."""
    length = min(8, head.model_shape.max_length)
    ids = torch.arange(2 * length, device=head.weight.device).reshape(2, length) % head.model_shape.vocabulary
    with torch.inference_mode():
        model_logits = model(input_ids=ids, use_cache=False).logits.float()
        hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
        shorter = model.base_model(input_ids=ids[:, : (length + 1) // 2], use_cache=False).last_hidden_state
        if hidden.shape[-1] != head.model_shape.hidden:
            raise ModelError(
                f"{path}: the trunk's width {hidden.shape[-1]} is not the head's {head.model_shape.hidden}"
            )
        head_logits = head.logits(hidden)
    if not torch.isfinite(model_logits).all():
        return  # the first batch raises an error that names the example
    tolerance = _TOLERANCE[head.weight.dtype]
    if float((hidden[:, : shorter.shape[1]] - shorter).abs().mean()) > tolerance * float(hidden.abs().mean()):
        raise ModelError(
            f"{path} is not causal: its states depend on later tokens; headwater supports causal language models only"
        )
    largest = float(model_logits.abs().max()) or 1.0
    difference = float((model_logits - head_logits).abs().max())
    if not difference <= tolerance * largest:
        raise ModelError(f"{path}: its logits are not W h + b with the scale and soft-cap of its config (they differ by "
                         f"{difference:.3g} of {largest:.3g}); the head of {type(model).__name__} is not supported")  # fmt: skip


def _bytes(model: HfModel) -> int:
    return sum(p.numel() * p.element_size() for p in {id(p): p for p in model.parameters()}.values())


def _activation_bytes(config: HfConfig, dtype: torch.dtype) -> int:
    """Bytes per padded token of a forward pass without gradients: one layer's widest tensors and the residual stream."""
    text = config.get_text_config()
    hidden = int(getattr(text, "hidden_size", 0) or getattr(text, "n_embd", 0))
    inner = int(getattr(text, "intermediate_size", 0) or getattr(text, "n_inner", 0) or 4 * hidden)
    return (10 * hidden + 4 * inner) * max(4, dtype.itemsize)


def tokenizer_of(path: str, remote_code: bool, digest: str) -> HfTokenizer:
    """The tokenizer of a model or an adapter, whose digest is `digest`.

    Raises:
        ModelError: it is not there any more, does not load, or is another one.
    """
    silence_libraries()
    own = (Path(path) / "tokenizer.json").is_file()
    tokenizer = read_tokenizer(path if own else base_model_of(path), remote_code)
    if tokenizer_digest(tokenizer) != digest:
        raise ModelError(f"{path} has another tokenizer now")
    return tokenizer
