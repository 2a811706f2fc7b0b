"""Loading a causal language model and its tokenizer: safely, with its head taken apart and checked, with fingerprints.

Weights come from safetensors alone (no pickle is ever read), code that ships with a model runs only when asked for, and
weights that are missing are an error instead of random numbers. Knows no method, no corpus, no store.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from ...store.errors import DeviceError, ModelError
from ..method import Sizes
from .backward import linear_maps
from .fingerprint import tokenizer_digest, weights_digest
from .readout import LinearHead

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_NO_COMPUTATION = {"_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version", "use_cache"}
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
    trunk: Any
    """token ids → last hidden state, final norm included."""
    head: LinearHead
    tokenizer: Any
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
    _quiet()
    base = _base(choice.path)
    config = _config(base, choice.trust_remote_code)
    dtype = _dtype(choice.dtype, config, device)
    model = _weights(base, config, dtype, choice.trust_remote_code)
    if base != choice.path:
        model = _with_adapter(model, choice.path)
    model = model.to(device).eval().requires_grad_(False)
    own = (Path(choice.path) / "tokenizer.json").is_file()
    tokenizer = _tokenizer(choice.path if own else base, choice.trust_remote_code)
    head = _head(model, config)
    _check_head(model, head, choice.path)
    return LanguageModel(
        path=str(Path(choice.path).resolve()) if Path(choice.path).is_dir() else choice.path,
        trunk=model.base_model,
        head=head,
        tokenizer=tokenizer,
        prefix=_prefix(tokenizer),
        fingerprint={
            "model": weights_digest(base, choice.path, _computation(config)),
            "tokenizer": tokenizer_digest(tokenizer),
        },
        memory={"weights": _bytes(model), "activations": _activation_bytes(config, dtype)},
        device=device,
    )


def whole(choice: ModelChoice) -> Any:
    """The model itself, with its weights, free to be trained; in float32 unless asked otherwise.

    Raises:
        ModelError: see :func:`load`.
    """
    _quiet()
    config = _config(choice.path, choice.trust_remote_code)
    return _weights(choice.path, config, _dtype(choice.dtype, config, torch.device("cpu")), choice.trust_remote_code)


def untrained(path: str, seed: int, trust_remote_code: bool = False) -> Any:
    """A model of a folder's config with weights drawn from a seed, in float32.

    Raises:
        ModelError: no config of a causal LM is there.
    """
    from transformers import AutoModelForCausalLM

    _quiet()
    config, auto = _config(path, trust_remote_code), cast(Any, AutoModelForCausalLM)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return auto.from_config(config, trust_remote_code=trust_remote_code).float()


def load_untrained(path: str, trust_remote_code: bool = False) -> LanguageModel:
    """A folder's config and tokenizer as a model to read texts with, its weights random: for tokens alone.

    Raises:
        ModelError: no config, or no fast tokenizer.
    """
    model = untrained(path, 0, trust_remote_code).eval().requires_grad_(False)
    tokenizer = _tokenizer(path, trust_remote_code)
    return LanguageModel(
        path=str(Path(path).resolve()),
        trunk=model.base_model,
        head=_head(model, model.config),
        tokenizer=tokenizer,
        prefix=_prefix(tokenizer),
        fingerprint={"model": config_digest(path, weights=False), "tokenizer": tokenizer_digest(tokenizer)},
        memory={"weights": _bytes(model), "activations": _activation_bytes(model.config, torch.float32)},
        device=torch.device("cpu"),
    )


def config_digest(path: str, *, weights: bool) -> str:
    """What decides a model's computation: its config, and where they are used its weights."""
    config = _computation(_config(path, False))
    return weights_digest(path, path, config) if weights else hashlib.sha256(config.encode()).hexdigest()[:32]


def _quiet() -> None:
    """transformers and the hub's client report on stderr by themselves; what matters of it becomes our own errors."""
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging

    hub: Any = hub_logging
    hub.set_verbosity_error()

    verbosity: Any = logging
    verbosity.set_verbosity_error()
    verbosity.disable_progress_bar()


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]


def _base(path: str) -> str:
    """The model that an adapter adapts; a model is its own."""
    adapter = Path(path) / "adapter_config.json"
    if not adapter.is_file():
        return path
    try:
        base = json.loads(adapter.read_text())["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError):
        base = None
    if not isinstance(base, str) or base == path:
        raise ModelError(f"{adapter} does not name the model that it adapts (base_model_name_or_path)")
    return base


def _config(path: str, remote_code: bool) -> Any:
    from transformers import AutoConfig

    folder = Path(path)
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise ModelError(f"{path} is no model folder: it has no config.json")
    if not folder.exists() and (path.startswith((".", "/", "~")) or path.count("/") > 1):
        raise ModelError(f"{path}: no such folder")
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=remote_code)
    except (OSError, ValueError, KeyError) as error:
        if "trust_remote_code" in str(error):
            raise ModelError(f"{path} brings its own code; --trust-remote-code runs it") from None
        raise ModelError(
            f"{path} is neither a model folder nor a model that the hub gave: {_one_line(error)}"
        ) from None
    names = getattr(config, "architectures", None) or []
    if names and not any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in names):
        raise ModelError(f"{path} is a {', '.join(names)}; headwater reads causal language models")
    return config


def _dtype(name: str, config: Any, device: torch.device) -> torch.dtype:
    if name != "auto":
        if name not in _DTYPES:
            raise ModelError(f"no dtype {name}; there are auto, {', '.join(_DTYPES)}")
        return _DTYPES[name]
    if device.type == "cpu":  # half precision is several times slower than float32 on most CPUs
        return torch.float32
    own = getattr(config, "dtype", None)
    return own if isinstance(own, torch.dtype) else torch.bfloat16


def _weights(path: str, config: Any, dtype: torch.dtype, remote_code: bool) -> Any:
    from transformers import AutoModelForCausalLM

    folder = Path(path)
    if folder.is_dir() and not list(folder.glob("*.safetensors")):
        pickled = sorted(p.name for p in folder.iterdir() if p.suffix in (".bin", ".pt", ".pth", ".ckpt"))
        if pickled:
            raise ModelError(f"{path} has its weights in {pickled[0]}, a pickle, which can run code when read: "
                             "save the model again with safe_serialization=True")  # fmt: skip
        raise ModelError(f"{path} has no weights: no *.safetensors is there")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            auto: Any = AutoModelForCausalLM
            model, told = auto.from_pretrained(
                path, config=config, dtype=dtype, use_safetensors=True, trust_remote_code=remote_code,
                output_loading_info=True,
            )  # fmt: skip
    except Exception as error:  # transformers raises a dozen kinds for a damaged or foreign checkpoint
        raise ModelError(f"{path} does not load as a causal language model: {_one_line(error)}") from None
    missing = sorted(told["missing_keys"])
    if missing:
        raise ModelError(f"{path} lacks {len(missing)} of its weights, among them {missing[0]}: they would be random")
    return model


def _with_adapter(model: Any, path: str) -> Any:
    try:
        from peft import PeftModel
    except ImportError:
        raise ModelError(f"{path} is a LoRA adapter: pip install 'headwater[lora]' reads it") from None
    if not (Path(path) / "adapter_model.safetensors").is_file():
        raise ModelError(f"{path} has no adapter_model.safetensors")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return PeftModel.from_pretrained(model, path, use_safetensors=True).merge_and_unload()
    except Exception as error:  # as for weights
        raise ModelError(f"{path} does not load as a LoRA adapter: {_one_line(error)}") from None


def _tokenizer(path: str, remote_code: bool) -> Any:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=remote_code)
    except Exception as error:  # as above
        if "trust_remote_code" in str(error):
            raise ModelError(f"{path} brings its own tokenizer code; --trust-remote-code runs it") from None
        raise ModelError(f"{path} has no tokenizer that loads: {_one_line(error)}") from None
    if not tokenizer.is_fast:
        raise ModelError(
            f"{path} has no fast tokenizer (tokenizer.json), which tells where each token stands in the text"
        )
    return tokenizer


def _prefix(tokenizer: Any) -> tuple[int, ...]:
    ids = tokenizer("", add_special_tokens=True)["input_ids"]
    return tuple(ids[:1]) if ids and ids[0] == tokenizer.bos_token_id else ()


def _head(model: Any, config: Any) -> LinearHead:
    output = model.get_output_embeddings()
    if output is None or not hasattr(output, "weight"):
        raise ModelError(f"{type(model).__name__} has no linear language-model head")
    text = config.get_text_config()
    context = getattr(text, "max_position_embeddings", None) or getattr(text, "n_positions", None) or 2048
    layers = int(getattr(text, "num_hidden_layers", 0))
    linears = tuple(one for _, one in linear_maps(model.base_model).values())
    sizes = Sizes(output.weight.shape[1], output.weight.shape[0], layers, int(context), linears)
    scale = float(getattr(text, "logit_scale", None) or 1.0) / float(getattr(text, "logits_scaling", None) or 1.0)
    softcap = float(getattr(text, "final_logit_softcapping", None) or 0.0)
    return LinearHead(sizes, output.weight.detach(), getattr(output, "bias", None), scale, softcap)


def _check_head(model: Any, head: LinearHead, path: str) -> None:
    """Refuse a head that does not give the model's own logits from the trunk's output, and a trunk that looks ahead."""
    length = min(8, head.sizes.max_length)
    ids = torch.arange(2 * length, device=head.weight.device).reshape(2, length) % head.sizes.vocabulary
    with torch.inference_mode():
        own = model(input_ids=ids, use_cache=False).logits.float()
        hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
        early = model.base_model(input_ids=ids[:, : (length + 1) // 2], use_cache=False).last_hidden_state
        if hidden.shape[-1] != head.sizes.hidden:
            raise ModelError(f"{path}: the trunk's width {hidden.shape[-1]} is not the head's {head.sizes.hidden}")
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


def _computation(config: Any) -> str:
    """What of the config decides what the weights compute: all that differs from its class's defaults but names and dtype."""
    told = {key: value for key, value in config.to_diff_dict().items() if key not in _NO_COMPUTATION}
    return f"{config.model_type} {json.dumps(told, sort_keys=True, default=str)}"


def _bytes(model: Any) -> int:
    return sum(p.numel() * p.element_size() for p in {id(p): p for p in model.parameters()}.values())


def _activation_bytes(config: Any, dtype: torch.dtype) -> int:
    """Bytes per padded token of a forward pass that keeps nothing: one layer's widest tensors and the residual stream."""
    text = config.get_text_config()
    hidden = int(getattr(text, "hidden_size", 0) or getattr(text, "n_embd", 0))
    inner = int(getattr(text, "intermediate_size", 0) or getattr(text, "n_inner", 0) or 4 * hidden)
    return (10 * hidden + 4 * inner) * max(4, dtype.itemsize)
