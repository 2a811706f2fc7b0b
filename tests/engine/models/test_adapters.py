"""Adapters of tied heads compute what peft computes unmerged, and others are refused in one line."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from headwater.engine.models import adapters
from headwater.engine.models.language_model import ModelChoice, load
from headwater.store.errors import ModelError

pytestmark = pytest.mark.usefixtures("one_thread")
IDS = torch.arange(3, 40)[None]
CHANGED: dict[str, dict[str, Any]] = {
    "both saved": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]},
    "both saved, tied": {
        "target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"], "ensure_weight_tying": True,
    },
    "head saved": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    "head adapted": {"target_modules": ["q_proj", "lm_head"]},
    "embedding saved": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]},
    "embedding adapted": {"target_modules": ["q_proj", "embed_tokens"]},
    "both adapted": {"target_modules": ["embed_tokens", "lm_head"]},
    "neither": {"target_modules": ["q_proj", "v_proj"], "use_dora": True},
}  # fmt: skip


def save_adapter(folder: Path, base: Path, rows: int = 0, **more: Any) -> None:
    """Save a random adapter of the model at `base`, whose embedding is resized to `rows` first, if this is not 0."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base)
    if rows:
        model.resize_token_embeddings(rows)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=4, **more))
        draw = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for weight in adapted.parameters():
                if weight.requires_grad:
                    weight.add_(torch.randn(weight.shape, generator=draw) * 0.2)
        adapted.peft_config["default"].base_model_name_or_path = str(base)
        adapted.save_pretrained(folder)


def unmerged_logits(folder: Path, base: Path) -> torch.Tensor:
    """Logits of `IDS` by peft, whose layers add the adapter to the base model's outputs."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder).eval()
        return adapted(input_ids=IDS).logits


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("case", CHANGED)
def test_an_adapter_of_head_or_embedding_gives_the_logits_of_peft(case, tied, model_folder, tmp_path):
    base = model_folder("Llama", tie_word_embeddings=tied)
    save_adapter(tmp_path / "a", base, **CHANGED[case])
    logits = unmerged_logits(tmp_path / "a", base)
    try:
        model = load(ModelChoice(str(tmp_path / "a"), device="cpu"))
    except ModelError as error:
        assert case == "both saved, tied" and "save_pretrained" in str(error) and "\n" not in str(error)
        return
    with torch.inference_mode():
        ours = model.head.logits(model.trunk(input_ids=IDS).last_hidden_state)
    torch.testing.assert_close(ours, logits, rtol=1e-3, atol=2e-3)


def test_an_adapter_of_a_resized_vocabulary_is_refused_with_the_way_out(model_folder, tmp_path):
    base = model_folder("Llama")
    save_adapter(tmp_path / "a", base, 323, target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head"])
    with pytest.raises(ModelError, match=r"resize_token_embeddings.*merge_and_unload") as caught:
        load(ModelChoice(str(tmp_path / "a"), device="cpu"))
    assert "\n" not in str(caught.value)


def test_a_merge_that_computes_something_else_is_refused(model_folder, tmp_path, monkeypatch):
    base = model_folder("Llama", tie_word_embeddings=True)
    save_adapter(tmp_path / "a", base, **CHANGED["embedding adapted"])
    monkeypatch.setattr(adapters, "_untie", lambda model: None)
    with pytest.raises(ModelError, match="other logits when it is merged"):
        load(ModelChoice(str(tmp_path / "a"), device="cpu"))
