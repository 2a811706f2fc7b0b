"""The fingerprint of a model in memory: that of the files it was loaded from, or of those that `save_pretrained` would write.

Knows no tokenizer, no head, no store.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch

from ...store.errors import ModelError
from .fingerprint import (
    FileTensor,
    file_tensors,
    folder_samples,
    sample,
    sampled_ranges,
    samples_digest,
    scaling,
    weights_digest,
)
from .hub_copy import cached_copy
from .model_files import computation_settings, read_config
from .transformers_types import HfClass, HfConfig, HfModel

_DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
    torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2",
}  # fmt: skip
"""Names of dtypes in safetensors files."""
_BY_NAME = {name: dtype for dtype, name in _DTYPES.items()}


def model_digest(model: HfModel) -> tuple[str, str]:
    """(path, digest) of a model in memory.

    If the folder or hub id that the model was loaded from has the same weights and settings, then these are its path and its
    digest, even if the object has another dtype than the files. Otherwise the path is "", and the digest is that of the files
    that `save_pretrained` would write now. As for files, 16 samples of 4 KiB of each tensor are compared or hashed: a change
    that touches none of these bytes is not noticed.

    Raises:
        ModelError: a tensor has no counterpart in safetensors.
    """
    state, computation = saved_tensors(model), computation_settings(as_saved(model.config))
    source = str(getattr(model.config, "_name_or_path", "") or "")
    if source and _is_same(source, state, computation):
        files = str(_files_of(source))
        path = str(Path(source).resolve()) if Path(source).is_dir() else source
        return path, weights_digest(files, files, computation)
    return "", samples_digest(((name, tensor_sample(name, tensor)) for name, tensor in state.items()), computation)


def memory_digest(model: HfModel) -> str:
    """A digest of 16 samples of 4 KiB of each tensor of a model in memory, as it is now."""
    return samples_digest(((name, tensor_sample(name, tensor)) for name, tensor in saved_tensors(model).items()), "")


def adapter_digest(adapted: HfModel) -> str:
    """The digest of an adapter of peft in memory, with its base model: that of the folder which `save_pretrained` would write.

    It is "" if the adapter's base model differs from the folder or hub id that its config names, if several adapters are active
    or if one is merged already: then the merged weights are the model.
    """
    from peft import get_peft_model_state_dict
    from peft.tuners.tuners_utils import BaseTunerLayer

    names, model = list(adapted.active_adapters), adapted.get_base_model()
    config = adapted.peft_config[names[0]] if len(names) == 1 else None
    source, computation = (
        str(getattr(config, "base_model_name_or_path", "") or ""),
        computation_settings(as_saved(model.config)),
    )
    if config is None or not source or not _is_same(source, _base_tensors(adapted, names[0]), computation):
        return ""
    layer: HfClass = BaseTunerLayer
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ends = (model.get_input_embeddings(), model.get_output_embeddings())
        adapter = get_peft_model_state_dict(
            adapted, adapter_name=names[0], save_embedding_layers=any(isinstance(end, layer) for end in ends)
        )
    samples = [(name, tensor_sample(name, tensor)) for name, tensor in adapter.items()]
    return samples_digest([*folder_samples(_files_of(source)), *samples], computation, scaling(config.to_dict()))


def _base_tensors(adapted: HfModel, adapter: str) -> dict[str, torch.Tensor]:
    """The tensors of an adapter's base model, by their names before the adapter was added."""
    from peft.mapping import PEFT_TYPE_TO_PREFIX_MAPPING

    prefix = PEFT_TYPE_TO_PREFIX_MAPPING.get(adapted.peft_config[adapter].peft_type, "lora_")
    return {
        name.replace(".base_layer.", ".").replace(".original_module.", "."): tensor
        for name, tensor in adapted.get_base_model().state_dict().items()
        if f".{prefix}" not in name and ".modules_to_save." not in name
    }


def saved_tensors(model: HfModel) -> dict[str, torch.Tensor]:
    """The tensors that `save_pretrained` would write, by the names that it would give them; tied ones once."""
    from transformers import core_model_loading, modeling_utils

    state = {name: tensor for name, tensor in model.state_dict().items() if isinstance(tensor, torch.Tensor)}
    for name in getattr(model, "_keys_to_ignore_on_save", None) or ():
        state.pop(name, None)
    saving: HfClass = modeling_utils
    loading: HfClass = core_model_loading
    untied = saving.remove_tied_weights_from_state_dict(state, model)
    try:
        named: dict[str, torch.Tensor] = loading.revert_weight_conversion(model, untied)
    except NotImplementedError:  # of a quantised checkpoint, whose files have these names
        return dict(untied)
    return named


def as_saved(config: HfConfig) -> HfConfig:
    """A config as it is after saving and loading, which drops values that files do not hold."""
    return type(config).from_dict(json.loads(config.to_json_string(use_diff=True)))


def tensor_sample(name: str, tensor: torch.Tensor) -> bytes:
    """What enters the hash of a tensor: the same as if it were in a safetensors file.

    Raises:
        ModelError: safetensors has no such dtype.
    """
    if tensor.dtype not in _DTYPES:
        raise ModelError(f"the model's weight {name} is of dtype {tensor.dtype}, which headwater does not read")
    item, flat = tensor.element_size(), tensor.detach().reshape(-1)
    parts = []
    for start, stop in sampled_ranges(flat.numel() * item):
        first = start // item
        elements = flat[first : -(-stop // item)].cpu().contiguous()
        parts.append(elements.view(torch.uint8).numpy().tobytes()[start - first * item :][: stop - start])
    return sample(_DTYPES[tensor.dtype], tensor.shape, parts)


def _files_of(source: str) -> Path:
    """The folder that a model's config names, or the copy of a hub id in the cache."""
    folder = Path(source) if Path(source).is_dir() else cached_copy(source)
    if folder is None:
        raise ModelError(f"{source} is not on this machine")
    return folder


def _is_same(source: str, state: Mapping[str, torch.Tensor], computation: str) -> bool:
    """Whether the files of a folder or of a hub id that is in the cache hold these tensors, at all sampled places."""
    try:
        folder = _files_of(source)
        stored, settings = list(file_tensors(folder)), computation_settings(read_config(str(folder), False))
    except Exception:  # whatever is wrong with that folder, it is not this model
        return False
    if not state or settings != computation:
        return False
    by_name: dict[str, list[FileTensor]] = {}
    for name, in_file in stored:
        by_name.setdefault(name, []).append(in_file)
    equal = {name for name, tensor in state.items() if any(_equal(part, tensor) for part in by_name.get(name, ()))}
    known = {state[name].data_ptr() for name in equal}  # a tied weight is written once
    return all(name in equal or tensor.data_ptr() in known for name, tensor in state.items())


def _equal(stored: FileTensor, tensor: torch.Tensor) -> bool:
    """Whether a tensor equals one in a file that is cast to its dtype, at the sampled places."""
    dtype = _BY_NAME.get(stored.dtype)
    if dtype is None or tuple(tensor.shape) != stored.shape:
        return False
    flat, item = tensor.detach().reshape(-1), dtype.itemsize
    for start, stop in sampled_ranges(stored.end - stored.begin):
        first, last = start // item, -(-stop // item)
        if first == last:
            continue
        elements = torch.frombuffer(bytearray(stored.read(first * item, last * item)), dtype=dtype).to(tensor.dtype)
        if not torch.equal(elements.view(torch.uint8), flat[first:last].cpu().contiguous().view(torch.uint8)):
            return False
    return True
