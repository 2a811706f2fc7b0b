"""The boundary between a prompt's tokens and a completion's: both readings, and which of them a model was trained with."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import zarr
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
        assert [example.payload[:2] for example in examples] == [
            tokens(loaded.tokenizer, row, boundary) for row in ROWS
        ]


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
    template = ("--prompt-template", "Q {q}", "--completion-template", "{a}!", "--truncate", "--max-length", "9")
    done = headwater("ingest", renamed, "--store", store, "--model", model[1], "--method", "repsim", *template)
    assert done.exit_code == 0, done.stderr
    back = headwater("attribute", store, "--queries", renamed, "--method", "repsim", "--top", "1", "--json")
    assert (
        back.exit_code == 0
        and "read with the store's template: --prompt-template 'Q {q}', --completion-template '{a}!'" in back.stderr
    )
    assert min(json.loads(line)["score"] for line in back.stdout.splitlines()) > 1 - 1e-3
    plain = headwater("attribute", store, "--queries", corpus, "--method", "repsim", "--top", "1", "--json")
    assert plain.exit_code == 0 and "lacks the fields of the store's template" in plain.stderr


def test_token_rows_are_read_as_they_are(model: tuple[str, Path], corpus: Path, tmp_path: Path) -> None:
    """Rows of `input_ids` and `labels`, padded or with a mask, give the losses of the same rows as texts."""
    boundary, folder = model
    own, rows = load(ModelChoice(str(folder), "cpu")).tokenizer, tmp_path / "rows.jsonl"
    records = []
    for at, row in enumerate(ROWS):
        ids, first = tokens(own, row, boundary)
        padding = [1] * (at % 3)
        labels = {"labels": [-100] * first + ids[first:] + [-100] * len(padding)}
        mask = {"loss_mask": [0] * first + [1] * (len(ids) - first) + [0] * len(padding)}
        attention = {"attention_mask": [1] * len(ids) + [0] * len(padding)}
        records.append({"input_ids": ids + padding, **(labels if at % 2 else mask), **attention})
    rows.write_text("".join(json.dumps(record) + "\n" for record in records))
    stores = []
    for name, path in (("texts", corpus), ("tokens", rows)):
        done = headwater("ingest", path, "--store", tmp_path / name, "--model", folder, "--method", "repsim")
        assert done.exit_code == 0, done.stderr
        stores.append(zarr.open_group(str(tmp_path / name / "shards/0/examples"), mode="r"))
    for column in ("loss", "tokens", "counted"):
        assert (stores[0][column][:] == stores[1][column][:]).all()
    back = headwater("attribute", tmp_path / "tokens", "--queries", rows, "--method", "repsim", "--top", "1", "--json")
    assert min(json.loads(line)["score"] for line in back.stdout.splitlines()) > 1 - 1e-3


def test_tokens_between_targets_are_left_out(model: tuple[str, Path], tmp_path: Path) -> None:
    """The loss of a row with masked tokens amid its targets is the mean of the others, by the model's own logits."""
    folder, rows = model[1], tmp_path / "rows.jsonl"
    loaded = load(ModelChoice(str(folder), "cpu"))
    ids = loaded.tokenizer("a long river and a dull sea", add_special_tokens=False)["input_ids"]
    is_target = [at % 3 != 1 for at in range(len(ids))]
    labels = [token if target else -100 for token, target in zip(ids, is_target, strict=True)]
    rows.write_text(json.dumps({"input_ids": ids, "labels": labels}) + "\n")
    assert headwater("ingest", rows, "--store", tmp_path / "S", "--model", folder, "--method", "repsim").exit_code == 0
    columns = zarr.open_group(str(tmp_path / "S/shards/0/examples"), mode="r")
    from transformers import LlamaForCausalLM

    with torch.inference_mode():
        own = LlamaForCausalLM.from_pretrained(folder)
        expected = float(own(input_ids=torch.tensor([ids]), labels=torch.tensor([labels])).loss)
    assert columns["counted"][0] == sum(is_target[1:])
    assert columns["loss"][0] == pytest.approx(expected, rel=1e-5)
    again = headwater(
        "ingest", rows, "--store", tmp_path / "S", "--model", folder, "--method", "repsim", "--method", "headcos"
    )
    assert again.exit_code == 0, again.stderr


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"input_ids": [5, 6], "labels": [6, 7]}, r"labels\[0\] is 6, neither input_ids\[0\] \(5\) nor -100"),
        ({"input_ids": [5, 6], "labels": [5]}, "field 'labels' has 1 numbers, 'input_ids' 2"),
        ({"input_ids": ["a"], "labels": [5]}, "field 'input_ids' is not a list of integers"),
        ({"input_ids": [5, 6], "attention_mask": [0, 0]}, "no token"),
        ({"input_ids": [5, 100_000], "labels": [5, -100]}, "token id 100000, but the model has"),
    ],
)
def test_bad_token_rows_are_refused(
    model: tuple[str, Path], tmp_path: Path, record: dict[str, Any], message: str
) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps(record) + "\n")
    done = headwater("ingest", tmp_path / "rows.jsonl", "--store", tmp_path / "S", "--model", model[1])
    assert done.exit_code == 1 and re.search(rf"rows\.jsonl:1: {message}", done.stderr), done.stderr
