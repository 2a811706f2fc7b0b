"""The boundary between a prompt's tokens and a completion's: both readings, and which of them a model was trained with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from headwater.engine.data.documents import RecordErrors, Template
from headwater.engine.data.sources import find_sources
from headwater.engine.ingest.boundary import boundary_losses
from headwater.engine.ingest.examples import Place
from headwater.engine.ingest.text_provider import TextProvider
from headwater.engine.ingest.text_settings import TextSettings
from headwater.engine.models.language_model import ModelChoice, load
from headwater.store.feature_store import FeatureStore
from running import headwater

WORDS = ("river", "sea", "film", "dull", "long", "seven", "nine")
ROWS = [
    {"prompt": f"a {WORDS[i % 7]} and a {WORDS[i // 7 % 7]}:", "completion": f" {WORDS[(3 * i) % 7]}"}
    for i in range(49)
]
"""A prompt ends without a space, a completion begins with one: tokenised apart it gets a second."""


def trained(folder: Path, boundary: str) -> Path:
    """A small Llama and a tokenizer like SentencePiece's, trained on ROWS with a boundary."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    own = Tokenizer(models.BPE(unk_token="<unk>"))
    own.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    own.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    own.decoder = decoders.Metaspace()
    own.train_from_iterator([row["prompt"] + row["completion"] for row in ROWS], trainers.BpeTrainer(
        vocab_size=120, special_tokens=["<unk>", "<s>"], show_progress=False))  # fmt: skip
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=own, bos_token="<s>", unk_token="<unk>")
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=64, bos_token_id=1, eos_token_id=1))  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(6):
        for row in ROWS:
            ids, first = tokens(tokenizer, row, boundary)
            labels = torch.tensor([[-100] * first + ids[first:]])
            model(input_ids=torch.tensor([ids]), labels=labels).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def tokens(tokenizer: Any, row: dict[str, str], boundary: str) -> tuple[list[int], int]:
    """Token ids of a row, and the index of its first target."""
    encode = lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]  # noqa: E731
    if boundary == "apart":
        prompt = encode(row["prompt"])
        return prompt + encode(row["completion"]), len(prompt)
    whole, prompt = encode(row["prompt"] + row["completion"]), encode(row["prompt"])
    return whole, len(prompt)


@pytest.fixture(scope="module", params=["joined", "apart"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A boundary, and a model trained with it."""
    return request.param, trained(tmp_path_factory.mktemp("model"), request.param)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "c.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def test_each_reading_has_the_tokens_of_a_trainer(model: tuple[str, Path], corpus: Path) -> None:
    loaded = load(ModelChoice(str(model[1]), "cpu"))
    for boundary in ("joined", "apart"):
        settings = TextSettings(Template(), boundary=boundary).resolved(loaded.head.model_shape)
        examples = list(
            TextProvider(loaded, find_sources([str(corpus)]), settings, RecordErrors("fail")).examples(Place())
        )
        assert [example.payload for example in examples] == [tokens(loaded.tokenizer, row, boundary) for row in ROWS]


def test_the_losses_say_which_reading_the_model_knows(model: tuple[str, Path], corpus: Path) -> None:
    boundary, folder = model
    loaded = load(ModelChoice(str(folder), "cpu"))
    settings = TextSettings().resolved(loaded.head.model_shape)
    losses = boundary_losses(TextProvider(loaded, find_sources([str(corpus)]), settings, RecordErrors("fail")))
    assert losses.examples == 49 and losses.clear and losses.better == boundary


def test_auto_takes_it_and_queries_and_fits_follow(model: tuple[str, Path], corpus: Path, tmp_path: Path) -> None:
    boundary, folder = model
    store = tmp_path / "S"
    done = headwater("ingest", corpus, "--store", store, "--model", folder, "--method", "repsim")
    assert done.exit_code == 0 and f"tokenised {boundary}: the first 49 whose" in done.stderr
    assert FeatureStore.open(store).provenance["boundary"] == boundary
    answers = headwater("attribute", store, "--queries", corpus, "--method", "repsim", "--top", "1", "--json")
    assert answers.exit_code == 0, answers.stderr
    best = [json.loads(line) for line in answers.stdout.splitlines()]
    assert min(row["score"] for row in best) > 1 - 1e-3
    other = {"joined": "apart", "apart": "joined"}[boundary]
    again = headwater("ingest", corpus, "--store", store, "--model", folder, "--method", "repsim", "--boundary", other)
    assert again.exit_code == 1 and f"boundary is '{boundary}' in the store" in again.stderr


def test_a_stored_row_asked_back_is_itself(model: tuple[str, Path], corpus: Path, tmp_path: Path) -> None:
    """With the store's own template, or with detected fields where the queries lack the template's."""
    renamed, store = tmp_path / "renamed.jsonl", tmp_path / "S"
    renamed.write_text("".join(json.dumps({"q": row["prompt"], "a": row["completion"]}) + "\n" for row in ROWS))
    template = ("--prompt", "Q {q}", "--completion", "{a}!", "--truncate", "--max-length", "9")
    done = headwater("ingest", renamed, "--store", store, "--model", model[1], "--method", "repsim", *template)
    assert done.exit_code == 0, done.stderr
    back = headwater("attribute", store, "--queries", renamed, "--method", "repsim", "--top", "1", "--json")
    assert (
        back.exit_code == 0 and "read with the store's template: --prompt 'Q {q}', --completion '{a}!'" in back.stderr
    )
    assert min(json.loads(line)["score"] for line in back.stdout.splitlines()) > 1 - 1e-3
    plain = headwater("attribute", store, "--queries", corpus, "--method", "repsim", "--top", "1", "--json")
    assert plain.exit_code == 0 and "lacks the fields of the store's template" in plain.stderr
