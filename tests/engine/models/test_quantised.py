"""Checkpoints in 8 and 4 bits: real ones of bitsandbytes on the CPU, by folder and in memory; others are refused in one line."""

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from headwater.engine.models.language_model import LanguageModel, ModelChoice, load, load_trainable, model_shape_of
from headwater.engine.models.loaded_model import from_objects
from headwater.store.errors import ModelError
from random_models import tiny
from running import done
from small import save_tokenizer, sentences, write_corpus

pytestmark = pytest.mark.usefixtures("one_thread")
IDS = torch.arange(3, 40)[None]
SIZES = {"hidden_size": 64, "intermediate_size": 128, "max_position_embeddings": 256}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Bits → folder of a quantised Llama; 32 → the model that they were made from."""
    pytest.importorskip("bitsandbytes")
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    place = tmp_path_factory.mktemp("quantised")
    made = {32: place / "32", 8: place / "8", 4: place / "4"}
    tiny("Llama", **SIZES).save_pretrained(made[32])
    kinds: dict[int, dict[str, Any]] = {
        8: {"load_in_8bit": True},
        4: {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": torch.float32},
    }
    for bits, settings in kinds.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = AutoModelForCausalLM.from_pretrained(
                made[32],
                quantization_config=BitsAndBytesConfig(**settings),
                device_map={"": "cpu"},
                dtype=torch.float32,
            )
            model.save_pretrained(made[bits])
    for folder in made.values():
        save_tokenizer(folder)
    return made


def opened(folder: Path) -> LanguageModel:
    """Load a model on the CPU."""
    return load(ModelChoice(str(folder), device="cpu"))


def logits(model: LanguageModel) -> torch.Tensor:
    """(1, tokens, V) logits of `IDS`."""
    with torch.inference_mode():
        return model.head.logits(model.trunk(input_ids=IDS).last_hidden_state)


@pytest.mark.parametrize(("bits", "error"), [(8, 0.2), (4, 0.8)])
def test_quantised_weights_are_read_and_the_head_is_named(bits, error, folders):
    model, original = opened(folders[bits]), opened(folders[32])
    difference = float((logits(model) - logits(original)).norm() / logits(original).norm())
    assert 0 < difference < error
    assert len(model.notes) == 1 and model.notes[0].startswith(f"weights are quantised (bitsandbytes, {bits} bits)")
    assert model.notes[0].endswith("the head is read as float32") and model.head.weight.dtype == torch.float32
    assert torch.equal(model.head.weight, original.head.weight)  # the head is not quantised
    assert model.head.model_shape == model_shape_of(str(folders[bits])) == original.head.model_shape
    assert model.memory["weights"] < original.memory["weights"] / 1.5
    assert model.fingerprint["model"] != original.fingerprint["model"]


@pytest.mark.parametrize("bits", [8, 4])
def test_an_object_is_the_folder_that_it_was_loaded_from_and_stays_as_it_is(bits, folders):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model, untouched = (
            AutoModelForCausalLM.from_pretrained(folders[bits], device_map={"": "cpu"}) for _ in range(2)
        )
    ours, loaded = from_objects(model, AutoTokenizer.from_pretrained(folders[bits])), opened(folders[bits])
    assert ours.fingerprint == loaded.fingerprint and ours.path == str(folders[bits]) and ours.notes == loaded.notes
    torch.testing.assert_close(logits(ours), logits(loaded), rtol=0, atol=0)
    with torch.inference_mode():
        torch.testing.assert_close(model(IDS).logits, untouched(IDS).logits, rtol=0, atol=0)


def test_a_store_of_a_quantised_model_says_how_it_was_read(folders, tmp_path):
    corpus = write_corpus(tmp_path / "corpus.jsonl", sentences(20))
    made = done(
        "ingest", corpus, "--store", tmp_path / "S", "--model", folders[8], "--method", "graddot", "--method", "logra"
    )
    assert made.output.count("note: weights are quantised (bitsandbytes, 8 bits)") == 1
    for method in ("graddot", "logra"):  # head gradients, and gradients through the quantised layers
        done("attribute", tmp_path / "S", "--method", method, "--queries", corpus)


def test_what_cannot_be_read_is_refused_in_one_line(model_folder, tmp_path):
    folder = shutil.copytree(model_folder("Llama"), tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4, "group_size": 32, "dataset": "c4"}
    (folder / "config.json").write_text(json.dumps(config))
    cases = {
        load: r"is quantised \(gptq, 4 bits\), and what loads it is not installed",
        load_trainable: "cannot be trained",
    }
    for read, message in cases.items():
        with pytest.raises(ModelError, match=message) as caught:
            read(ModelChoice(str(folder), device="cpu"))
        assert "\n" not in str(caught.value)


def test_a_quantised_head_is_refused(folders):
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        settings = BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=["embed_tokens"])
        model = AutoModelForCausalLM.from_pretrained(folders[32], quantization_config=settings, device_map={"": "cpu"})
    with pytest.raises(ModelError, match=r"has a quantised head \(torch.int8\)"):
        from_objects(model, AutoTokenizer.from_pretrained(folders[32]))
