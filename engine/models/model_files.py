"""Reads a model's files safely: config, weights, tokenizer. Knows no head, no method and no store.

Weights are read from safetensors and GGUF files only (no pickle is ever loaded), code that ships with a model runs only if it is
allowed, and missing weights are an error instead of random numbers.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import torch

from ...store.errors import ModelError
from .gguf_files import dequantised, is_gguf, location, require_gguf
from .hub_copy import missing_files
from .quantised import quantisation_of, silence_kernels
from .third_party_errors import one_line
from .tokenizer_check import checked_tokenizer, tokenizer_file
from .transformers_types import HfClass, HfConfig, HfModel, HfTokenizer

_LFS = b"version https://git-lfs"
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# keys of a config that do not change what the weights compute
_NOT_COMPUTED_WITH = {"_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version", "use_cache"}


def silence_libraries() -> None:
    """Silence the log messages of transformers and huggingface_hub; errors that matter are raised as our own."""
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging

    hub_verbosity: HfClass = hub_logging
    hub_verbosity.set_verbosity_error()
    silence_kernels()

    verbosity: HfClass = logging
    verbosity.set_verbosity_error()
    verbosity.disable_progress_bar()


def read_config(path: str, remote_code: bool) -> HfConfig:
    """The config of a causal language model.

    Raises:
        ModelError: there is none, or it is not a causal language model, or it needs code of its own that is not allowed to run.
    """
    from transformers import AutoConfig

    folder = Path(path)
    require_gguf(path)
    if folder.is_dir() and not (folder / "config.json").is_file():
        files = sorted(file.name for file in folder.glob("*.gguf"))
        hint = f"name the file, {folder / files[0]}" if files else "give a Hugging Face model folder or hub id"
        raise ModelError(f"{path} is not a model folder (it has no config.json)", hint=hint)
    if folder.is_file() and not is_gguf(path):
        raise ModelError(f"{path} is a file", hint="give a Hugging Face model folder, a hub id or a GGUF file")
    place, further = location(path)
    try:
        config = AutoConfig.from_pretrained(place, trust_remote_code=remote_code, **further)
    except Exception as error:  # transformers raises many kinds of exceptions for a config that it does not take
        if "trust_remote_code" in str(error):
            raise ModelError(f"{path} needs Python code of its own: --trust-remote-code allows it to run") from None
        raise ModelError(f"{path} has no config that loads: {one_line(error)}") from None
    names = getattr(config, "architectures", None) or []
    if names and not any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in names):
        raise ModelError(f"{path} is a {', '.join(names)}; headwater supports causal language models only")
    return config


def dtype_of(
    name: str,
    config: HfConfig,
    device: torch.device,
) -> torch.dtype:
    """The torch dtype of a name; auto is float32 on a CPU, and the checkpoint's own dtype on other devices and for
    quantised checkpoints.
    """
    if name != "auto":
        if name not in _DTYPES:
            raise ModelError(f"no dtype {name}; there are auto, {', '.join(_DTYPES)}: choose one with --dtype")
        return _DTYPES[name]
    if device.type == "cpu" and not quantisation_of(
        config
    ):  # half precision is several times slower than float32 on most CPUs
        return torch.float32
    checkpoint_dtype = getattr(config, "dtype", None)
    return checkpoint_dtype if isinstance(checkpoint_dtype, torch.dtype) else torch.bfloat16


def read_weights(
    path: str, config: HfConfig, dtype: torch.dtype, remote_code: bool, device: torch.device | None = None
) -> HfModel:
    """Load the model with its weights, from safetensors or a GGUF file only.

    `device`: where quantised weights are put, which cannot be moved later; others are put into the CPU's memory.

    Raises:
        ModelError: there is no safetensors file, weights are missing, or the checkpoint does not load.
    """
    from transformers import AutoModelForCausalLM

    folder, (place, which), kind = Path(path), location(path), quantisation_of(config)
    if folder.is_dir() and not list(folder.glob("*.safetensors")):
        pickled = sorted(p.name for p in folder.iterdir() if p.suffix in (".bin", ".pt", ".pth", ".ckpt"))
        if pickled:
            raise ModelError(f"{path} has its weights in {pickled[0]}, a pickle, which can run code when read: "
                             "save the model again with safe_serialization=True")  # fmt: skip
        raise ModelError(f"{path} has no weights: no *.safetensors is there; save the model with save_pretrained")
    _require_whole(folder)
    try:
        with warnings.catch_warnings(), dequantised(path) as further:
            warnings.simplefilter("ignore")
            auto: HfClass = AutoModelForCausalLM
            model, loading_info = auto.from_pretrained(
                place, config=config, dtype=dtype, use_safetensors=True, trust_remote_code=remote_code,
                output_loading_info=True, **which, **further, **({"device_map": {"": device}} if kind and device else {}),
            )  # fmt: skip
    except Exception as error:  # transformers raises many kinds of exceptions for a damaged or foreign checkpoint
        if kind and isinstance(error, ImportError):
            raise ModelError(
                f"{path} is quantised ({kind}), and what loads it is not installed: {one_line(error)}"
            ) from None
        raise ModelError(f"{path} does not load as a causal language model: {one_line(error)}") from None
    missing = sorted(loading_info["missing_keys"])
    if missing:
        raise ModelError(
            f"{path} lacks {len(missing)} of its weights, among them {missing[0]}; save the full model again"
        )
    return model


def _require_whole(folder: Path) -> None:
    """Raise ModelError if a model's folder was downloaded in part: a file of weights is absent, or only a pointer."""
    if not folder.is_dir():
        return
    missing = [] if (folder / "adapter_config.json").exists() else missing_files(folder, weights=True)
    if missing:
        raise ModelError(f"{folder} lacks {missing[0]}: download the model again, or save it with save_pretrained")
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as handle:
            if handle.read(len(_LFS)) == _LFS:
                raise ModelError(f"{file} is a pointer of Git LFS instead of weights: run git lfs pull in its folder")


def read_tokenizer(path: str, remote_code: bool) -> HfTokenizer:
    """Load the tokenizer, which must be a fast one: only these report the text span of each token.

    Raises:
        ModelError: there is none, it is not a fast one, it needs code of its own that is not allowed to run, or it gives other
            tokens than its `tokenizer.json`.
    """
    from transformers import AutoTokenizer

    try:
        place, further = location(path)
        tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=remote_code, **further)
        tokenizer("a")  # settings of a wrong type fail only here
    except Exception as error:  # transformers raises many kinds of exceptions
        if "trust_remote_code" in str(error):
            raise ModelError(f"{path} needs tokenizer code of its own: --trust-remote-code allows it to run") from None
        if Path(path).is_dir() and tokenizer_file(path) is None:
            raise ModelError(
                f"{path} has no tokenizer (no tokenizer.json): save there, with save_pretrained, the one that the model was "
                "trained with"
            ) from None
        raise ModelError(f"{path} has no tokenizer that loads: {one_line(error)}") from None
    if not tokenizer.is_fast:
        raise ModelError(
            f"{path} has no fast tokenizer (tokenizer.json), which reports the text span of each token: save one there"
        )
    return checked_tokenizer(tokenizer, path)


def prefix_tokens(tokenizer: HfTokenizer) -> tuple[int, ...]:
    """Token ids that a tokenizer adds before every text: the begin-of-text token, or none."""
    ids = tokenizer("", add_special_tokens=True)["input_ids"]
    return tuple(ids[:1]) if ids and ids[0] == tokenizer.bos_token_id else ()


def end_tokens(model: HfModel) -> tuple[int, ...]:
    """Ids of the tokens that end an answer, as the settings of generation and the config of a causal LM name them."""
    configs = getattr(model, "generation_config", None), model.config.get_text_config()
    named = [getattr(config, "eos_token_id", None) for config in configs]
    ids = [token for ends in named for token in (ends if isinstance(ends, list) else [ends]) if token is not None]
    return tuple(dict.fromkeys(ids))


def computation_settings(config: HfConfig) -> str:
    """The part of a config that decides what the weights compute: non-default values, without names and dtype."""
    settings = {key: value for key, value in config.to_diff_dict().items() if key not in _NOT_COMPUTED_WITH}
    return f"{config.model_type} {json.dumps(settings, sort_keys=True, default=str)}"
