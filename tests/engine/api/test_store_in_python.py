"""The five common jobs from Python, beside the engine's own functions, and what is refused at the door."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import headwater as hw
import numpy as np
import pyarrow.parquet as pq
import pytest
import zarr
from headwater.engine.attribution.open_session import open_session
from headwater.engine.attribution.query_options import QueryOptions
from headwater.store.errors import SettingsError
from running import done
from small import save_model, sentences, tree, write_corpus

ROWS = 60
RISE = {"kr": 16, "kh": 16, "kg": 8}
QUESTIONS = [{"prompt": "river stone ", "completion": "light garden"}, {"prompt": "paper ", "completion": "winter"}]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, a corpus of two files, and a store with rise and grasp."""
    folder = tmp_path_factory.mktemp("python")
    save_model(folder / "model")
    texts = sentences(ROWS)
    write_corpus(folder / "a.jsonl", texts[:25])
    write_corpus(folder / "b.jsonl", texts[25:])
    hw.ingest(
        [str(folder / "a.jsonl"), str(folder / "b.jsonl")], folder / "S", model=folder / "model",
        methods=[hw.method("rise", **RISE), "grasp"], progress=False,
    )  # fmt: skip
    return folder


def questions_file(path: Path) -> Path:
    path.write_text("".join(json.dumps(question) + "\n" for question in QUESTIONS))
    return path


@pytest.fixture
def store(work: Path) -> hw.Store:
    return hw.open(work / "S", progress=False)


def test_ingestion_from_python_leaves_the_command_s_bytes(work: Path, tmp_path: Path):
    settings = [part for name, value in RISE.items() for part in ("--set", f"rise.{name}", value)]
    done("ingest", work / "a.jsonl", work / "b.jsonl", "--store", tmp_path / "S", "--model", work / "model",
         "--method", "rise", "--method", "grasp", *settings)  # fmt: skip
    assert tree(tmp_path / "S") == tree(work / "S")


def test_a_store_says_what_it_is(store: hw.Store, work: Path, capsys: pytest.CaptureFixture[str]):
    assert len(store) == ROWS and store.methods == ["rise", "grasp"] and store.complete
    assert "rows 60" in repr(store) and "rise grasp" in repr(store) and "complete" in repr(store)
    assert store[3].id == "a.jsonl:4" and "".join(text for text, _ in store[3].parts) == sentences(ROWS)[3]
    assert store[-1].row == ROWS - 1
    store.show(3)
    assert "a.jsonl:4" in capsys.readouterr().out
    assert store.info()["examples"] == ROWS


def test_answers_are_the_engine_s_with_texts_apart(store: hw.Store, work: Path, tmp_path: Path):
    answers = store.attribute(QUESTIONS, method="rise", top=5)
    write = questions_file(tmp_path / "questions.jsonl")
    expected = open_session(str(work / "S"), "rise", str(write), QueryOptions(5)).attribute()
    np.testing.assert_array_equal(answers.rows, expected.rows)
    np.testing.assert_array_equal(answers.scores, expected.scores)
    assert len(answers) == 2 and answers[1].rows == expected.rows[1].tolist()
    assert answers[0].texts == [sentences(ROWS)[row] for row in expected.rows[0]]
    assert [one.prompt for one in answers] == ["river stone ", "paper "]
    assert [one.completion for one in answers] == ["light garden", "winter"]
    table = answers.to_arrow()
    assert table.num_rows == 10 and table["row"].to_pylist() == expected.rows.ravel().tolist()
    assert answers.to_pandas().shape[0] == 10
    answers.save(tmp_path / "answers.parquet")
    assert pq.read_table(tmp_path / "answers.parquet")["row"].to_pylist() == table["row"].to_pylist()
    for suffix in ("jsonl", "json", "csv", "html"):
        answers.save(tmp_path / f"answers.{suffix}")
    from headwater.engine.results.answers_file import relation
    from headwater.store.feature_store import FeatureStore

    said = relation(str(tmp_path / "answers.json"), FeatureStore.open(str(work / "S")))
    assert said["relation"] == "of this store, as it is now" and answers.origin.settings["kr"] == 16
    assert "light garden" in repr(answers) and "<table>" in answers._repr_html_()


def test_html_escapes_what_corpora_hold(work: Path, tmp_path: Path):
    texts = ["<script>alert(1)</script> river", "stone & light"]
    opened = hw.ingest(
        texts, tmp_path / "S", model=str(work / "model"), methods=hw.method("rise", **RISE), progress=False
    )
    page = opened.attribute("<b>river</b> water", top=2).to_html()
    assert "<script>" not in page and "&lt;script&gt;" in page and "<b>river" not in page


def test_a_bare_string_is_a_completion_that_no_template_reads(work: Path, tmp_path: Path):
    records = [{"q": f"{text} ", "a": "yes"} for text in sentences(8)]
    opened = hw.ingest(records, tmp_path / "S", model=str(work / "model"), methods=hw.method("rise", **RISE),
                       prompt_template="{q}", completion_template="{a}", progress=False)  # fmt: skip
    answers = opened.attribute("river stone", top=2)
    assert (answers[0].prompt, answers[0].completion) == ("", "river stone")
    assert "template" in repr(opened)
    by_template = opened.attribute({"q": "river ", "a": "stone"}, top=2)
    assert (by_template[0].prompt, by_template[0].completion) == ("river ", "stone")


def test_scores_are_the_caller_s_and_stream_to_disk(store: hw.Store, tmp_path: Path):
    scores = store.scores(QUESTIONS)
    assert scores.shape == (2, ROWS) and scores.dtype == np.float32 and scores.flags.owndata
    on_disk = store.scores(QUESTIONS, out=tmp_path / "s.zarr")
    np.testing.assert_array_equal(np.asarray(on_disk).T, scores)
    assert zarr.open_group(str(tmp_path / "s.zarr"), mode="r").attrs["method"] == "rise"
    blocks = list(store.iter_scores(QUESTIONS))
    np.testing.assert_array_equal(np.concatenate([part for _, part in blocks], 1), scores)
    order = np.argsort(scores[0], kind="stable")[:4]
    np.testing.assert_array_equal(store.attribute(QUESTIONS, bottom=4).rows[0], order)
    contrast = store.scores(QUESTIONS, minus="winter")
    np.testing.assert_array_equal(contrast, scores - store.scores("winter"))
    of_b = store.attribute(QUESTIONS, where={"source": "b.jsonl"})
    assert of_b.rows.min() >= 25
    values = store.value(QUESTIONS)
    np.testing.assert_allclose(values.scores, scores.mean(0), rtol=1e-4, atol=1e-6)
    assert values.to_arrow().num_rows == ROWS and values.best(1)[0] == values.scores.argmax()


def test_a_second_question_costs_no_model_load(work: Path, monkeypatch: pytest.MonkeyPatch):
    from headwater.engine.models import language_model

    paths: list[object] = []
    read = language_model.read_weights
    monkeypatch.setattr(language_model, "read_weights", lambda path, *rest: paths.append(path) or read(path, *rest))
    opened = hw.open(work / "S", progress=False)
    for text in ("river stone", "stone light", "light river"):
        opened.attribute(text, top=1)
        assert len(paths) == 1
    opened.compare(QUESTIONS, ["rise", "grasp", "bm25"])
    opened.select(QUESTIONS, count=3)
    opened.scores(QUESTIONS)
    assert len(paths) == 1


def test_methods_are_compared(store: hw.Store):
    comparison = store.compare(QUESTIONS, methods=["rise", "grasp", "bm25"], top=10)
    rise, grasp = (store.scores(QUESTIONS, method=name) for name in ("rise", "grasp"))
    best = [np.argsort(-scores, 1, kind="stable")[:, :10] for scores in (rise, grasp)]
    shared = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(*best, strict=True)])
    from scipy.stats import spearmanr

    correlation = np.mean([spearmanr(a, b).statistic for a, b in zip(rise, grasp, strict=True)])
    pair = comparison.pair("grasp", "rise")
    assert pair.overlap == pytest.approx(shared) and pair.correlation == pytest.approx(correlation)
    assert len(comparison.pairs) == 3 and comparison.to_arrow().num_rows == 3
    assert "bm25" in repr(comparison) and "no rows" in repr(comparison)


def test_a_selection_has_the_records_of_its_examples(store: hw.Store, work: Path, tmp_path: Path):
    chosen = store.select(QUESTIONS, count="10%")
    assert len(chosen) == 6 and chosen.facts["examples"] == 6
    assert [record["text"] for record in chosen.records()] == [sentences(ROWS)[row] for row in chosen.rows]
    questions_file(tmp_path / "task.jsonl")
    done("select", work / "S", "--queries", tmp_path / "task.jsonl", "--count", 6, "-o", tmp_path / "chosen.jsonl")
    chosen.save(tmp_path / "python.jsonl")
    assert (tmp_path / "python.jsonl").read_text() == (tmp_path / "chosen.jsonl").read_text()
    chosen.save(tmp_path / "original.jsonl", original=True)
    originals = [json.loads(line) for line in (tmp_path / "original.jsonl").read_text().splitlines()]
    assert [line["text"] for line in originals] == [record["text"] for record in chosen.records()]
    assert [line["headwater"]["row"] for line in originals] == chosen.rows.tolist()
    of_b = store.select(QUESTIONS, count=4, where="source=b.jsonl")
    assert of_b.rows.min() >= 25


def test_methods_are_added_from_what_the_store_keeps(work: Path, tmp_path: Path):
    texts = sentences(20)
    opened = hw.ingest(
        texts, tmp_path / "S", model=str(work / "model"), methods=hw.method("rise", **RISE), progress=False
    )
    opened.add("repsim", hw.method("stride", subsets=12, degree=3, updates=2, checked=4, shared=8, members=2))
    assert opened.methods == ["rise", "repsim", "stride"]
    assert len(opened.attribute("river", method="stride", top=3)[0]) == 3
    again = hw.open(tmp_path / "S", progress=False)
    assert again.methods == opened.methods


def test_evaluations_show_and_plot_themselves(store: hw.Store, tmp_path: Path):
    scores = store.scores(QUESTIONS)
    draw = np.random.default_rng(0)
    masks = draw.random((40, ROWS)) < 0.5
    outcomes = -(masks @ scores.T)
    figures = hw.evaluate.lds(scores, masks, outcomes, resamples=20)
    assert figures.value == pytest.approx(1) and "LDS" in repr(figures)
    figures.plot(tmp_path / "lds.png")
    assert (tmp_path / "lds.png").stat().st_size > 1000
    answers = store.attribute(QUESTIONS, top=5)
    assert hw.evaluate.retrieval(answers, answers[0].ids[:2]).facts()


def test_wrong_arguments_are_refused_at_the_door(store: hw.Store, work: Path, tmp_path: Path):
    refused = [
        (lambda: store.attribute(QUESTIONS, topp=3), "attribute has no argument 'topp'; did you mean top?"),
        (lambda: store.attribute(QUESTIONS, top="3"), "attribute: top is str '3', expected int"),
        (lambda: store.attribute(QUESTIONS, top=0), "at least 1"),
        (lambda: store.attribute(), "missing a required argument: 'queries'"),
        (lambda: store.attribute(QUESTIONS, method="rize"), "rize"),
        (lambda: store.attribute(3.5), "float"),
        (lambda: store.attribute(QUESTIONS, combine="max"), "combine is str 'max', expected 'mean' or 'sum'"),
        (lambda: store.attribute(QUESTIONS, where="source"), "COLUMN=VALUE"),
        (lambda: store.select(QUESTIONS, count="many"), "10%"),
        (lambda: store.compare(QUESTIONS, ["rise"]), "two methods"),
        (lambda: store["a"], "expected a row number"),
        (lambda: hw.ingest("none.jsonl", tmp_path / "S", model=str(work / "model")), "no such file"),
        (lambda: hw.ingest([], tmp_path / "S", model=str(work / "model")), "empty"),
        (lambda: hw.ingest(["a"], tmp_path / "S"), "model"),
        (lambda: hw.ingest(["a"], tmp_path / "S", model=7), "int"),
        (lambda: hw.method("rise", tauu=1), "tauu"),
        (lambda: hw.method("rize"), "rize"),
        (lambda: hw.open(tmp_path / "none"), "none"),
        (lambda: hw.evaluate.lds("a", "b", "c"), "a"),
        (lambda: hw.evaluate.lds(object(), [[1]], [[1]]), "expected numbers"),
    ]  # fmt: skip
    for call, message in refused:
        with pytest.raises(hw.HeadwaterError) as caught:
            call()
        assert message in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(IndexError):
        store[ROWS]
    with store:
        pass
    for call in (lambda: store.attribute("a"), lambda: len(store), lambda: store[0], lambda: store.methods):
        with pytest.raises(SettingsError, match="the store is closed"):
            call()
    assert repr(store) == "Store(closed)"


def test_the_package_is_light_until_it_is_used():
    code = (
        "import sys, time; start = time.perf_counter(); import headwater as hw; seconds = time.perf_counter() - start; "
        "assert not {'torch', 'zarr', 'numpy', 'numba', 'click'} & set(sys.modules), sys.modules.keys(); "
        "assert seconds < 0.1, seconds; assert 'open' in dir(hw) and 'open' not in hw.__all__; "
        "assert not hasattr(hw, 'nothing')"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_public_names_exist_and_have_docstrings():
    for name in (*hw.__all__, "open"):
        assert getattr(hw, name).__doc__, name


def test_utilities_of_subsets_are_the_command_s(store: hw.Store, work: Path, tmp_path: Path):
    masks = np.random.default_rng(1).random((5, ROWS)) < 0.4
    np.save(tmp_path / "masks.npy", masks)
    questions_file(tmp_path / "task.jsonl")
    done("predict", work / "S", "--queries", tmp_path / "task.jsonl", "--subsets", tmp_path / "masks.npy",
         "-o", tmp_path / "u.npy")  # fmt: skip
    expected = np.load(tmp_path / "u.npy").ravel()
    np.testing.assert_array_equal(store.predict(QUESTIONS, masks), expected)
    np.testing.assert_array_equal(store.predict(QUESTIONS, tmp_path / "masks.npy"), expected)
    for bad, message in ((masks[:, 1:], "59"), (masks * 2, "0 and 1"), (masks & False, "subset 0 holds no example")):
        with pytest.raises(hw.HeadwaterError, match=message):
            store.predict(QUESTIONS, bad)


def test_kept_columns_are_conditions_and_groups(work: Path, tmp_path: Path):
    records = [{"text": text, "author": "ab"[at % 2]} for at, text in enumerate(sentences(12))]
    opened = hw.ingest(records, tmp_path / "S", model=str(work / "model"), methods=hw.method("rise", **RISE),
                       keep=["author"], progress=False)  # fmt: skip
    rows = opened.attribute("river stone", where={"author": "b"}, top=12).rows
    assert sorted(rows[0].tolist()) == list(range(1, 12, 2))


def test_models_are_folders_or_objects(work: Path, tmp_path: Path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(work / "model")
    tokenizer = AutoTokenizer.from_pretrained(work / "model")
    by_object = hw.open(work / "S", model=model, progress=False)
    expected = hw.open(work / "S", progress=False).scores("river stone")
    np.testing.assert_array_equal(by_object.scores("river stone"), expected)
    np.testing.assert_array_equal(
        hw.open(work / "S", model=(model, tokenizer), progress=False).scores("river stone"), expected
    )
    tuned = AutoModelForCausalLM.from_pretrained(work / "model")
    tuned.lm_head.weight.data += 0.01
    with pytest.raises(hw.HeadwaterError, match="does not match"):
        hw.open(work / "S", model=tuned, tokenizer=tokenizer)
    other = hw.ingest(sentences(12), tmp_path / "T", model=tuned, tokenizer=tokenizer, progress=False,
                      methods=hw.method("rise", **RISE))  # fmt: skip
    assert "an object in memory" in repr(other)
    with pytest.raises(hw.HeadwaterError, match="model"):
        hw.open(tmp_path / "T", progress=False).attribute("river")
    save_model(tmp_path / "other", seed=5)
    with pytest.raises(hw.HeadwaterError, match="model is"):
        hw.open(work / "S", model=tmp_path / "other", progress=False).attribute("river stone")


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft asks for it
def test_an_adapter_in_memory_is_a_model(work: Path, tmp_path: Path):
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(work / "model")
    torch.manual_seed(0)
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    tokenizer = AutoTokenizer.from_pretrained(work / "model")
    opened = hw.ingest(sentences(12), tmp_path / "S", model=(adapted, tokenizer), methods=hw.method("rise", **RISE),
                       progress=False)  # fmt: skip
    plain = hw.ingest(
        sentences(12), tmp_path / "T", model=work / "model", methods=hw.method("rise", **RISE), progress=False
    )
    assert not np.array_equal(opened.scores("river stone"), plain.scores("river stone"))
    assert any("lora" in name for name, _ in adapted.named_parameters())


def test_completion_and_help_show_every_option():
    import inspect

    names = inspect.signature(hw.Store.attribute).parameters
    assert {"queries", "method", "top", "bottom", "minus", "where", "members"} <= set(names)
    assert {"model", "methods", "keep", "prompt_template", "memory"} <= set(inspect.signature(hw.ingest).parameters)


def test_an_interrupted_ingestion_loses_nothing(work: Path, tmp_path: Path):
    from headwater.engine.data.record_source import RecordSource

    texts = sentences(1100)

    def records(start: int, stop: int | None):
        for number in range(start, len(texts)):
            if number == stop:
                raise KeyboardInterrupt
            yield {"text": texts[number]}

    whole = RecordSource("texts", "0a", len(texts), lambda start: records(start, None))
    cut = RecordSource("texts", "0a", len(texts), lambda start: records(start, 1050 if start < 1050 else None))
    arguments = {"model": work / "model", "methods": hw.method("rise", **RISE), "progress": False, "boundary": "joined"}
    with pytest.raises(KeyboardInterrupt):
        hw.ingest(cut, tmp_path / "S", **arguments)
    assert len(hw.open(tmp_path / "S", progress=False)) == 1024
    assert not hw.open(tmp_path / "S", progress=False).complete
    with pytest.raises(hw.HeadwaterError, match="unfinished"):
        hw.open(tmp_path / "S", progress=False).attribute("river stone")
    hw.ingest(whole, tmp_path / "S", **arguments)
    hw.ingest(whole, tmp_path / "T", **arguments)
    assert tree(tmp_path / "S") == tree(tmp_path / "T")


def test_a_method_that_is_fitted_may_be_the_only_one(work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    stride = hw.method("stride", subsets=12, degree=3, updates=2, checked=4, shared=8, members=2)
    texts = [*sentences(20), ""]
    opened = hw.ingest(texts, tmp_path / "S", model=work / "model", methods=stride, on_error="skip")
    assert opened.methods == ["stride"] and len(opened) == 20
    assert any("empty text" in note for note in opened.notes) and "skipped: " in capsys.readouterr().err
    assert len(opened.attribute("river stone", top=3)[0]) == 3
