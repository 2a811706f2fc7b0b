"""Loads a causal language model and its tokenizer, and checks its head.

Knows no method, no corpus, no store.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from ...store.errors import DeviceError, ModelError
from ..interface.model_view import ModelShape
from .batch_outputs import LinearHead
from .fingerprint import tokenizer_digest, weights_digest
from .linear_io import linear_layers_of, skipped_weights
from .model_files import (
    base_of,
    computation,
    dtype_of,
    prefix_of,
    quiet,
    read_config,
    read_tokenizer,
    read_weights,
    with_adapter,
)
from .transformers_types import HfConfig, HfModel, HfTokenizer

_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 6e-2, torch.float16: 1e-2}


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """Which model, and how to run it."""

    path: str
    """Folder or hub id of a Hugging Face causal LM, or folder of a LoRA adapter of one."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:i."""
    dtype: str = "auto"
    """auto (float32 on a CPU, the checkpoint's own on a GPU), float32, bfloat16 or float16."""
    trust_remote_code: bool = False
    """Whether code that ships with the model may run."""


@dataclass(slots=True)
class LanguageModel:
    """A loaded model: its trunk to run, its head taken apart."""

    path: str
    """Where it came from: an absolute folder, or a hub id."""
    trunk: HfModel
    """token ids → last hidden state, final norm included."""
    head: LinearHead
    tokenizer: HfTokenizer
    prefix: tuple[int, ...]
    """Tokens that the tokenizer puts before every text: the begin-of-text token, or nothing."""
    fingerprint: dict[str, str]
    """`model` and `tokenizer`: what a store must agree with."""
    memory: dict[str, int]
    """`weights` in bytes, and `activations` in bytes per padded token."""
    device: torch.device


def pick_device(name: str) -> torch.device:
    """The device by its name.

    Raises:
        DeviceError: unknown, or not on this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise DeviceError(f"no device {name}: there are auto, cpu, cuda and cuda:i") from None
    if device.type not in ("cpu", "cuda"):
        raise DeviceError(f"no device {name}: there are auto, cpu, cuda and cuda:i")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise DeviceError(f"{name} was asked for, and torch sees no CUDA device here; --device cpu works")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceError(f"{name} was asked for; torch sees {torch.cuda.device_count()} CUDA device(s)")
    return device


def load(choice: ModelChoice) -> LanguageModel:
    """Load a model for reading.

    Raises:
        ModelError: no such model, no safetensors, no causal LM, weights missing, or a head that is not the map expected.
        DeviceError: the device is not there.
    """
    device = pick_device(choice.device)
    quiet()
    base = base_of(choice.path)
    config = read_config(base, choice.trust_remote_code)
    dtype = dtype_of(choice.dtype, config, device)
    model = read_weights(base, config, dtype, choice.trust_remote_code)
    if base != choice.path:
        model = with_adapter(model, choice.path)
    model = model.to(device).eval().requires_grad_(False)
    own = (Path(choice.path) / "tokenizer.json").is_file()
    tokenizer = read_tokenizer(choice.path if own else base, choice.trust_remote_code)
    head = _head(model, config)
    _check_head(model, head, choice.path)
    return LanguageModel(
        path=str(Path(choice.path).resolve()) if Path(choice.path).is_dir() else choice.path,
        trunk=model.base_model,
        head=head,
        tokenizer=tokenizer,
        prefix=prefix_of(tokenizer),
        fingerprint={
            "model": weights_digest(base, choice.path, computation(config)),
            "tokenizer": tokenizer_digest(tokenizer),
        },
        memory={"weights": _bytes(model), "activations": _activation_bytes(config, dtype)},
        device=device,
    )


def whole(choice: ModelChoice) -> HfModel:
    """The model itself, with its weights, free to be trained; in float32 unless asked otherwise.

    Raises:
        ModelError: see :func:`load`.
    """
    quiet()
    config = read_config(choice.path, choice.trust_remote_code)
    return read_weights(
        choice.path, config, dtype_of(choice.dtype, config, torch.device("cpu")), choice.trust_remote_code
    )


def untrained(path: str, seed: int, trust_remote_code: bool = False) -> HfModel:
    """A model of a folder's config with weights drawn from a seed, in float32.

    Raises:
        ModelError: no config of a causal LM is there.
    """
    from transformers import AutoModelForCausalLM

    quiet()
    config, auto = read_config(path, trust_remote_code), cast(Any, AutoModelForCausalLM)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return auto.from_config(config, trust_remote_code=trust_remote_code).float()


def load_untrained(path: str, trust_remote_code: bool = False) -> LanguageModel:
    """A folder's config and tokenizer as a model to read texts with, its weights random: for tokens alone.

    Raises:
        ModelError: no config, or no fast tokenizer.
    """
    model = untrained(path, 0, trust_remote_code).eval().requires_grad_(False)
    tokenizer = read_tokenizer(path, trust_remote_code)
    return LanguageModel(
        path=str(Path(path).resolve()),
        trunk=model.base_model,
        head=_head(model, model.config),
        tokenizer=tokenizer,
        prefix=prefix_of(tokenizer),
        fingerprint={"model": config_digest(path, weights=False), "tokenizer": tokenizer_digest(tokenizer)},
        memory={"weights": _bytes(model), "activations": _activation_bytes(model.config, torch.float32)},
        device=torch.device("cpu"),
    )


def model_shape_of(path: str) -> ModelShape:
    """What a folder's config says of a model, adapters included: no weight is read or made.

    Raises:
        ModelError: no config of a causal LM is there.
    """
    from transformers import AutoModelForCausalLM

    quiet()
    config, auto = read_config(base_of(path), False), cast(Any, AutoModelForCausalLM)
    with torch.device("meta"):
        model = auto.from_config(config)
    return _head(model, config).model_shape


def config_digest(path: str, *, weights: bool) -> str:
    """What decides a model's computation: its config, and where they are used its weights."""
    config = computation(read_config(path, False))
    return weights_digest(path, path, config) if weights else hashlib.sha256(config.encode()).hexdigest()[:32]


def _head(model: HfModel, config: HfConfig) -> LinearHead:
    output = model.get_output_embeddings()
    if output is None or not hasattr(output, "weight"):
        raise ModelError(f"{type(model).__name__} has no linear language-model head")
    text = config.get_text_config()
    context = getattr(text, "max_position_embeddings", None) or getattr(text, "n_positions", None) or 2048
    layers = int(getattr(text, "num_hidden_layers", 0))
    linear_layers = tuple(one for _, one in linear_layers_of(model.base_model).values())
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
    """Refuse a head that does not give the model's own logits from the trunk's output, and a trunk that looks ahead."""
    length = min(8, head.model_shape.max_length)
    ids = torch.arange(2 * length, device=head.weight.device).reshape(2, length) % head.model_shape.vocabulary
    with torch.inference_mode():
        own = model(input_ids=ids, use_cache=False).logits.float()
        hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
        early = model.base_model(input_ids=ids[:, : (length + 1) // 2], use_cache=False).last_hidden_state
        if hidden.shape[-1] != head.model_shape.hidden:
            raise ModelError(
                f"{path}: the trunk's width {hidden.shape[-1]} is not the head's {head.model_shape.hidden}"
            )
        ours = head.logits(hidden)
    if not torch.isfinite(own).all():
        return  # the first batch will name the example
    tolerance = _TOLERANCE[head.weight.dtype]
    if float((hidden[:, : early.shape[1]] - early).abs().mean()) > tolerance * float(hidden.abs().mean()):
        raise ModelError(f"{path} reads what follows a token; headwater reads causal language models")
    spread = float(own.abs().max()) or 1.0
    apart = float((own - ours).abs().max())
    if not apart <= tolerance * spread:
        raise ModelError(f"{path}: its logits are not W h + b with the scale and soft-cap of its config (they differ by "
                         f"{apart:.3g} of {spread:.3g}); the head of {type(model).__name__} is not supported")  # fmt: skip


def _bytes(model: HfModel) -> int:
    return sum(p.numel() * p.element_size() for p in {id(p): p for p in model.parameters()}.values())


def _activation_bytes(config: HfConfig, dtype: torch.dtype) -> int:
    """Bytes per padded token of a forward pass that keeps nothing: one layer's widest tensors and the residual stream."""
    text = config.get_text_config()
    hidden = int(getattr(text, "hidden_size", 0) or getattr(text, "n_embd", 0))
    inner = int(getattr(text, "intermediate_size", 0) or getattr(text, "n_inner", 0) or 4 * hidden)
    return (10 * hidden + 4 * inner) * max(4, dtype.itemsize)
