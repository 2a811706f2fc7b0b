"""From documents to examples and target positions: prefixes, prompts, truncation, record errors, and reading from any place."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from headwater.engine.data.documents import RecordErrors, Template
from headwater.engine.data.sources import Source, find_sources
from headwater.engine.ingest import text_provider as text_module
from headwater.engine.ingest.examples import Example, Place
from headwater.engine.ingest.text_provider import TextProvider
from headwater.engine.ingest.text_settings import MAX_LENGTH, TextSettings
from headwater.engine.interface.model_view import ModelShape, OutputSpec
from headwater.engine.models.batch_outputs import LinearHead
from headwater.engine.models.language_model import LanguageModel, ModelChoice, load
from headwater.store.errors import CorpusError, SettingsError
from places import SHARED

pytestmark = pytest.mark.usefixtures("one_thread")
STORIES = SHARED / "models/stories260K"
LONG = " ".join(f"the river runs down to the sea, {n}; ünïcödé 漢字 🙂" for n in range(9))


@pytest.fixture(scope="module", params=[True, False], ids=["prefix", "no prefix"])
def model(request: Any, model_folder: Any, tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    """A tiny model whose tokenizer puts a begin-of-text token before a text, or not."""
    import shutil

    from small import save_tokenizer

    folder = shutil.copytree(model_folder("Llama"), tmp_path_factory.mktemp("model") / "m")
    save_tokenizer(folder, add=request.param)
    loaded = load(ModelChoice(str(folder), device="cpu"))
    assert loaded.prefix == ((0,) if request.param else ())
    return loaded


def provider(model: LanguageModel, folder: Path, lines: list[dict[str, Any]], **more: Any) -> TextProvider:
    """A provider of these documents; `more`: max_length, attribute, truncate, policy, name."""
    path = folder / more.pop("name", "c.jsonl")
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    record_errors = RecordErrors(more.pop("policy", "fail"))
    asked = {"max_length": 64, "attribute": "completion", **more}
    settings = TextSettings(
        more.pop("template", Template()),
        max_length=asked["max_length"],
        attribute=asked["attribute"],
        truncate=more.get("truncate"),
    ).resolved(model.head.model_shape)
    return TextProvider(model, find_sources([str(path)]), settings, record_errors)


def all_of(source: TextProvider) -> list[Example]:
    """All examples of a provider."""
    return list(source.examples(Place()))


def ids_of(model: LanguageModel, text: str) -> list[int]:
    """Tokens of the text alone."""
    return list(model.tokenizer(text, add_special_tokens=False)["input_ids"])


def counted_tokens(source: TextProvider, example: Example) -> list[int]:
    """The target tokens of an example."""
    return list(source.read([example], OutputSpec()).targets.tolist())


def test_of_a_text_every_token_with_one_before_it_counts(model, tmp_path):
    source = provider(model, tmp_path, [{"text": "the river"}, {"text": "s"}])
    for example, text in zip(all_of(source), ("the river", "s"), strict=True):
        ids = ids_of(model, text)
        wanted = ids if model.prefix else ids[1:]
        assert counted_tokens(source, example) == wanted
        assert example.target_count == len(wanted)
        assert example.payload[0] == [*model.prefix, *ids]
        assert (example.length, example.text, example.offset, example.prompt) == (len(example.payload[0]), text, 0, "")


@pytest.mark.parametrize("completion", [" Negative", "Negative", ".", " the sea and 漢字"])
def test_of_a_prompted_row_the_completion_counts_or_all(model, tmp_path, completion):
    line = {"prompt": "Review: a dull film. Sentiment:", "completion": completion}
    tokens = ids_of(model, line["prompt"] + completion)
    alone, whole = (
        provider(model, tmp_path, [line], attribute=which, name=f"{which}.jsonl") for which in ("completion", "all")
    )
    (example,) = all_of(alone)
    found = counted_tokens(alone, example)
    assert found == tokens[-len(found) :] and example.target_count == len(found)
    assert model.tokenizer.decode(found).endswith(completion)
    assert not model.tokenizer.decode(found[1:]).endswith(completion)  # not one token more than it takes
    (example,) = all_of(whole)
    assert counted_tokens(whole, example) == (tokens if model.prefix else tokens[1:])
    assert (example.prompt, example.text) == (line["prompt"], completion)


def test_the_token_that_holds_both_prompt_and_completion_counts(model, tmp_path):
    source = provider(model, tmp_path, [{"prompt": "the riv", "completion": "er runs"}])
    (example,) = all_of(source)
    tokens = ids_of(model, "the river runs")
    spans = model.tokenizer("the river runs", return_offsets_mapping=True, add_special_tokens=False)["offset_mapping"]
    first = next(at for at, (_, end) in enumerate(spans) if end > len("the riv"))
    assert spans[first][0] < len("the riv")  # the tokenizer is one that joins them
    assert counted_tokens(source, example) == tokens[first:]


@pytest.mark.parametrize("max_length", [2, 3, 17, 64])
def test_a_long_document_is_cut_and_nothing_is_lost(model, tmp_path, max_length):
    source = provider(model, tmp_path, [{"id": "d", "text": LONG}, {"id": "e", "text": "sea"}], max_length=max_length)
    examples = all_of(source)
    pieces = [example for example in examples if example.id.startswith("d")]
    ids, skip = ids_of(model, LONG), len(model.prefix)
    assert [token for piece in pieces for token in piece.payload[0][skip:]] == ids
    assert "".join(piece.text for piece in pieces) == LONG
    assert [piece.id for piece in pieces] == [f"d#{k}" for k in range(len(pieces))]
    assert [piece.offset for piece in pieces] == [len("".join(p.text for p in pieces[:k])) for k in range(len(pieces))]
    assert all(2 <= piece.length <= max_length for piece in pieces[:-1]) and pieces[-1].length <= max_length
    assert sum(piece.target_count for piece in pieces) == len(ids) - (0 if model.prefix else len(pieces))
    assert [piece.target_count for piece in pieces] == [len(counted_tokens(source, piece)) for piece in pieces]
    assert all(example.line == 2 for example in examples if example.id.startswith("e"))


def test_a_prompted_row_that_is_too_long_is_a_fault(model, tmp_path):
    lines = [{"text": "sea"}, {"prompt": LONG, "completion": " Negative"}, {"text": "river"}]
    total = len(ids_of(model, LONG + " Negative")) + len(model.prefix)
    told = (
        rf"c\.jsonl:2: prompt and completion are {total} tokens, but an example has at most 20 tokens "
        r"\(the model's context: 64\): shorten it; in an ingestion, --truncate cuts the prompt's start, "
        "and a new store takes another --max-length"
    )
    with pytest.raises(CorpusError, match=told):
        all_of(provider(model, tmp_path, lines, max_length=20))
    source = provider(model, tmp_path, lines, max_length=20, policy="skip")
    assert [example.text for example in all_of(source)] == ["sea", "river"]
    assert source.record_errors.count == 1


def test_truncating_cuts_the_prompts_start_then_the_completions_end(model, tmp_path):
    lines = [{"prompt": LONG, "completion": " Negative"}, {"prompt": "one two:", "completion": LONG}]
    source = provider(model, tmp_path, lines, max_length=20, truncate=True)
    short, long = all_of(source)
    room = 20 - len(model.prefix)
    tokens = ids_of(model, LONG + " Negative")
    assert short.payload[0] == [*model.prefix, *tokens[-room:]]
    assert model.tokenizer.decode(counted_tokens(source, short)) == " Negative"
    tokens, found = ids_of(model, "one two:" + LONG), counted_tokens(source, long)
    assert long.length == 20 and long.payload[0][len(model.prefix) :] == tokens[-len(ids_of(model, LONG)) :][:room]
    assert found == long.payload[0][1:] and long.target_count == 19


def test_reading_goes_on_from_every_place(model, tmp_path):
    """Several files with documents cut into windows, prompts, one bad line and one document skipped as too long."""
    lines = [
        {"text": LONG}, {"prompt": "one", "completion": " two"}, {"text": ""},
        {"prompt": LONG, "completion": "x"}, {"text": "sea"},
    ]  # fmt: skip
    made = [
        provider(model, tmp_path, order, name=f"{n}.jsonl") for n, order in enumerate((lines, lines[::-1], lines * 20))
    ]
    sources = [part.sources[0] for part in made]

    def anew() -> TextProvider:
        return TextProvider(
            model,
            sources,
            TextSettings(Template(), max_length=33, attribute="completion").resolved(model.head.model_shape),
            RecordErrors("skip"),
        )

    examples = all_of(anew())
    assert len(examples) > 150
    for at, example in enumerate(examples[:40] + examples[-3:]):
        rest = list(anew().examples(example.place))
        assert rest == (examples[at + 1 :] if at < 40 else examples[len(examples) - 43 + at + 1 :])


def test_a_file_that_the_store_alone_knows_is_not_read_again(model, tmp_path):
    source = provider(model, tmp_path, [{"text": "sea"}])
    source.sources[:] = [Source("", "gone.jsonl", "absent", 0, "0"), *source.sources]
    assert [example.place for example in source.examples(Place(1))] == [Place(1, 0)]
    with pytest.raises(CorpusError, match=r"gone\.jsonl belongs to the store"):
        all_of(source)


def test_a_begin_of_text_token_in_the_text_itself_is_not_doubled(model, tmp_path):
    """In the format of chat templates."""
    source = provider(model, tmp_path, [{"text": "<s>the river"}, {"prompt": "<s>one", "completion": " two"}])
    text, prompted = all_of(source)
    assert text.payload[0] == [0, *ids_of(model, "the river")]
    assert prompted.payload[0] == [0, *ids_of(model, "one two")]
    assert model.tokenizer.decode(counted_tokens(source, prompted)) == " two"


def test_conversations_are_rendered_by_the_tokenizers_template(model, tmp_path):
    turns = "<s>{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    model.tokenizer.chat_template = turns + "{% if add_generation_prompt %}[assistant]{% endif %}"
    try:
        talk = [{"role": "user", "content": "one two"}, {"role": "assistant", "content": "three"}]
        source = provider(model, tmp_path, [{"messages": talk}])
        (example,) = all_of(source)
        assert (example.prompt, example.text) == ("<s>[user]one two[assistant]", "three")
        assert example.payload[0] == [0, *ids_of(model, "[user]one two[assistant]three")]
        assert model.tokenizer.decode(counted_tokens(source, example)).endswith("three")
    finally:
        model.tokenizer.chat_template = None


@pytest.mark.parametrize("chatty", [True, False], ids=["template", "plain"])
def test_all_answers_of_a_conversation_are_target_tokens(model, tmp_path, monkeypatch, chatty):
    says = [("user", "one"), ("assistant", "two three"), ("user", "what is the sea"), ("assistant", "four")]
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}" if chatty else None
    monkeypatch.setattr(model.tokenizer, "chat_template", template)
    talk = [{"role": role, "content": content} for role, content in says]
    whole = "user: one\nassistant: two three\nuser: what is the sea\nassistant: four"
    source = provider(model, tmp_path, [{"messages": talk}], template=Template(turns="all"))
    (example,) = all_of(source)
    assert example.prompt == "user: one\nassistant: " and (example.prompt + example.text).strip() == whole
    spans = model.tokenizer(example.prompt + example.text, add_special_tokens=False, return_offsets_mapping=True)
    answers = [
        (whole.index(content), whole.index(content) + len(content) + chatty) for content in ("two three", "four")
    ]
    expected = [
        token
        for token, (begin, end) in zip(spans["input_ids"], spans["offset_mapping"], strict=True)
        if any(begin < last and end > first for first, last in answers)
    ]
    assert counted_tokens(source, example) == expected and len(expected) < example.length - 8
    assert max(example.payload.target_positions) == example.length - 2


def test_answers_alone_are_targets_where_nothing_precedes_the_first(model, tmp_path, monkeypatch):
    monkeypatch.setattr(model.tokenizer, "chat_template", "{% for m in messages %}{{ m.content }} {% endfor %}")
    talk = [
        {"role": role, "content": content}
        for role, content in (("assistant", "two"), ("user", "the sea"), ("assistant", "four"))
    ]
    source = provider(model, tmp_path, [{"messages": talk}], template=Template(turns="all"))
    (example,) = all_of(source)
    assert example.prompt == "" and example.text.strip() == "two the sea four"
    read = model.tokenizer.decode(counted_tokens(source, example))
    assert "four" in read and "sea" not in read


def test_a_document_without_tokens_is_read_all_the_same(model, tmp_path, monkeypatch):
    """Some tokenizers drop unknown characters."""
    monkeypatch.setattr(
        model, "tokenizer", lambda texts, **_: {"input_ids": [[] for _ in texts], "offset_mapping": [[] for _ in texts]}
    )
    source = provider(model, tmp_path, [{"text": "漢"}])
    (example,) = all_of(source)
    assert (example.length, example.target_count, example.text) == (len(model.prefix), 0, "漢")
    read = source.read([example], OutputSpec())
    assert read.hidden().shape == (0, 32) and read.counts == [0]


@pytest.mark.parametrize(
    ("asked", "told"),
    [(65, "--max-length 65 exceeds the model's context of 64 tokens"), (1, "2 tokens"), (0, "2 tokens"), (-5, "2")],
)
def test_lengths_out_of_range(asked, told):
    with pytest.raises(SettingsError, match=told):
        TextSettings(Template(), max_length=asked, attribute="completion").resolved(ModelShape(8, 50, 1, 64))


def test_the_default_length_is_the_models_context_or_less():
    assert (
        TextSettings(Template(), max_length=None, attribute="all").resolved(ModelShape(8, 50, 1, 64)).max_length == 64
    )
    assert (
        TextSettings(Template(), max_length=None, attribute="all").resolved(ModelShape(8, 50, 1, 10**6)).max_length
        == MAX_LENGTH
    )
    assert TextSettings(Template(), max_length=64, attribute="all").resolved(ModelShape(8, 50, 1, 64)).max_length == 64


def test_what_decides_the_rows_is_in_the_provenance(model, tmp_path):
    source = provider(model, tmp_path, [{"text": "sea"}], max_length=33, truncate=True)
    assert source.provenance() == {
        "kind": "text",
        **model.fingerprint,
        "max_length": 33,
        "attribute": "completion",
        "truncate": True,
        "lines": False,
        "boundary": "joined",
        "dtype": "float32",
        "template": {"text": "", "prompt": "", "completion": ""},
    }
    assert source.longest() == 33 and Path(source.origin()["model_path"]).is_dir()
    assert isinstance(source.head, LinearHead) and source.device.type == "cpu"
    assert {part.name for part in source.memory(100).parts} == {
        "model weights", "activations", "hidden states", "logits tile", "texts being tokenised",
    }  # fmt: skip


@pytest.mark.skipif(not STORIES.is_dir(), reason="../shared/data/models/stories260K is not here")
def test_a_real_tokenizer_counts_a_completions_own_tokens(tmp_path):
    stories = load(ModelChoice(str(STORIES), device="cpu"))
    assert len(stories.prefix) == 1
    line = {"prompt": "Review: a dull film. Sentiment:", "completion": " Negative"}
    source = provider(stories, tmp_path, [line, {"text": LONG}], max_length=50)
    example, *pieces = all_of(source)
    found = counted_tokens(source, example)
    whole, prompt = ids_of(stories, line["prompt"] + line["completion"]), ids_of(stories, line["prompt"])
    assert whole[: len(prompt)] == prompt and found == whole[len(prompt) :]
    assert "".join(piece.text for piece in pieces) == LONG
    assert [t for piece in pieces for t in piece.payload[0][1:]] == ids_of(stories, LONG)
    assert float(source.read([example], OutputSpec()).hidden().abs().max()) > 0
    story = provider(
        stories, tmp_path, [{"text": "Once upon a time, there was a little girl named Lily."}], name="s.jsonl"
    )
    from headwater.engine.models.batch_outputs import merge_specs

    with torch.inference_mode():
        assert float(story.read(all_of(story), merge_specs([])).losses()[0]) < 1.5  # a trained model, read aright


def test_a_long_text_is_tokenised_in_parts_and_cut_alike(model, tmp_path, monkeypatch):
    """Windows begin with a space, like the tokenizer's own tokens, so that cuts change no token."""
    text = " ".join(f"the river runs down to the sea {n}" for n in range(300))
    whole = all_of(provider(model, tmp_path, [{"text": "short"}, {"text": text}, {"text": "sea"}], max_length=20))
    monkeypatch.setattr(text_module, "ENCODE_CHARACTERS", 700)
    source = provider(model, tmp_path, [{"text": "short"}, {"text": text}, {"text": "sea"}], max_length=20)
    assert all_of(source) == whole
    assert "".join(example.text for example in whole[1:-1]) == text
    middle = whole[len(whole) // 2].place
    assert list(source.examples(middle)) == [example for example in whole if example.place > middle]


@pytest.mark.parametrize("characters", [1 << 17, 700])
def test_a_truncated_row_keeps_the_text_that_the_model_sees(model, tmp_path, monkeypatch, characters):
    monkeypatch.setattr(text_module, "ENCODE_CHARACTERS", characters)
    words = [f" stone {n}" for n in range(400)]
    rows = [{"prompt": "".join(words), "completion": " the sea"}, {"prompt": "one", "completion": "".join(words)}]
    for example, row in zip(all_of(provider(model, tmp_path, rows, max_length=30, truncate=True)), rows, strict=True):
        seen = model.tokenizer.decode(example.payload[0][len(model.prefix) :])
        assert (example.prompt + example.text).strip() == seen.strip() and example.length == 30
        assert row["prompt"].endswith(example.prompt) and row["completion"].startswith(example.text)
        assert example.text.strip()


def test_a_prompted_row_far_too_long_is_a_fault_without_being_tokenised(model, tmp_path):
    source = provider(model, tmp_path, [{"prompt": "a " * 90_000, "completion": "b"}])
    with pytest.raises(
        CorpusError,
        match=r"prompt and completion are 180,001 characters, but an example has at most 64 tokens .*--truncate",
    ):
        all_of(source)
