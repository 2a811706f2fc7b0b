"""Reads a model's files safely: config, weights, adapter, tokenizer. Knows no head, no method and no store.

Weights come from safetensors alone (no pickle is ever read), code that ships with a model runs only when asked for, and
weights that are missing are an error instead of random numbers.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import torch

from ...store.errors import ModelError
from .transformers_types import HfConfig, HfModel, HfTokenizer

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_NO_COMPUTATION = {"_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version", "use_cache"}


def quiet() -> None:
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


def base_of(path: str) -> str:
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


def read_config(path: str, remote_code: bool) -> HfConfig:
    """The config of a causal language model.

    Raises:
        ModelError: there is none, or it is of another kind of model, or brings code of its own.
    """
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


def dtype_of(name: str, config: HfConfig, device: torch.device) -> torch.dtype:
    """The dtype by its name; auto is float32 on a CPU, elsewhere the checkpoint's own."""
    if name != "auto":
        if name not in _DTYPES:
            raise ModelError(f"no dtype {name}; there are auto, {', '.join(_DTYPES)}")
        return _DTYPES[name]
    if device.type == "cpu":  # half precision is several times slower than float32 on most CPUs
        return torch.float32
    own = getattr(config, "dtype", None)
    return own if isinstance(own, torch.dtype) else torch.bfloat16


def read_weights(path: str, config: HfConfig, dtype: torch.dtype, remote_code: bool) -> HfModel:
    """The model with its weights, from safetensors alone.

    Raises:
        ModelError: no safetensors, weights that are missing, or what does not load.
    """
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


def with_adapter(model: HfModel, path: str) -> HfModel:
    """The model with a LoRA adapter merged in.

    Raises:
        ModelError: peft is not installed, or the adapter does not load.
    """
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


def read_tokenizer(path: str, remote_code: bool) -> HfTokenizer:
    """The tokenizer, a fast one: it tells where each token stands.

    Raises:
        ModelError: there is none, or it brings code of its own.
    """
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


def prefix_of(tokenizer: HfTokenizer) -> tuple[int, ...]:
    """Tokens that a tokenizer puts before every text: the begin-of-text token, or nothing."""
    ids = tokenizer("", add_special_tokens=True)["input_ids"]
    return tuple(ids[:1]) if ids and ids[0] == tokenizer.bos_token_id else ()


def computation(config: HfConfig) -> str:
    """What of the config decides what the weights compute: all that differs from its class's defaults but names and dtype."""
    told = {key: value for key, value in config.to_diff_dict().items() if key not in _NO_COMPUTATION}
    return f"{config.model_type} {json.dumps(told, sort_keys=True, default=str)}"
