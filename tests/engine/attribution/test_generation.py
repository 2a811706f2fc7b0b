"""The model's own greedy answers become the completions of queries: the same as transformers generates."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import headwater as hw
import pytest
import torch
from headwater.engine.attribution.generation import Generation, greedy_answer, with_answers
from headwater.engine.data.documents import Template
from headwater.engine.data.python_data import data_of
from headwater.engine.data.record_source import Data
from headwater.engine.ingest.text_settings import TextSettings
from headwater.engine.models.language_model import ModelChoice, load
from headwater.engine.models.loaded_model import from_objects
from headwater.store.errors import CorpusError, SettingsError
from headwater.store.feature_store import FeatureStore
from small import save_model, sentences

CHAT = (
    "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)
RISE = hw.method("rise", kr=16, kh=16, kg=8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a chat template, and stores of plain records and of records with a template of their own."""
    from transformers import AutoTokenizer

    place = tmp_path_factory.mktemp("generation")
    save_model(place / "model")
    tokenizer = AutoTokenizer.from_pretrained(place / "model")
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(place / "model")
    hw.ingest(sentences(12), place / "plain", model=place / "model", methods=RISE, progress=False)
    rows = [{"q": text, "a": "yes"} for text in sentences(12)]
    hw.ingest(rows, place / "template", model=place / "model", methods=RISE, prompt_template="Q: {q}\nA: ",
              completion_template="{a}", progress=False)  # fmt: skip
    return place


def answered(folder: Path, queries: object, store: str = "plain", tokens: int = 5) -> list[dict]:
    (data,) = data_of(queries, texts=True, name="query")
    source = with_answers(data, FeatureStore.open(str(folder / store)), generation(folder, tokens))
    return [dict(record) for record in source.records(0)]


def generation(folder: Path, tokens: int = 5) -> Generation:
    return Generation(ModelChoice(str(folder / "model")), TextSettings(), tokens)


def by_transformers(folder: Path, prompt: str, tokens: int) -> str:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(folder / "model"),
        AutoTokenizer.from_pretrained(folder / "model"),
    )
    ids = torch.tensor([tokenizer(prompt)["input_ids"]])
    made = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, do_sample=False, pad_token_id=0
    )
    return tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True)


@pytest.mark.parametrize("prompt", ["river ", "the stone", "Ünïcödé 漢字"])
def test_the_answer_is_the_one_that_transformers_generates(folder: Path, prompt: str):
    assert greedy_answer(load(ModelChoice(str(folder / "model"))), prompt, 9) == by_transformers(folder, prompt, 9)


def test_prompts_of_every_kind_are_answered(folder: Path):
    answer = by_transformers(folder, "river ", 5)
    for query in ("river ", {"prompt": "river "}, {"prompt": "river ", "completion": "another"}, {"text": "river "}):
        (record,) = answered(folder, query)
        assert (record["prompt"], record["completion"]) == ("river ", answer)
    (record,) = answered(folder, {"id": "mine", "messages": [{"role": "user", "content": "river"}]})
    assert record["prompt"] == "[user] river\n[assistant] " and record["id"] == "mine"
    assert record["completion"] == by_transformers(folder, record["prompt"], 5)
    (record,) = answered(folder, {"q": "river"}, "template")
    assert record["prompt"] == "Q: river\nA: "


def test_answers_are_asked_about_as_they_are(folder: Path):
    (data,) = data_of([{"q": "river"}], texts=True, name="query")
    source = with_answers(data, FeatureStore.open(str(folder / "template")), generation(folder))
    answers = hw.open(folder / "template", progress=False).attribute(source)
    assert answers[0].prompt == "Q: river\nA: ", "the store's template reads them once, not twice"


def spaced_tokenizer(words: list[str]):
    """Words with a space before each, which a text begins without, as those of SentencePiece."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokens = ["<s>", "<unk>", *(f"▁{word}" for word in words)]
    inner = Tokenizer(models.WordLevel({token: number for number, token in enumerate(tokens)}, unk_token="<unk>"))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", unk_token="<unk>")


def test_the_space_before_an_answer_is_the_answer_s(folder: Path):
    model = load(ModelChoice(str(folder / "model")))
    words = [f"w{number}" for number in range(318)]
    spaced = replace(model, tokenizer=spaced_tokenizer(words), ends=())
    answer = greedy_answer(spaced, "w1 w2", 4)
    assert answer.startswith(" w") and len(answer.split()) == 4
    assert spaced.tokenizer("w1 w2" + answer)["input_ids"][:2] == spaced.tokenizer("w1 w2")["input_ids"]


def test_marks_keep_the_space_before_them(folder: Path):
    model = load(ModelChoice(str(folder / "model")))
    tokenizer = spaced_tokenizer([f"!{number}" for number in range(318)])
    tokenizer.clean_up_tokenization_spaces = True
    assert greedy_answer(replace(model, tokenizer=tokenizer, ends=()), "!1", 3).count(" !") == 3


def test_an_answer_ends_where_the_settings_of_generation_say(folder: Path, tmp_path: Path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = load(ModelChoice(str(folder / "model")))
    ids = model.tokenizer("river ", add_special_tokens=False)["input_ids"]
    logits = model.head.logits(model.trunk(input_ids=torch.tensor([ids])).last_hidden_state[:, -1])
    first = int(logits.argmax())
    assert model.ends == (0,) and greedy_answer(model, "river ", 3)
    shutil.copytree(folder / "model", tmp_path / "model")
    (tmp_path / "model" / "generation_config.json").write_text(json.dumps({"eos_token_id": [first, 5]}))
    ended = load(ModelChoice(str(tmp_path / "model")))
    assert set(ended.ends) == {0, 5, first} and greedy_answer(ended, "river ", 3) == ""
    assert ended.fingerprint == model.fingerprint
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    own = from_objects(loaded, AutoTokenizer.from_pretrained(tmp_path / "model"))
    assert set(own.ends) == {0, 5, first}


def refused(folder: Path, queries: object, store: str = "plain") -> str:
    with pytest.raises((CorpusError, SettingsError)) as caught:
        answered(folder, queries, store)
    return str(caught.value)


def test_what_cannot_be_answered_is_refused(folder: Path, tmp_path: Path):
    import numpy as np

    assert "the model's context: 128" in refused(folder, "river " * 200)
    assert "no text field" in refused(folder, {"another": "river"}, "template")
    for name in ("messages", "conversations"):
        assert f"{name}[0] is str, not a message" in refused(folder, {name: ["river"]})
    (data,) = data_of([{"q": ""}], texts=True, name="query")
    both = Generation(ModelChoice(str(folder / "model")), TextSettings(Template("", "Q: {q}", "{q} {a}")), 5)
    with pytest.raises(SettingsError, match="the field q is in the templates of prompt and completion"):
        with_answers(data, FeatureStore.open(str(folder / "template")), both)
    np.savez(tmp_path / "a.npz", hidden=np.ones((4, 8), "f4"), labels=np.zeros(4, int), weight=np.ones((3, 8), "f4"))
    hw.ingest(str(tmp_path / "a.npz"), tmp_path / "S", methods="repsim", progress=False)
    data: Data = str(tmp_path / "a.npz")
    with pytest.raises(SettingsError, match="made from arrays"):
        with_answers(data, FeatureStore.open(str(tmp_path / "S")), generation(folder))
