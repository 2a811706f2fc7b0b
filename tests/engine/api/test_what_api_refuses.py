"""Arguments that cannot be right, models that changed, outputs that would destroy something: one line each, before any work."""

from __future__ import annotations

import os
from pathlib import Path

import headwater as hw
import numpy as np
import pytest
from headwater.engine.models import language_model
from headwater.store.errors import BudgetError, StoreMismatch
from small import save_model, sentences, tree, write_corpus

ROWS = 30
RISE = {"kr": 16, "kh": 16, "kg": 8}
TEXT = "river stone light"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("refused")
    save_model(folder / "model")
    write_corpus(folder / "a.jsonl", sentences(ROWS))
    hw.ingest(str(folder / "a.jsonl"), folder / "S", model=folder / "model", methods=[hw.method("rise", **RISE), "grasp"],
              progress=False)  # fmt: skip
    return folder


@pytest.fixture
def store(work: Path) -> hw.Store:
    return hw.open(work / "S", progress=False)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda s: s.compare(TEXT, "rise"), "methods is str 'rise', expected a list of str"),
        (lambda s: s.compare(TEXT, ["rise", "bm25"], top=0), "top is 0, expected at least 1"),
        (lambda s: s.attribute(TEXT, options=3), "no argument 'options'"),
        (lambda s: s.attribute(TEXT, combine="sum"), "combine needs members"),
        (lambda s: s.attribute(TEXT, columns="a.jsonl"), "columns needs where"),
        (lambda s: s.attribute(TEXT, candidates=0), "candidates is 0"),
        (lambda s: s.attribute(TEXT, bottom=-1), "bottom is -1"),
        (lambda s: s.attribute(TEXT, "rise", 3), "its arguments are queries, method, top, bottom"),
        (lambda s: s.scores([TEXT, ""], on_error="skip"), "remove the bad queries"),
        (lambda s: s.iter_scores(TEXT, on_error="skip"), "remove the bad queries"),
        (lambda s: s.add("stride", seeds=3), "stride is fitted"),
        (lambda s: s.add("grasp", seeds=0), "seeds is 0"),
        (lambda s: s.add(), "name a method"),
        (lambda s: s.select(TEXT, count=3, quotas={"source=a.jsonl": -0.5}), "a quota is -0.5"),
        (lambda s: s.predict(TEXT, [[1, 0], [1]]), "masks are no array"),
        (lambda s: s.predict(TEXT, np.ones((1, ROWS)), where="source=a"), "no argument 'where'"),
        (lambda s: s.value(TEXT).best(-1), "top is -1"),
        (lambda s: hw.evaluate.retrieval("answers.jsonl", ["a"]), "expected what Store.attribute returns"),
        (lambda s: hw.evaluate.retrieval(s.attribute(TEXT), "a.jsonl:4"), "relevant is a list of ids"),
        (lambda s: hw.evaluate.retrieval(s.attribute(TEXT), 5), "relevant is a list of ids"),
        (lambda s: hw.evaluate.lds(np.ones((1, 4)), np.ones((3, 4)), np.ones((3, 1)), resamples=0), "resamples is 0"),
        (lambda s: hw.method(5), "expected a name"),
        (lambda s: hw.method(), "expected a name"),
        (lambda s: hw.method("rise", 0.1), "settings by their names"),
        (lambda s: hw.ingest(["a b"], "S", model="m", keep="author"), "keep is str 'author', expected a list of str"),
        (lambda s: hw.ingest(["a b"], "S", model="m", batch_tokens=-5), "batch_tokens is -5"),
        (lambda s: hw.ingest(["a b"], "S", model="m", methods="stride", base="other"), "name it, such as stride@early"),
        (lambda s: hw.Capture("S", append=True), "no argument 'append'"),
        (lambda s: hw.Capture("S", steps={"2"}), "expected a list of int"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_one_line(store: hw.Store, ask, message: str):
    with pytest.raises(hw.HeadwaterError) as caught:
        ask(store)
    assert message in str(caught.value), caught.value


def test_numbers_of_numpy_are_numbers(store: hw.Store):
    assert store.attribute(TEXT, top=np.int64(3)).rows.shape == (1, 3)


def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of the models that are loaded from now on, wherever they are loaded."""
    paths: list[str] = []
    read = language_model.read_weights
    monkeypatch.setattr(
        language_model, "read_weights", lambda path, *rest: paths.append(str(path)) or read(path, *rest)
    )
    return paths


def test_a_wrong_question_loads_no_model(store: hw.Store, work: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    paths = loads(monkeypatch)
    for ask in (
        lambda: store.attribute(TEXT, method="rize"),
        lambda: store.attribute(tmp_path / "none.jsonl"),
        lambda: store.attribute(TEXT, where="source"),
        lambda: store.scores(TEXT, out=tmp_path),
        lambda: store.add("bm25"),
        lambda: hw.ingest(str(tmp_path / "none.jsonl"), tmp_path / "T", model=work / "model"),
    ):
        with pytest.raises(hw.HeadwaterError):
            ask()
    assert paths == []
    for _ in range(2):
        store.attribute(TEXT)
        store.select(TEXT, count=2)
    assert len(paths) == 1


def test_members_with_models_of_their_own_are_loaded_once_in_a_row(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    save_model(tmp_path / "early", seed=3)
    corpus = str(work / "a.jsonl")
    arguments = {"model": work / "model", "progress": False}
    hw.ingest(corpus, tmp_path / "S", methods=hw.method("rise", **RISE), **arguments)
    hw.ingest(corpus, tmp_path / "S", methods=hw.method("rise@early", **RISE), base=tmp_path / "early", progress=False)
    stride = hw.method("stride@early", subsets=12, degree=3, updates=2, checked=4, shared=8, members=2)
    hw.ingest(corpus, tmp_path / "S", methods=stride, base=tmp_path / "early", **arguments)
    opened = hw.open(tmp_path / "S", progress=False)
    early = hw.ingest(
        corpus, tmp_path / "T", methods=hw.method("rise", **RISE), model=tmp_path / "early", progress=False
    )
    expected = early.scores(TEXT)
    paths = loads(monkeypatch)
    for _ in range(2):
        np.testing.assert_array_equal(opened.scores(TEXT, method="rise@early"), expected)
        opened.attribute(TEXT, method="stride@early")
    assert [Path(path).name for path in paths] == ["early"]
    assert opened.info()["fits"]["stride@early"]["base"].endswith("early")


def test_a_model_that_was_trained_further_is_refused(work: Path, tmp_path: Path):
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(work / "model")
    opened = hw.ingest(sentences(8), tmp_path / "S", model=model, methods=hw.method("rise", **RISE), progress=False)
    opened.attribute(TEXT)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ids = torch.arange(12)[None]
    model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    for ask in (lambda: opened.attribute(TEXT), lambda: opened.add("repsim"), lambda: opened.select(TEXT, count=1)):
        with pytest.raises(StoreMismatch, match="was changed after it was given"):
            ask()


def test_outputs_do_not_destroy_the_store_or_its_corpus(store: hw.Store, work: Path):
    answers, chosen = store.attribute(TEXT), store.select(TEXT, count=2)
    before = tree(work / "S")
    for write in (
        lambda: answers.save(work / "S" / "zarr.json"),
        lambda: answers.save(work / "a.jsonl"),
        lambda: store.value(TEXT).save(work / "S" / "v.csv"),
        lambda: chosen.save(work / "a.jsonl"),
        lambda: store.scores(TEXT, out=work / "S" / "scores.zarr"),
    ):
        with pytest.raises(hw.HeadwaterError, match=r"lies inside the store|is an input"):
            write()
    assert tree(work / "S") == before


def test_values_are_saved_with_their_origin(store: hw.Store, tmp_path: Path):
    values = store.value([TEXT, "paper winter"])
    values.save(tmp_path / "v.csv")
    lines = (tmp_path / "v.csv").read_text().splitlines()
    assert len(lines) == ROWS + 1 and ",rise," in lines[1]
    assert set(values.to_arrow()["method"].to_pylist()) == {"rise"}


def test_exported_scores_have_one_meaning(store: hw.Store, tmp_path: Path):
    queries = [TEXT, "paper winter"]
    on_disk, scores = store.scores(queries, out=tmp_path / "s.zarr"), store.scores(queries)
    masks = np.random.default_rng(0).random((12, ROWS)) < 0.5
    losses = -(masks @ scores.T)
    for given in (scores, on_disk, tmp_path / "s.zarr"):
        assert hw.evaluate.lds(given, masks, losses, resamples=5).value == pytest.approx(1)


def test_answers_are_sliced_and_whole_pages_hold_all(work: Path, tmp_path: Path):
    opened = hw.ingest(
        ["river " * 60], tmp_path / "S", model=work / "model", methods=hw.method("rise", **RISE), progress=False
    )
    answers = opened.attribute([f"river stone {number}" for number in range(8)], top=1)
    assert [one.id for one in answers[2:4]] == answers.queries[2:4]
    assert answers.to_html().count("<table>") == 8 and answers._repr_html_().count("<table>") == 5
    assert "river " * 59 in answers.to_html() and "river " * 59 not in answers._repr_html_()


def test_tables_print_no_control_characters(work: Path, tmp_path: Path):
    records = [{"id": "a\x1b[2Jb", "text": f"river\x1b[31m stone {number}"} for number in range(3)]
    opened = hw.ingest(records, tmp_path / "S", model=work / "model", progress=False,
                       methods=[hw.method("rise", **RISE), "grasp"])  # fmt: skip
    shown = [opened.attribute(TEXT), opened.select(TEXT, count=1), opened.value(TEXT), opened]
    assert not any("\x1b" in repr(one) for one in shown)


def test_a_store_does_not_depend_on_the_working_directory(work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(work)
    opened = hw.open("S", progress=False)
    monkeypatch.chdir(tmp_path)
    assert len(opened.attribute(TEXT)) == 1 and os.path.isabs(opened.path)  # noqa: PTH117


def test_an_open_store_sees_what_others_append(work: Path, tmp_path: Path):
    arguments = {"model": work / "model", "progress": False}
    opened = hw.ingest(sentences(8), tmp_path / "S", methods="grasp", **arguments)
    other = hw.ingest(sentences(5, seed=9), tmp_path / "S", append=True, **arguments)
    assert len(opened) == len(other) == 13 and opened.complete and opened.methods == ["grasp"]
    assert opened.scores(TEXT).shape == (1, 13)


def test_what_is_returned_is_in_the_plan(work: Path, tmp_path: Path):
    opened = hw.open(work / "S", progress=False, memory="2GB")
    assert opened.scores(TEXT).shape == (1, ROWS) and len(opened.attribute(TEXT)[0]) == 10
    opened.compare(TEXT, ["rise", "grasp"])
    small = hw.open(work / "S", progress=False, memory=1000)
    for ask in (small.scores, small.attribute, small.value, lambda text: small.compare(text, ["rise", "grasp"])):
        with pytest.raises(BudgetError):
            ask(TEXT)


def test_examples_have_prompt_completion_and_text(store: hw.Store):
    example = store[4]
    assert example.text == sentences(ROWS)[4] and example.prompt + example.completion == example.text


def test_own_answers_are_asked_about_from_python(store: hw.Store, work: Path):
    answers = store.attribute(["river stone", "paper "], generate=True, new_tokens=4, top=2)
    assert [one.prompt for one in answers] == ["river stone", "paper "] and all(one.completion for one in answers)
    again = store.attribute([{"prompt": one.prompt, "completion": one.completion} for one in answers], top=2)
    np.testing.assert_array_equal(answers.rows, again.rows)


def test_answers_say_how_they_are_ranked(store: hw.Store):
    assert repr(store.attribute(TEXT, bottom=2)).startswith("[lowest scores first")
    shown = store.attribute(TEXT, minus="paper winter", where="source=a.jsonl")
    assert "[scores minus those of" in repr(shown) and "source=a.jsonl" in shown._repr_html_()
    assert not repr(store.attribute(TEXT)).startswith("[")
    with pytest.raises(hw.HeadwaterError, match="either top or bottom"):
        store.attribute(TEXT, top=3, bottom=3)


def test_a_row_of_a_table_is_one_question_and_a_tuple_is_none(store: hw.Store):
    import pandas

    frame = pandas.DataFrame({"prompt": ["river "], "completion": ["stone"]})
    answers = store.attribute(frame.iloc[0])
    assert len(answers) == 1 and (answers[0].prompt, answers[0].completion) == ("river ", "stone")
    for pair in (("river", "stone light"), [("river", "stone light")]):
        with pytest.raises(hw.HeadwaterError, match="a tuple of texts"):
            store.attribute(pair)
    with pytest.raises(hw.HeadwaterError, match="a prompt without a completion"):
        store.attribute({"prompt": "river"})


def test_what_no_evaluation_can_mean_is_refused(store: hw.Store):
    scores, masks = store.scores(TEXT), np.random.default_rng(0).random((10, ROWS)) < 0.5
    losses = -(masks @ scores.T)
    for call, message in (
        (lambda: hw.evaluate.lds(scores, masks * 0.5, losses), "of 0 and 1"),
        (lambda: hw.evaluate.lds(scores, np.ones((10, ROWS)), losses), "the same for every subset"),
        (lambda: hw.evaluate.lds(scores, masks, losses * np.nan), "outcomes hold NaN"),
        (lambda: hw.evaluate.retrieval(store.attribute(TEXT), ["nope"]), "nope"),
        (lambda: hw.evaluate.retrieval(store.attribute(TEXT), [3]), "which are texts"),
    ):
        with pytest.raises(hw.HeadwaterError, match=message):
            call()


def test_examples_are_sliced_and_a_missing_row_says_how_many_there_are(store: hw.Store):
    assert [example.row for example in store[2:4]] == [2, 3]
    with pytest.raises(IndexError, match="the store has 30 examples"):
        store[1000]
    with pytest.raises(IndexError, match="there are 1 queries"):
        store.attribute(TEXT)[5]
