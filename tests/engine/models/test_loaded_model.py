"""Models in memory: the user's object stays as it is, and stores know it by what its files would be."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from headwater.engine.models.language_model import LanguageModel, ModelChoice, load
from headwater.engine.models.loaded_model import from_objects
from headwater.store.errors import DeviceError, ModelError
from random_models import tiny
from small import save_tokenizer

pytestmark = pytest.mark.usefixtures("one_thread")
IDS = torch.arange(3, 40)[None]


def objects(folder: Path, **more: Any) -> tuple[Any, Any]:
    """Model and tokenizer of a folder, as transformers loads them."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoModelForCausalLM.from_pretrained(folder, **more), AutoTokenizer.from_pretrained(folder)


def saved(folder: Path, model: Any) -> LanguageModel:
    """Save a model and the tests' tokenizer into a folder, and load it from there."""
    model.save_pretrained(folder)
    save_tokenizer(folder)
    return load(ModelChoice(str(folder), device="cpu"))


def logits(model: LanguageModel) -> torch.Tensor:
    """(1, tokens, V) logits of `IDS`."""
    with torch.inference_mode():
        return model.head.logits(model.trunk(input_ids=IDS).last_hidden_state)


KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2, tied": ("GPT2", {}),
    "llama, untied": ("Llama", {"tie_word_embeddings": False}),
    "llama, tied": ("Llama", {"tie_word_embeddings": True}),
    "qwen2, whose class of tokenizers does not follow the file": ("Qwen2", {}),
    "mixtral, whose files name experts": ("Mixtral", {"num_local_experts": 2, "num_experts_per_tok": 1}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_an_object_has_the_fingerprint_of_the_folder_that_it_is_saved_to(kind, model_folder, tmp_path):
    name, more = KINDS[kind]
    tokenizer = objects(model_folder("Llama"))[1]
    model = from_objects(tiny(name, **more), tokenizer)
    loaded = saved(tmp_path / "saved", tiny(name, **more))
    assert model.path == "" and model.fingerprint == loaded.fingerprint
    torch.testing.assert_close(logits(model), logits(loaded))
    assert model.memory["weights"] == loaded.memory["weights"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_unchanged_object_is_the_folder_that_it_was_loaded_from(kind, dtype, model_folder):
    name, more = KINDS[kind]
    folder = model_folder(name, **more)
    model, tokenizer = objects(folder, dtype=dtype)
    ours = from_objects(model, tokenizer)
    assert ours.path == str(folder) and ours.head.weight.dtype == getattr(torch, dtype)
    assert ours.fingerprint == load(ModelChoice(str(folder), device="cpu")).fingerprint
    assert from_objects(model).fingerprint == ours.fingerprint  # the folder's own tokenizer


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_changed_weight_or_setting_makes_another_model(dtype, model_folder, tmp_path):
    folder = model_folder("Llama")
    model, tokenizer = objects(folder, dtype=dtype)
    known = from_objects(model, tokenizer)
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 5] += 0.5
    changed = from_objects(model, tokenizer)
    assert changed.path == "" and changed.fingerprint["model"] != known.fingerprint["model"]
    assert changed.fingerprint == saved(tmp_path / "changed", model).fingerprint
    model, tokenizer = objects(folder, dtype=dtype)
    model.config.rms_norm_eps = 0.5
    assert from_objects(model, tokenizer).path == ""


def test_a_resized_model_is_read_as_it_is(model_folder, tmp_path):
    model, tokenizer = objects(model_folder("GPT2"))
    model.resize_token_embeddings(323)
    ours = from_objects(model, tokenizer)
    assert ours.path == "" and ours.head.model_shape.vocabulary == 323
    assert ours.fingerprint["model"] == saved(tmp_path / "m", model).fingerprint["model"]


def test_the_users_object_stays_as_it_is(model_folder):
    model, tokenizer = objects(model_folder("GPT2"))
    model.train()
    for dropout in (module for module in model.modules() if isinstance(module, torch.nn.Dropout)):
        dropout.p = 0.5
    calls: list[object] = []
    model.lm_head.register_forward_hook(lambda *_: calls.append(_) and None)
    model.transformer.wpe.weight.requires_grad_(False)
    before = {name: (weight.data_ptr(), weight.requires_grad) for name, weight in model.named_parameters()}
    config = json.dumps(model.config.to_dict(), default=str)
    ours = from_objects(model, tokenizer)
    torch.testing.assert_close(logits(ours), logits(ours), rtol=0, atol=0)  # no dropout
    assert all(module.training for module in model.modules())
    assert before == {name: (weight.data_ptr(), weight.requires_grad) for name, weight in model.named_parameters()}
    assert json.dumps(model.config.to_dict(), default=str) == config
    assert not any(weight.requires_grad for weight in ours.trunk.parameters())
    assert ours.trunk.wte.weight.data_ptr() == model.transformer.wte.weight.data_ptr()  # shared, not copied
    loss = model(input_ids=IDS, labels=IDS).loss
    loss.backward()  # trains on as before
    assert model.transformer.wte.weight.grad is not None and ours.trunk.wte.weight.grad is None


def test_what_is_no_model_is_refused_in_one_line(model_folder, tmp_path):
    from transformers import BertConfig, BertForMaskedLM

    model, tokenizer = objects(model_folder("Llama"))
    bert = BertForMaskedLM(BertConfig(vocab_size=320, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
                                      intermediate_size=32))  # fmt: skip
    cases: list[tuple[Any, Any, str]] = [
        (torch.nn.Linear(2, 2), tokenizer, "a Linear is not a model of transformers"),
        (bert, tokenizer, "causal language models only|is not supported|does not run"),
        (model.double(), tokenizer, "has a head in float64"),
        (tiny("Llama"), None, "needs its tokenizer"),
        (tiny("Llama").to("meta"), tokenizer, "are on meta"),
        (tiny("Llama"), "a name", "the str in memory is not a fast tokenizer"),
        (model.base_model, tokenizer, "has no linear language-model head"),
    ]
    for given, words, message in cases:
        with pytest.raises(ModelError, match=message) as caught:
            from_objects(given, words)
        assert "\n" not in str(caught.value)
    with pytest.raises(DeviceError):
        from_objects(tiny("Llama"), tokenizer, device="cuda")


def test_a_choice_of_a_loaded_model_is_this_model(model_folder):
    ours = from_objects(*objects(model_folder("Llama")))
    choice = ModelChoice("", loaded=ours)
    assert load(choice) is ours and "LanguageModel" not in repr(choice) and choice == ModelChoice("")
    assert choice.of_store("elsewhere") is choice and choice.other("elsewhere").loaded is None
    with pytest.raises((ModelError, DeviceError), match=r"is on cpu, not on cuda|no CUDA device"):
        load(ModelChoice("", "cuda", loaded=ours))
    with pytest.raises(ModelError, match="computes in float32, not in bfloat16"):
        load(ModelChoice("", dtype="bfloat16", loaded=ours))
    with pytest.raises(ModelError, match="was an object in memory: give it again"):
        load(ModelChoice(""))
