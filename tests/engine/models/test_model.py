"""Models of many families load with a head that reproduces their logits; other models fail with a one-line error."""

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from headwater.engine.models.language_model import LanguageModel, ModelChoice, load, pick_device
from headwater.store.errors import DeviceError, ModelError
from random_models import tiny
from small import save_tokenizer

pytestmark = pytest.mark.usefixtures("one_thread")
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "tied": ("Llama", {"tie_word_embeddings": True}),
    "gpt-neox": ("GPTNeoX", {}),
    "gpt2": ("GPT2", {}),
    "olmo": ("Olmo", {}),
    "olmo2": ("Olmo2", {}),
    "qwen2": ("Qwen2", {}),
    "gemma2, a soft-cap": ("Gemma2", {"head_dim": 8, "final_logit_softcapping": 5.0}),
    "cohere, a scale": ("Cohere", {"logit_scale": 0.3}),
    "granite, a divisor": ("Granite", {"logits_scaling": 5.0}),
    "phi, a bias": ("Phi", {}),
}
IDS = torch.arange(3, 40)[None]


def opened(folder: Path, **more: Any) -> LanguageModel:
    """Load the model of a folder on the CPU."""
    return load(ModelChoice(str(folder), device="cpu", **more))


def ours(model: LanguageModel) -> torch.Tensor:
    """Logits computed by headwater's head."""
    with torch.inference_mode():
        return model.head.logits(model.trunk(input_ids=IDS).last_hidden_state)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_head_gives_the_models_own_logits(family, model_folder):
    kind, more = FAMILIES[family]
    model = opened(model_folder(kind, **more))
    with torch.inference_mode():
        own = tiny(kind, **more)(input_ids=IDS).logits
    torch.testing.assert_close(ours(model), own, rtol=1e-4, atol=1e-4)
    assert float(own.std()) > 0.1
    assert model.head.model_shape.vocabulary == 320 and model.head.model_shape.hidden == 32
    assert model.head.model_shape.layers == 2 and model.head.model_shape.max_length == 64
    assert model.prefix == (0,)
    assert (model.head.bias is not None) == (kind == "Phi")
    assert not model.head.weight.requires_grad


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_passes_the_check_and_keeps_its_dtype(dtype, model_folder):
    model = opened(model_folder("Llama"), dtype=dtype)
    assert model.head.weight.dtype == getattr(torch, dtype)
    assert ours(model).dtype == torch.float32
    assert model.memory["weights"] * 2 == opened(model_folder("Llama")).memory["weights"]


def adapter(folder: Path, base: Path, **more: Any) -> Any:
    """Save a random LoRA adapter of a model; returns peft's model."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=4, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM", **more)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft 0.21 asks transformers 5 for a name that it deprecates
        made = get_peft_model(tiny("Llama"), config)
    with torch.no_grad():
        for name, weight in made.named_parameters():
            if "lora_" in name:
                weight.normal_(0.0, 0.2, generator=torch.Generator().manual_seed(len(name)))
    made.peft_config["default"].base_model_name_or_path = str(base)
    made.save_pretrained(folder)
    return made.eval()


def test_an_adapter_is_merged(model_folder, tmp_path):
    base = model_folder("Llama")
    theirs = adapter(tmp_path / "a", base)
    model, bare = opened(tmp_path / "a"), opened(base)
    with torch.inference_mode():
        torch.testing.assert_close(ours(model), theirs(input_ids=IDS).logits, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(ours(model), ours(bare), atol=0.1)
    assert model.fingerprint["model"] != bare.fingerprint["model"]
    assert model.fingerprint["tokenizer"] == bare.fingerprint["tokenizer"]
    adapter(tmp_path / "b", base, lora_alpha=99)
    assert opened(tmp_path / "b").fingerprint["model"] != model.fingerprint["model"]
    shutil.copytree(tmp_path / "a", tmp_path / "c")
    assert opened(tmp_path / "c").fingerprint == model.fingerprint


def resaved(folder: Path, to: Path, change: Any = None, **more: Any) -> Path:
    """Load a model, change it and save it again."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder)
    if change is not None:
        with torch.no_grad():
            change(model)
    model.save_pretrained(to, **more)
    save_tokenizer(to)
    return to


def test_fingerprints_know_weights_and_not_files(model_folder, tmp_path):
    base = model_folder("Llama")
    print_of = opened(base).fingerprint
    shutil.copytree(base, tmp_path / "elsewhere")
    assert opened(tmp_path / "elsewhere").fingerprint == print_of
    sharded = resaved(base, tmp_path / "sharded", max_shard_size="60KB")
    assert len(list(sharded.glob("*.safetensors"))) > 2
    assert opened(sharded).fingerprint == print_of
    assert opened(base, dtype="bfloat16").fingerprint == print_of


def test_fingerprints_see_a_training_step_another_kind_and_another_tokenizer(model_folder, tmp_path):
    base = model_folder("Llama")
    print_of = opened(base).fingerprint

    def step(model: Any) -> None:
        model.model.layers[1].mlp.down_proj.weight += 1e-4

    assert opened(resaved(base, tmp_path / "trained", step)).fingerprint["model"] != print_of["model"]
    assert opened(model_folder("Granite")).fingerprint["model"] != print_of["model"]
    granites = {opened(model_folder("Granite", logits_scaling=scale)).fingerprint["model"] for scale in (2.0, 5.0)}
    assert len(granites) == 2
    shutil.copytree(base, tmp_path / "other")
    save_tokenizer(tmp_path / "other", bos=None)
    other = opened(tmp_path / "other")
    assert other.fingerprint["model"] == print_of["model"] and other.fingerprint["tokenizer"] != print_of["tokenizer"]
    assert other.prefix == ()


def edited_config(folder: Path, **entries: Any) -> None:
    """Change entries of a saved config."""
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")


def rewritten(folder: Path, change: Any) -> None:
    """Change tensors of the weights file."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def truncated(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def no_tokenizer(folder: Path) -> None:
    for path in folder.glob("tokenizer*"):
        path.unlink()


def transposed_norm(tensors: dict[str, torch.Tensor]) -> None:
    tensors["model.norm.weight"] = torch.ones(16)


def half_of_two(folder: Path) -> None:
    """Rename the weights to the first of two files, of which the second is not there."""
    from safetensors.torch import load_file

    names = sorted(load_file(folder / "model.safetensors"))
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")
    places = {name: f"model-{1 + number % 2}.safetensors" for number, name in enumerate(names)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


def cut(file: Path) -> None:
    """Leave the first half of a file."""
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


DAMAGE: dict[str, tuple[Any, str]] = {
    "no config": (lambda f: (f / "config.json").unlink(), "has no config.json"),
    "a config that is no JSON": (lambda f: (f / "config.json").write_text("{"), "has no config that loads"),
    "a width that is a list": (lambda f: edited_config(f, vocab_size=[[]]), "has no config that loads"),
    "a negative width": (lambda f: edited_config(f, hidden_size=-1), "has no config that loads"),
    "an unknown kind": (lambda f: edited_config(f, model_type="nonesuch"), "has no config that loads"),
    "a pointer in place of weights": (
        lambda f: (f / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"),
        "model.safetensors is a pointer of Git LFS instead of weights: run git lfs pull",
    ),
    "half of its files": (half_of_two, "lacks model-2.safetensors: download the model again"),
    "half a file": (lambda f: cut(f / "model.safetensors"), "does not load as a causal language model"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), r"no \*.safetensors"),
    "pickled weights": (pickled, "pytorch_model.bin, a pickle"),
    "a missing tensor": (lambda f: rewritten(f, lambda t: t.pop("model.norm.weight")), "model.norm.weight"),
    "a tensor of another shape": (lambda f: rewritten(f, transposed_norm), "does not load"),
    "truncated weights": (truncated, "does not load"),
    "empty weights": (lambda f: (f / "model.safetensors").write_bytes(b""), "does not load"),
    "no tokenizer": (no_tokenizer, r"has no tokenizer \(no tokenizer.json\): save there"),
    "a tokenizer that is no JSON": (lambda f: (f / "tokenizer.json").write_text("{"), "has no tokenizer that loads"),
    "a trunk that looks ahead": (lambda f: edited_config(f, is_causal=False), "its states depend on later tokens"),
    "code of its own": (
        lambda f: edited_config(f, model_type="own", auto_map={"AutoConfig": "own.Own"}), "--trust-remote-code",
    ),
    "an adapter of nothing": (lambda f: (f / "adapter_config.json").write_text("{}"), "does not name the model"),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_folder_says_what_is_wrong_in_one_line(case, model_folder, tmp_path):
    damage, told = DAMAGE[case]
    folder = shutil.copytree(model_folder("Llama"), tmp_path / "m")
    damage(folder)
    with pytest.raises(ModelError, match=told) as caught:
        opened(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def test_an_adapter_without_its_weights_or_with_others(model_folder, tmp_path):
    adapter(tmp_path / "a", model_folder("Llama"))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    (tmp_path / "a" / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"has no adapter_model\.safetensors"):
        opened(tmp_path / "a")
    (tmp_path / "b" / "adapter_model.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(ModelError, match="does not load as a LoRA adapter") as caught:
        opened(tmp_path / "b")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("where", ["nowhere", "a file"])
def test_what_is_no_folder_is_no_model(where, tmp_path):
    path = tmp_path / "x"
    if where == "a file":
        path.write_text("hello")
    with pytest.raises(
        ModelError,
        match=r"x(: no such folder or file| is a file)\nhint: give .* a GGUF file$",
    ) as caught:
        opened(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["BertForMaskedLM", "T5ForConditionalGeneration", "BertLMHeadModel"])
def test_what_is_no_causal_language_model_is_refused(kind, tmp_path):
    import transformers

    family = kind[:4] if kind.startswith("Bert") else "T5"
    sizes = {
        "vocab_size": 320,
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }
    if family == "T5":
        sizes = {"vocab_size": 320, "d_model": 32, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
    made = getattr(transformers, kind)(getattr(transformers, f"{family}Config")(**sizes))
    made.save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    with pytest.raises(ModelError, match=r"causal language model|is not supported"):
        opened(tmp_path)


def test_a_head_that_is_another_map_is_refused(model_folder, monkeypatch):
    from transformers import CohereForCausalLM

    forward = CohereForCausalLM.forward

    def shifted(self: Any, *given: Any, **named: Any) -> Any:
        out = forward(self, *given, **named)
        out.logits = out.logits + 0.05 * out.logits.abs().max()
        return out

    monkeypatch.setattr(CohereForCausalLM, "forward", shifted)
    with pytest.raises(
        ModelError, match=r"not W h \+ b with the scale and soft-cap.*CohereForCausalLM is not supported"
    ):
        opened(model_folder("Cohere", logit_scale=0.3))


def test_unknown_dtypes_and_devices(model_folder, monkeypatch):
    with pytest.raises(ModelError, match="no dtype float8; there are auto, float32, bfloat16, float16"):
        opened(model_folder("Llama"), dtype="float8")
    for name in ("gpu", "meta", "", "cuda:x"):
        with pytest.raises(DeviceError, match=f"no device {name}: there are"):
            pick_device(name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto").type == "cpu"
    with pytest.raises(DeviceError, match="device cuda:1 is not available: torch finds no CUDA device"):
        pick_device("cuda:1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert pick_device("cuda:0").index == 0
    with pytest.raises(DeviceError, match="torch finds 1 CUDA device"):
        pick_device("cuda:1")


def test_what_computes_otherwise_is_another_model(model_folder, tmp_path):
    folder = model_folder("Llama")
    known = opened(folder).fingerprint["model"]
    for number, (key, value) in enumerate({"rms_norm_eps": 0.5, "hidden_act": "relu", "use_cache": False}.items()):
        other = shutil.copytree(folder, tmp_path / str(number))
        config = json.loads((other / "config.json").read_text())
        (other / "config.json").write_text(json.dumps({**config, key: value}))
        assert (opened(other).fingerprint["model"] == known) == (key == "use_cache")


def test_a_tokenizers_own_code_runs_only_when_asked_for(model_folder, tmp_path):
    folder = shutil.copytree(model_folder("Llama"), tmp_path / "m")
    told = json.loads((folder / "tokenizer_config.json").read_text())
    told |= {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(told))
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nEvil = None\n")
    with pytest.raises(ModelError, match=r"needs tokenizer code of its own: --trust-remote-code allows it to run"):
        opened(folder)
    assert not (tmp_path / "ran").exists()
