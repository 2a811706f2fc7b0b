"""The demo: its files and output, which texts it holds out, resuming, and errors."""

import contextlib
import io
import json
import math
import os
import shutil
import subprocess
import sys
from itertools import combinations

import pytest
from headwater.engine.demo import docstring_corpus as texts
from headwater.engine.demo import hit_rates as measure
from headwater.engine.demo.tour import tour
from headwater.engine.demo.workdir import Workdir
from headwater.store.errors import CorpusError, SettingsError, StoreMismatch

SETTINGS = {"kr": 32, "kh": 32, "kg": 16}
LIBRARY = {
    "pond.py": '"""All about ponds, and about what swims in them at night."""\n'
    + "".join(
        f'def fish{n}(a, /, b, *c, d, **e):\n    """Fish number {n} swims in circles of {n} metres, for as long as the '
        f"pond is there.\n\n    It sleeps at {n} o'clock, and nobody has ever seen it eat anything but number {n}."
        '"""\n'
        for n in range(20)
    ),
    "pack/__init__.py": '"""A folder of things that are kept for later, or for never."""\n',
    "pack/thing.py": 'class Thing:\n    """A thing with a method, and a thing to be kept in a pack."""\n'
    '    def keep(self):\n        """Keep it where it is, and tell nobody that it is there."""\n',
    "copy1.py": 'def keep(self):\n    """Keep it where it is,  and tell nobody that it is there."""\n',
    "short.py": '"""Too short."""\n',
    "broken.py": "def (:\n",
    "test/skipped.py": '"""A test is no documentation, however long it may become in time."""\n',
    "_private.py": '"""A private module is no documentation, however long it may become in time."""\n',
    "if_else.py": 'try:\n    import x\nexcept ImportError:\n    def fallback():\n        """What is used where x is not there, '
    'slow but never wrong."""\n',
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished short demo: its folder, result and printed output."""
    folder, printed = tmp_path_factory.mktemp("demo") / "work", io.StringIO()
    with contextlib.redirect_stdout(printed):
        outcome = tour(str(folder), "rise", short=True, settings=SETTINGS)
    return folder, outcome, printed.getvalue()


@pytest.fixture
def library(tmp_path):
    """A small library of Python sources."""
    for name, source in LIBRARY.items():
        path = tmp_path / "lib" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    return tmp_path / "lib"


@pytest.fixture
def copy(run, tmp_path):
    """A copy of the short demo's folder, for tests that damage it."""
    shutil.copytree(run[0], tmp_path / "copy", ignore=shutil.ignore_patterns("store"))
    return tmp_path / "copy"


def lines(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_it_leaves_corpus_questions_model_store_and_answers(run):
    folder, _, _ = run
    assert {"corpus.jsonl", "questions.jsonl", "model", "store", "answers.jsonl"} <= {
        path.name for path in folder.iterdir()
    }
    assert not list(folder.glob(".*.new"))
    assert (folder / "model" / "model.safetensors").is_file() and (folder / "model" / "tokenizer.json").is_file()


def test_every_question_has_its_answers_best_first(run):
    folder, outcome, _ = run
    rows, asked = lines(folder / "answers.jsonl"), lines(folder / "questions.jsonl")
    assert len(asked) == outcome.questions > 10
    by_question = {name: [row for row in rows if row["query_id"] == name] for name in (q["id"] for q in asked)}
    for answers in by_question.values():
        scores = [row["score"] for row in answers]
        assert len(answers) == 10 and scores == sorted(scores, reverse=True) and all(map(math.isfinite, scores))


def test_the_figures_are_printed_with_the_method_bm25_and_chance(run):
    _, outcome, printed = run
    assert [hit.name.split(",")[0].split(" ")[0] for hit in outcome.hits] == ["rise", "BM25", "BM25", "chance"]
    for hit in outcome.hits:
        assert 0 <= hit.first <= hit.among <= 1
        assert f"{hit.first:.1%}" in printed
    assert "headwater attribute" in printed


def test_a_model_that_learnt_a_little_points_to_the_right_module_more_often_than_chance(run):
    method, chance = run[1].hits[0], run[1].hits[-1]
    assert method.among > chance.among


def test_held_out_texts_are_not_in_the_corpus(run):
    folder, _, _ = run
    corpus, asked = lines(folder / "corpus.jsonl"), lines(folder / "questions.jsonl")
    everything = "\n".join(" ".join(record["text"].split()) for record in corpus)
    for question in asked:
        assert " ".join(question["completion"].split()) not in everything
        assert len((question["prompt"] + question["completion"]).encode()) < 512
    assert not {q["id"] for q in asked} & {record["id"] for record in corpus}


def test_a_second_run_does_nothing_twice_and_answers_alike(run, capsys):
    folder, outcome, _ = run
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    answers = (folder / "answers.jsonl").read_bytes()
    again = tour(str(folder), "rise", short=True, settings=SETTINGS)
    assert again.hits == outcome.hits
    assert (folder / "answers.jsonl").read_bytes() == answers
    changed = [path for path, when in before.items() if path.stat().st_mtime_ns != when]
    assert {path.name for path in changed} <= {"answers.jsonl"} | {
        path.name for path in changed if "store" in path.parts
    }
    assert "already" in capsys.readouterr().err


def test_without_its_store_only_the_store_is_made_again(run, copy, capsys):
    outcome = tour(str(copy), "rise", short=True, settings=SETTINGS)
    assert outcome.hits == run[1].hits
    assert "model: " in (told := capsys.readouterr().err) and "already" in told and "steps in" not in told


def test_a_store_whose_model_is_gone_is_made_anew(copy):
    place = Workdir(str(copy))
    (copy / "store").mkdir()
    (copy / "store" / "left").write_text("over")
    assert place.drop_store() and not place.store.exists() and not place.drop_store()


@pytest.mark.slow
def test_without_its_model_model_and_store_are_made_again(run, tmp_path):
    folder = tmp_path / "again"
    shutil.copytree(run[0], folder)
    shutil.rmtree(folder / "model")
    (folder / ".model.new").mkdir()
    outcome = tour(str(folder), "rise", short=True, settings=SETTINGS)
    assert outcome.questions == run[1].questions and (folder / "model" / "config.json").is_file()
    assert not (folder / ".model.new").exists()


def test_a_folder_that_holds_something_else_is_refused_and_kept(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(SettingsError, match=r"holds something else \(thesis.tex\)"):
        tour(str(tmp_path), "rise", short=True)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_in_the_folders_place_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="cannot be used as a folder"):
        tour(str(tmp_path / "file"), "rise")


def test_a_demo_of_another_size_is_refused_with_the_difference(run):
    with pytest.raises(
        StoreMismatch, match=r"short is True in the folder, False in this run\nhint: name another --workdir"
    ):
        tour(str(run[0]), "rise", short=False)


@pytest.mark.parametrize("note", ["", "[]", '"x"', "{"])
def test_a_damaged_note_is_one_of_our_errors(tmp_path, note):
    (tmp_path / "demo.json").write_text(note)
    with pytest.raises((SettingsError, StoreMismatch)):
        Workdir(str(tmp_path)).claim({"demo": 1})


def test_a_folder_killed_before_its_note_was_finished_is_taken(tmp_path):
    (tmp_path / ".demo.json.new").write_text('{"de')
    Workdir(str(tmp_path)).claim({"demo": 1})
    Workdir(str(tmp_path)).claim({"demo": 1})
    assert lines(tmp_path / "demo.json") == [{"demo": 1}]


def test_docstrings_have_their_heading_and_no_module(library):
    found = {doc.id: doc.text for doc in texts.docstrings(library)}
    assert found["pond.fish3"].startswith("def fish3(a, b, *c, d, **e)\nFish number 3 swims")
    assert found["pack.thing.Thing"] == "class Thing\nA thing with a method, and a thing to be kept in a pack.\n"
    assert "pack" in found and "if_else.fallback" in found
    assert not {"short", "broken", "test.skipped", "_private"} & set(found)


def test_a_text_that_stands_twice_is_kept_once(library):
    ids = [doc.id for doc in texts.docstrings(library)]
    assert "copy1.keep" in ids and "pack.thing.Thing.keep" not in ids


def test_a_library_without_sources_is_one_of_our_errors(tmp_path):
    with pytest.raises(CorpusError, match="holds no documented Python source"):
        texts.docstrings(tmp_path)


def test_the_split_depends_on_ids_alone_and_leaves_siblings(library):
    docs = texts.docstrings(library)
    split = texts.split(docs, 10)
    assert split == texts.split(list(reversed(docs))[::-1], 10)
    assert [doc.id for doc in split.questions] == [doc.id for doc in texts.split(docs[::-1], 10).questions]
    assert len(split.questions) == 3 and {doc.module for doc in split.questions} == {"pond"}
    assert len(split.corpus) + 3 == len(docs)


def test_a_text_of_which_half_stands_elsewhere_is_not_asked(library):
    docs = texts.docstrings(library)
    asked = texts.split(docs, 1).questions[0]
    half = len(asked.docstring) // 2
    for part in (asked.docstring[:half], asked.docstring[half:]):
        elsewhere = texts.Docstring("pack.quote", "def quote()", "It says: " + part.replace("\n", "   "))
        assert asked not in texts.split([*docs, elsewhere], 10).questions


def test_the_module_of_an_example_is_what_one_imports():
    assert [texts.module_of(name) for name in ("a", "a.b.C.d", "a#2", "a.b#0")] == ["a", "a", "a", "a"]


def test_this_pythons_library_gives_a_corpus():
    docs = texts.docstrings(texts.standard_library())
    assert len(docs) > 2000 and len({doc.id for doc in docs}) == len(docs) == len({doc.text for doc in docs})
    small = texts.select_modules(docs, 800)
    assert 400 < len(small) < 1300
    assert len(texts.split(small, 40).questions) == 40


def test_chance_is_exact():
    corpus, asked = ["a.1", "a.2", "b.1", "c.1", "c.2", "c.3", "c.4"], ["a.x", "c.y", "d.z"]
    found = measure.chance(asked, corpus)
    draws = list(combinations(corpus, 5))
    expected = [sum(any(id[0] == q[0] for id in draw) for draw in draws) / len(draws) for q in asked]
    assert found.first == pytest.approx((2 + 4 + 0) / 7 / 3)
    assert found.among == pytest.approx(sum(expected) / 3)
    assert measure.chance(["a.x"], ["a.1"]) == measure.HitRates("chance", 1.0, 1.0)


def test_hits_count_the_first_and_the_first_five():
    answers = [["a.1", "b"], ["b", "b", "b", "b", "a#1"], ["b", "b", "b", "b", "b", "a"], []]
    assert measure.hit_rates("m", ["a.x"] * 4, answers) == measure.HitRates("m", 0.25, 0.5)


def test_bm25_finds_the_text_with_the_words():
    corpus = [{"id": "a", "text": "rivers and ponds"}, {"id": "b", "text": "sockets and threads"}]
    assert measure.bm25(corpus, ["a thread of sockets"]) == [["b", "a"]]


def test_the_command_runs_with_stdin_closed_and_stops_in_one_line(tmp_path):
    (tmp_path / "other").write_text("")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-m", "headwater", "demo", "--workdir", str(tmp_path)], cwd=tmp_path,
                          env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") <= 2
