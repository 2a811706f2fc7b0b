"""Merges a LoRA adapter into its base model, and checks that the merged model computes what the adapter does. Knows no head, no
method and no store.
"""

from __future__ import annotations

import copy
import json
import warnings
from pathlib import Path

import torch

from ...store.errors import ModelError
from .third_party_errors import one_line
from .transformers_types import HfClass, HfModel

_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 2e-2}
"""Largest difference of merged and unmerged logits, as a part of the largest logit: merged weights are rounded again."""
_TOKENS = 8  # of each of the two sequences on which both are compared


def base_model_of(path: str) -> str:
    """Path of the base model of an adapter; the path itself if it is not an adapter."""
    adapter = Path(path) / "adapter_config.json"
    if not adapter.is_file():
        return path
    try:
        base = json.loads(adapter.read_text())["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        base = None
    if not isinstance(base, str) or base == path:
        raise ModelError(f"{adapter} does not name the model that it adapts: set base_model_name_or_path")
    return base


def with_adapter(model: HfModel, path: str) -> HfModel:
    """Merge a LoRA adapter into the model.

    A head that shares its weights with the embedding gets its own copy if the adapter changes one of them, since peft's adapter
    then changes only that one.

    Raises:
        ModelError: peft is not installed, the adapter does not load, or the merged model computes something else.
    """
    try:
        from peft import PeftModel
    except ImportError:
        raise ModelError(f"{path} is a LoRA adapter: pip install 'headwater[lora]' to read it") from None
    if not (Path(path) / "adapter_model.safetensors").is_file():
        raise ModelError(f"{path} has no adapter_model.safetensors: save the adapter with save_pretrained")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            adapted: HfModel = PeftModel.from_pretrained(model, path, use_safetensors=True)
    except Exception as error:  # peft raises many kinds of exceptions
        raise ModelError(f"{path} does not load as a LoRA adapter: {_reason(error)}") from None
    return merged(adapted, path)


def merged(adapted: HfModel, path: str) -> HfModel:
    """The base model of a model of peft, into which its adapter is merged; its weights change in place.

    `path` names the adapter in errors.

    Raises:
        ModelError: the adapter cannot be merged, or the merged model computes something else.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    wrappers: tuple[HfClass, HfClass] = (BaseTunerLayer, AuxiliaryTrainingWrapper)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            logits, model = _logits(adapted.eval()), adapted.get_base_model()
            if any(isinstance(end, wrappers) for end in (model.get_input_embeddings(), model.get_output_embeddings())):
                _untie(model)
            whole: HfModel = adapted.merge_and_unload().eval()
    except Exception as error:  # peft raises many kinds of exceptions
        raise ModelError(f"{path} does not load as a LoRA adapter: {_reason(error)}") from None
    difference, largest = float((_logits(whole) - logits).abs().max()), float(logits.abs().max())
    if difference > _TOLERANCE.get(whole.dtype, 0.1) * largest:
        raise ModelError(
            f"{path}: the adapter gives other logits when it is merged (they differ by {difference:.3g} of {largest:.3g}): merge "
            "it yourself, check the result, save it with save_pretrained, and give that folder"
        )
    return whole


def _reason(error: Exception) -> str:
    if "size mismatch" in str(error):
        return (
            "a size differs from the base model's, as after resize_token_embeddings: merge the adapter into the model that it "
            "was trained on (merge_and_unload), save this with save_pretrained, and give that folder"
        )
    return one_line(error)


def _logits(model: HfModel) -> torch.Tensor:
    """(2, _TOKENS, V) float32 logits of token ids that are spread over the vocabulary."""
    rows = min(model.get_input_embeddings().weight.shape[0], model.config.get_text_config().vocab_size)
    ids = torch.linspace(0, rows - 1, 2 * _TOKENS, device=model.device).long().reshape(2, _TOKENS)
    with torch.inference_mode():
        logits: torch.Tensor = model(input_ids=ids, use_cache=False).logits
        return logits.float()


def _untie(model: HfModel) -> None:
    """Give each module of a model its own copy of a weight that it shares with another module."""
    model.config = copy.deepcopy(model.config)  # the trunk's config, and the fingerprint, stay as they are
    model.config.tie_word_embeddings = False
    owners = dict[int, torch.nn.Module]()
    for module in model.modules():
        weight = getattr(module, "_parameters", {}).get("weight")
        if weight is not None and owners.setdefault(id(weight), module) is not module:
            module.weight = torch.nn.Parameter(weight.detach().clone(), requires_grad=False)
