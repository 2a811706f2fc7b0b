"""Models of peft in memory: headwater computes what the adapter computes, and the user's object keeps its adapter."""

import copy
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from headwater.engine.models import adapters
from headwater.engine.models.language_model import ModelChoice, load
from headwater.engine.models.loaded_model import from_objects
from headwater.store.errors import ModelError

pytestmark = pytest.mark.usefixtures("one_thread")
IDS = torch.arange(3, 40)[None]
CASES: dict[str, dict[str, Any]] = {
    "projections": {"target_modules": ["q_proj", "down_proj"], "lora_dropout": 0.5, "lora_alpha": 3},
    "head saved": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    "head adapted": {"target_modules": ["q_proj", "lm_head"]},
    "embedding saved": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]},
    "both adapted, dora": {"target_modules": ["embed_tokens", "lm_head"], "use_dora": True},
}


def adapted(base: Path, **more: Any) -> tuple[Any, Any]:
    """A model of peft with a random adapter, in training mode, and its tokenizer."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model: Any = get_peft_model(
            AutoModelForCausalLM.from_pretrained(base), LoraConfig(task_type="CAUSAL_LM", r=4, **more)
        )
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(torch.randn(weight.shape, generator=draw) * 0.2)
    return model.train(), AutoTokenizer.from_pretrained(base)


def logits(model: Any) -> torch.Tensor:
    """(1, tokens, V) logits of a transformers or peft model in evaluation mode."""
    with torch.inference_mode():
        return model(input_ids=IDS).logits


def state(model: Any) -> dict[str, Any]:
    """Values, addresses, modes and gradient flags of everything in a model."""
    weights = {name: (w.data_ptr(), w.requires_grad, w.clone()) for name, w in model.named_parameters()}
    return {"weights": weights, "modes": {name: (type(m), m.training) for name, m in model.named_modules()}}


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_the_adapter_is_read_and_stays_in_the_users_object(case, tied, model_folder, tmp_path):
    base = model_folder("Llama", tie_word_embeddings=tied)
    model, tokenizer = adapted(base, **CASES[case])
    before, expected = state(model), logits(copy.deepcopy(model).eval())
    ours = from_objects(model, tokenizer)
    with torch.inference_mode():
        head_logits = ours.head.logits(ours.trunk(input_ids=IDS).last_hidden_state)
    torch.testing.assert_close(head_logits, expected, rtol=1e-3, atol=2e-3)
    after = state(model)
    assert after["modes"] == before["modes"] and after["weights"].keys() == before["weights"].keys()
    for name, (address, flag, values) in before["weights"].items():
        assert after["weights"][name][:2] == (address, flag)
        torch.testing.assert_close(after["weights"][name][2], values, rtol=0, atol=0)
    torch.testing.assert_close(logits(model.eval()), expected, rtol=0, atol=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(tmp_path / "a")
    assert ours.path == ""
    assert ours.fingerprint == load(ModelChoice(str(tmp_path / "a"), device="cpu")).fingerprint


def test_another_adapter_or_base_is_another_model(model_folder, tmp_path):
    base = model_folder("Llama")
    model, tokenizer = adapted(base, **CASES["projections"])
    known = from_objects(model, tokenizer).fingerprint["model"]
    layer = model.base_model.model.model.layers[0].self_attn.q_proj
    with torch.no_grad():
        layer.lora_B["default"].weight[0, 0] += 0.1
    changed = from_objects(model, tokenizer).fingerprint["model"]
    assert changed != known
    with torch.no_grad():
        layer.base_layer.weight[0, 0] += 0.1  # its folder holds another base now, so the merged weights are the model
    ours = from_objects(model, tokenizer)
    assert ours.fingerprint["model"] not in (known, changed)
    model.merge_and_unload().save_pretrained(tmp_path / "m")
    tokenizer.save_pretrained(tmp_path / "m")
    assert load(ModelChoice(str(tmp_path / "m"), device="cpu")).fingerprint == ours.fingerprint


def test_adapters_that_cannot_be_read_are_refused_in_one_line(model_folder, monkeypatch):
    from peft import PromptTuningConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = model_folder("Llama")
    model, tokenizer = adapted(base, **CASES["projections"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        prompted = get_peft_model(
            AutoModelForCausalLM.from_pretrained(base), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
        )
        added = AutoModelForCausalLM.from_pretrained(base)
        added.add_adapter(model.peft_config["default"])
    for given, message in ((prompted, "the adapter in memory"), (added, "peft.PeftModel.from_pretrained")):
        with pytest.raises(ModelError, match=message) as caught:
            from_objects(given, tokenizer)
        assert "\n" not in str(caught.value)
    broken, _ = adapted(model_folder("Llama", tie_word_embeddings=True), **CASES["both adapted, dora"])
    monkeypatch.setattr(adapters, "_untie", lambda model: None)
    with pytest.raises(ModelError, match="other logits when it is merged"):
        from_objects(broken, tokenizer)
    assert "peft" in sys.modules
