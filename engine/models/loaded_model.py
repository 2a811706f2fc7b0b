"""Language models that a user has in memory: a causal LM of transformers, or one with a PEFT adapter, and its tokenizer.

The user's object stays as it is: its device, its training mode, its hooks and which of its weights require gradients. headwater
computes with copies of its modules that share the weights and are always in evaluation mode; `is_unchanged` of the result
says whether the weights are still the same, so a model that is trained further must be given again. Quantised weights are
copied, and those of a model of peft, whose adapter is merged into the copy. With `tokenizer` None it is read from the folder
that the model was loaded from.

The fingerprint is that of the folder or hub id that the model was loaded from, if the weights are the same there, or else
that of the files that `save_pretrained` would write: see :func:`model_digest` and :func:`adapter_digest`, also for what they
do not notice.

Knows no method, no corpus, no store.
"""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import torch

from ...store.errors import DeviceError, ModelError
from .adapters import merged
from .batch_outputs import LinearHead
from .fingerprint import tokenizer_digest
from .language_model import LanguageModel, pick_device
from .model_files import end_tokens, prefix_tokens, read_tokenizer, silence_libraries
from .output_head import activation_bytes, check_head, output_head, weight_bytes
from .quantised import note_on, quantisation_of
from .tensor_digest import adapter_digest, memory_digest, model_digest
from .third_party_errors import one_line
from .tokenizer_check import checked_tokenizer, differing_text, tokenizer_file
from .transformers_types import HfModel, HfTokenizer

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def from_objects(model: HfModel, tokenizer: HfTokenizer = None, device: str = "auto") -> LanguageModel:
    """A causal LM of transformers that is in memory, with its fast tokenizer, as headwater reads models.

    Raises:
        ModelError: the object is no causal LM of transformers with a linear head in float32, bfloat16 or float16; its weights lie
            on several devices; or there is no fast tokenizer.
        DeviceError: `device` is not where the model is.
    """
    silence_libraries()
    adapted = _is_adapted(model)
    _require_model(model.get_base_model() if adapted else model)
    place = _place(model, device)
    tokenizer = _tokenizer(model, tokenizer)
    path, digest = ("", adapter_digest(model)) if adapted else model_digest(model)
    own = merged(_copied(model, {}), "the adapter in memory").requires_grad_(False) if adapted else shared_copy(model)
    if not digest:
        path, digest = model_digest(own)
    head, kind = _checked_head(own), quantisation_of(own.config)
    sampled = "" if adapted or kind else memory_digest(own)  # only then the weights are shared with the user's object
    return LanguageModel(
        path=path,
        trunk=own.base_model,
        head=head,
        tokenizer=tokenizer,
        prefix=prefix_tokens(tokenizer),
        fingerprint={"model": digest, "tokenizer": tokenizer_digest(tokenizer)},
        memory={"weights": weight_bytes(own), "activations": activation_bytes(own.config, head.weight.dtype)},
        device=place,
        notes=(note_on(kind, head),) if kind else (),
        is_unchanged=lambda: not sampled or memory_digest(own) == sampled,
        ends=end_tokens(model),
    )


def _checked_head(model: HfModel) -> LinearHead:
    """The head of a model in memory, which gives the model's own logits in a dtype that headwater computes in."""
    head, name = output_head(model, model.config), f"the {type(model).__name__} in memory"
    if head.weight.dtype not in _DTYPES:
        dtype = str(head.weight.dtype).removeprefix("torch.")
        raise ModelError(f"{name} has a head in {dtype}: use float32, bfloat16 or float16")
    try:
        check_head(model, head, name, quantised=bool(quantisation_of(model.config)))
    except (RuntimeError, ValueError, TypeError, AttributeError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"{name} does not run as a causal language model: {one_line(error)}") from None
    return head


def shared_copy(model: HfModel) -> HfModel:
    """Copies of a model's modules that share its weights, in evaluation mode and without gradients of weights.

    Quantised weights are copied, since their libraries pack them in another way at the first product.

    Raises:
        ModelError: a module cannot be copied.
    """
    if quantisation_of(model.config):
        return _copied(model, {}).eval().requires_grad_(False)
    shared: dict[int, object] = {id(buffer): buffer for buffer in model.buffers()}
    for weight in model.parameters():
        shared[id(weight)] = torch.nn.Parameter(weight.detach(), requires_grad=False)
    return _copied(model, shared).eval()


def _copied(model: HfModel, shared: dict[int, object]) -> HfModel:
    """A deep copy, except of objects whose replacement is given by their id."""
    try:
        return copy.deepcopy(model, shared)
    except Exception as error:  # an attribute of any kind
        raise ModelError(f"the {type(model).__name__} in memory cannot be copied: {one_line(error)}") from None


def _is_adapted(model: HfModel) -> bool:
    """Whether a model is one of peft, which is imported already if it is."""
    peft = sys.modules.get("peft")
    return peft is not None and isinstance(model, peft.PeftModel)


def _require_model(model: HfModel) -> None:
    from transformers import PreTrainedModel

    if not isinstance(model, PreTrainedModel):
        raise ModelError(
            f"a {type(model).__name__} is not a model of transformers: give the causal LM itself, such as "
            "AutoModelForCausalLM.from_pretrained(…), not a wrapper of it"
        )
    if getattr(model, "_hf_peft_config_loaded", False):
        raise ModelError(
            "the model in memory has an adapter that transformers added: give peft.PeftModel.from_pretrained(base, adapter)"
        )


def _place(model: HfModel, device: str) -> torch.device:
    """The device of all weights, which must be the one asked for."""
    places = sorted({str(weight.device) for weight in model.parameters()})
    if len(places) != 1 or places == ["meta"]:
        raise ModelError(
            f"the weights of the model in memory are on {', '.join(places)}: load it whole onto one device"
        )
    own = torch.device(places[0])
    if device != "auto" and pick_device(device).type != own.type:
        raise DeviceError(f"the model in memory is on {own}, not on {device}: move it there, or leave the device out")
    return own


def _tokenizer(model: HfModel, tokenizer: HfTokenizer) -> HfTokenizer:
    if tokenizer is None:
        source = str(getattr(model.config, "_name_or_path", "") or "")
        if not source or not Path(source).is_dir():
            raise ModelError(
                "a model in memory needs its tokenizer: pass the one that AutoTokenizer.from_pretrained gives"
            )
        return read_tokenizer(source, False)
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(
            f"the {type(tokenizer).__name__} in memory is not a fast tokenizer, which reports the text span of each token: pass "
            "the one that AutoTokenizer.from_pretrained gives"
        )
    return _as_read(tokenizer)


def _as_read(tokenizer: HfTokenizer) -> HfTokenizer:
    """A tokenizer in memory; or the one that headwater reads in its folder, if it is what transformers loads there, and the
    folder's `tokenizer.json` gives other tokens.
    """
    from transformers import AutoTokenizer

    source = str(getattr(tokenizer, "name_or_path", "") or "")
    file = tokenizer_file(source) if source else None
    if file is None or differing_text(tokenizer, file) is None:
        return tokenizer
    unchanged = tokenizer_digest(AutoTokenizer.from_pretrained(source)) == tokenizer_digest(tokenizer)
    return checked_tokenizer(tokenizer, source) if unchanged else tokenizer
