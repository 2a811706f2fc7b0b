"""Queries as the shell gives them, and what is made of their answers: one text, a prompt, stdin, the model's own answer."""

from __future__ import annotations

import gc
import json
import shutil
import weakref
from pathlib import Path

import headwater as hw
import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from headwater.cli import main
from running import done, headwater
from small import save_model, sentences, tree, write_corpus

SMALL = [part for name, value in (("kr", 16), ("kh", 16), ("kg", 8)) for part in ("--set", f"rise.{name}", value)]
PAIR = ("--prompt", "river ", "--completion", "stone light")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of two files, with rise and grasp."""
    folder = tmp_path_factory.mktemp("questions")
    save_model(folder / "model")
    write_corpus(folder / "a.jsonl", sentences(25))
    write_corpus(folder / "b.jsonl", sentences(35, seed=1))
    done("ingest", folder / "a.jsonl", folder / "b.jsonl", "--store", folder / "S", "--model", folder / "model",
         "--method", "rise", "--method", "grasp", *SMALL)  # fmt: skip
    (folder / "pair.jsonl").write_text('{"prompt": "river ", "completion": "stone light"}\n')
    return folder


def answers(*words: object, stdin: str | None = None) -> list[dict]:
    result = CliRunner().invoke(main, ["attribute", *map(str, words), "--json"], input=stdin)
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def essence(rows: list[dict]) -> list[tuple]:
    names = ("rank", "score", "row", "method", "query_prompt", "query_completion")
    return [tuple(row[name] for name in names) for row in rows]


def test_a_prompt_with_its_completion_is_the_query_of_a_file(work: Path):
    from_file = answers(work / "S", "--queries", work / "pair.jsonl")
    assert essence(answers(work / "S", *PAIR)) == essence(from_file) and len(from_file) == 10
    piped = answers(work / "S", "--queries", "-", stdin=(work / "pair.jsonl").read_text())
    assert essence(piped) == essence(from_file)


def test_a_text_is_a_completion_without_a_prompt(work: Path):
    rows = answers(work / "S", "--query", "river stone", "--query", "paper winter", "--top", 2)
    assert [(row["query_prompt"], row["query_completion"]) for row in rows] == [
        ("", "river stone"), ("", "river stone"), ("", "paper winter"), ("", "paper winter"),
    ]  # fmt: skip
    assert essence(answers(work / "S", "--queries", "-", "--top", 2, stdin="river stone\n\npaper winter\n")) == essence(
        rows
    )


def test_the_model_s_own_answer_is_asked_about_and_shown_first(work: Path):
    result = done("attribute", work / "S", "--prompt", "river stone ", "--generate", "--new-tokens", 6, "--top", 1)
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(work / "model"),
        AutoTokenizer.from_pretrained(work / "model"),
    )
    ids = torch.tensor([tokenizer("river stone ")["input_ids"]])
    made = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False, pad_token_id=0)
    answer = tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True)
    assert result.stderr.startswith(f"river stone  → {answer}".split("\n")[0][:20])
    (row,) = answers(work / "S", "--prompt", "river stone ", "--generate", "--new-tokens", 6, "--top", 1)
    assert (row["query_prompt"], row["query_completion"]) == ("river stone ", answer)


def test_opponents_conditions_and_contrasts(work: Path):
    store = hw.open(work / "S", progress=False)
    question = {"prompt": "river ", "completion": "stone light"}
    scores = store.scores(question, method="rise")[0]
    rows = answers(work / "S", *PAIR, "--bottom", 4, "--method", "rise")
    assert [row["row"] for row in rows] == np.argsort(scores, kind="stable")[:4].tolist()
    of_a = answers(work / "S", *PAIR, "--where", "source=a.jsonl", "--top", 50)
    assert sorted(row["row"] for row in of_a) == list(range(25))
    minus = answers(work / "S", "--query", "river stone light", "--minus", work / "pair.jsonl", "--top", 3)
    difference = store.scores("river stone light", method="rise")[0] - scores
    assert [row["row"] for row in minus] == np.argsort(-difference, kind="stable")[:3].tolist()
    done("value", work / "S", "--queries", work / "pair.jsonl", "--where", "source=b.jsonl", "-o", work / "v.parquet")
    assert pq.read_table(work / "v.parquet")["row"].to_pylist() == list(range(25, 60))


def test_several_methods_stand_side_by_side(work: Path, tmp_path: Path):
    shown = done("attribute", work / "S", *PAIR, "--method", "rise", "--method", "bm25", "--top", 3).stdout
    assert "=== rise ===" in shown and "=== bm25 ===" in shown and "have in common" in shown
    done(
        "attribute", work / "S", *PAIR, "--method", "rise", "--method", "bm25", "--top", 3, "-o", tmp_path / "o.parquet"
    )
    table = pq.read_table(tmp_path / "o.parquet")
    assert table["method"].to_pylist() == ["rise"] * 3 + ["bm25"] * 3
    said = json.loads(done("info", tmp_path / "o.parquet", work / "S", "--json").stdout)["methods"]
    assert [one["method"] for one in said] == ["rise", "bm25"] and said[0]["origin"]["settings"]["kr"] == 16


BOTH = ("--method", "rise", "--method", "bm25", "--top", 3)


def test_answers_of_several_methods_in_one_file_are_told_apart(work: Path, tmp_path: Path):
    for form in ("json", "html", "parquet", "jsonl", "csv"):
        done("attribute", work / "S", *PAIR, *BOTH, "-o", tmp_path / f"o.{form}")
    whole = json.loads((tmp_path / "o.json").read_text())
    assert [query["method"] for query in whole["queries"]] == ["rise", "bm25"]
    assert [one["method"] for one in whole["headwater"]["methods"]] == ["rise", "bm25"]
    assert len(whole["queries"][0]["answers"]) == 3 and "method" not in whole["queries"][0]["answers"][0]
    page = (tmp_path / "o.html").read_text()
    assert page.count(" · rise</h2>") == page.count(" · bm25</h2>") == 1 and "<title>rise, bm25" in page
    assert page.count("<dl>") == 2 == page.count("<dt>settings</dt>")
    done("attribute", work / "S", *PAIR, "--method", "rise", "-o", tmp_path / "one.json")
    assert "method" not in json.loads((tmp_path / "one.json").read_text())["queries"][0]


def test_several_methods_are_compared_with_a_store_that_has_changed(work: Path, tmp_path: Path):
    shutil.copytree(work / "S", tmp_path / "S")
    for form in ("json", "html", "parquet"):
        done("attribute", work / "S", *PAIR, *BOTH, "-o", tmp_path / f"o.{form}")
    write_corpus(tmp_path / "more.jsonl", sentences(3, seed=9))
    done("ingest", tmp_path / "more.jsonl", "--store", tmp_path / "S", "--model", work / "model", "--append")
    for form in ("json", "html", "parquet"):
        changed = headwater("info", tmp_path / f"o.{form}", tmp_path / "S")
        said = changed.stdout
        assert changed.exit_code == 1
        for method in ("rise", "bm25"):
            assert f"answers of {method}, of this store before examples were added: 60 then, 63 now" in said
        assert all(line in said for line in ("settings {", "model    "))


def test_a_file_says_how_its_scores_were_derived(work: Path, tmp_path: Path):
    derived = ["--method", "rise", "--minus", work / "pair.jsonl", "--where", "source=b.jsonl", "--bottom", 2]
    for form in ("json", "html", "parquet"):
        done("attribute", work / "S", "--query", "river stone", *derived, "-o", tmp_path / f"d.{form}")
        said = done("info", tmp_path / f"d.{form}", work / "S").stdout
        lines = ["minus    river  → stone light", "where    source=b.jsonl", "order    lowest scores first"]
        assert [line for line in said.splitlines() if line in lines] == lines
        origin = json.loads(done("info", tmp_path / f"d.{form}", work / "S", "--json").stdout)["origin"]
        assert origin["contrast"] == [{"prompt": "river ", "completion": "stone light"}]
        assert (origin["conditions"], origin["lowest"], origin["members"]) == (["source=b.jsonl"], True, [])
    assert "<dt>minus</dt><dd>river  → stone light</dd>" in (tmp_path / "d.html").read_text()
    done(
        "attribute", work / "S", "--query", "river stone", "--bottom", 2, "--method", "rise", "-o", tmp_path / "b.json"
    )
    assert "order    lowest scores first" in done("info", tmp_path / "b.json", work / "S").stdout
    done("attribute", work / "S", "--query", "river stone", "--method", "rise", "-o", tmp_path / "plain.json")
    plain = done("info", tmp_path / "plain.json", work / "S").stdout
    assert not any(f"\n{name:<8} " in plain for name in ("minus", "where", "order", "members", "scan"))


def test_a_copy_that_was_scanned_first_is_named(work: Path, tmp_path: Path):
    shutil.copytree(work / "S", tmp_path / "S")
    done("compress", tmp_path / "S", "--precision", "int8")
    for words in (["--scan", "int8"], ["--certify"]):
        done("attribute", tmp_path / "S", *PAIR, *words, "-o", tmp_path / "c.parquet")
        assert "scan     int8 copy first" in done("info", tmp_path / "c.parquet", tmp_path / "S").stdout


def test_one_session_at_a_time_is_in_memory(work: Path, monkeypatch: pytest.MonkeyPatch):
    from headwater.engine.attribution import open_session as module

    opened: list[weakref.ref] = []
    open_one = module.open_session

    def watched(*words: object):
        gc.collect()
        assert [session() for session in opened] == [None] * len(opened)
        session = open_one(*words)
        opened.append(weakref.ref(session))
        return session

    monkeypatch.setattr(module, "open_session", watched)
    done("attribute", work / "S", *PAIR, "--method", "rise", "--method", "grasp", "--method", "bm25")
    assert len(opened) == 3


def test_the_method_may_be_left_out_where_it_is_clear(work: Path, tmp_path: Path):
    assert {row["method"] for row in answers(work / "S", *PAIR)} == {"rise"}
    done("ingest", work / "a.jsonl", "--store", tmp_path / "one", "--model", work / "model", "--method", "repsim")
    assert {row["method"] for row in answers(tmp_path / "one", *PAIR)} == {"repsim"}
    done("add", tmp_path / "one", "grasp")
    result = headwater("attribute", tmp_path / "one", *PAIR)
    assert result.exit_code == 1 and "it has repsim, grasp" in result.stderr


def test_a_method_is_added_without_the_corpus(work: Path, tmp_path: Path):
    for name in ("ingested", "added"):
        write_corpus(tmp_path / "c.jsonl", sentences(30))
        done(
            "ingest", tmp_path / "c.jsonl", "--store", tmp_path / name, "--model", work / "model", "--method", "repsim"
        )
    done("ingest", tmp_path / "c.jsonl", "--store", tmp_path / "ingested", "--method", "rise", *SMALL)
    (tmp_path / "c.jsonl").unlink()
    done("add", tmp_path / "added", "rise", *SMALL)
    assert tree(tmp_path / "added") == tree(tmp_path / "ingested")


def test_a_wrong_setting_of_a_fit_is_refused_before_rows_are_stored(work: Path):
    before = tree(work / "S")
    result = headwater("add", work / "S", "repsim", "stride", "--set", "stride.subsets", "bad")
    assert result.exit_code == 1 and "method stride" in result.stderr and tree(work / "S") == before


def test_the_plan_takes_contrasts_and_the_lowest_scores(work: Path):
    words = ("plan", "attribute", work / "S", *PAIR, "--json")
    plans = [
        json.loads(done(*words, *more).stdout)
        for more in ((), ("--bottom", 4, "--where", "source=a.jsonl"), ("--minus", work / "pair.jsonl"))
    ]
    parts = [set(plan["parts"]) for plan in plans]
    assert "filter of examples" in parts[1] - parts[0]
    assert plans[2]["total"] > plans[0]["total"]


def test_a_part_of_the_examples_is_selected(work: Path, tmp_path: Path):
    done("select", work / "S", "--queries", work / "pair.jsonl", "--count", "10%", "-o", tmp_path / "six.jsonl")
    done("select", work / "S", "--queries", work / "pair.jsonl", "--count", 6, "-o", tmp_path / "6.jsonl")
    assert (tmp_path / "six.jsonl").read_text() == (tmp_path / "6.jsonl").read_text()
    done("select", work / "S", "--queries", work / "pair.jsonl", "--count", 5, "--where", "source=a.jsonl",
         "-o", tmp_path / "a.jsonl")  # fmt: skip
    assert {json.loads(line)["source"] for line in (tmp_path / "a.jsonl").read_text().splitlines()} == {"a.jsonl"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no query"),
        (["--query", "a", "--queries", "pair.jsonl"], "queries in several ways"),
        (["--prompt", "a"], "1 prompts and 0 completions"),
        (["--prompt", "a", "--completion", "b", "--generate"], "--generate makes the completions"),
        (["--query", "river stone", "--where", "source"], "expected COLUMN=VALUE"),
        (["--query", "river stone", "--where", "source=c.jsonl"], "there are a.jsonl, b.jsonl"),
        (["--query", "river stone", "--where", "author=me"], "has no column author"),
        (["--query", "river stone", "--method", "rise", "--method", "bm25", "--all-scores", "s.zarr"], "several methods"),
        (["--query", "river stone", "--where", "source=a.jsonl", "--scan", "int8"], "leave out --scan"),
        (["--query", "river stone", "--minus", "none.jsonl"], "no such file"),
    ],
)  # fmt: skip
def test_what_is_no_question_is_refused_in_one_line(work: Path, words: list[str], message: str):
    result = headwater("attribute", work / "S", *words)
    assert result.exit_code in (1, 2) and message in result.stderr
    assert len(result.stderr.strip().splitlines()) <= 2 and "Traceback" not in result.stderr


@pytest.mark.parametrize("command", [("attribute",), ("plan", "attribute")])
def test_groups_have_no_lowest_examples(work: Path, command: tuple[str, ...]):
    result = headwater(*command, work / "S", *PAIR, "--by", "source", "--bottom", 3)
    assert result.exit_code == 2 and "leave out --bottom" in result.stderr


def test_stdin_that_holds_no_queries_is_refused(work: Path):
    for stdin, message in (
        ("", "no query in stdin"), ('{"text": "a b"}\n{"text"\n', "stdin:2: bad JSON"), (" []", "its array is empty"),
        ("[INST] Why?\n", "stdin, which begins as a JSON array: bad JSON"), (b"a b\n\xff\xfe\n", "stdin:2: not UTF-8"),
        (b'["a\xff"]', "stdin: not UTF-8"), ("[1, [2]]", "record 1 is of type int"),
    ):  # fmt: skip
        result = CliRunner().invoke(main, ["attribute", str(work / "S"), "--queries", "-"], input=stdin)
        assert result.exit_code == 1 and message in result.stderr, result.stderr
        assert len(result.stderr.strip().splitlines()) <= 2 and "Traceback" not in result.stderr


def test_a_json_array_in_stdin_is_its_elements(work: Path):
    records = [{"text": "45 km in m"}, {"prompt": "a b", "completion": "c d"}]
    lines = "".join(json.dumps(record) + "\n" for record in records)
    answers = []
    for stdin in (lines, json.dumps(records), "\ufeff\n " + json.dumps(records, indent=1)):
        result = CliRunner().invoke(main, ["attribute", str(work / "S"), "--queries", "-", "--json"], input=stdin)
        assert result.exit_code == 0, result.output
        answers.append(result.stdout)
    assert answers[0] == answers[1] == answers[2] and len(answers[0].splitlines()) == 20


def test_answers_of_several_methods_are_evaluated_one_by_one(work: Path, tmp_path: Path):
    out = tmp_path / "o.jsonl"
    done("attribute", work / "S", *PAIR, "--method", "rise", "--method", "bm25", "-o", out)
    (tmp_path / "relevant.txt").write_text("a.jsonl:3\n")
    words = ["evaluate", "retrieval", "--results", out, "--labels", tmp_path / "relevant.txt"]
    result = headwater(*words)
    assert (
        result.exit_code == 1 and "has answers of rise and bm25" in result.stderr and "--method NAME" in result.stderr
    )
    assert "average precision" in done(*words, "--method", "bm25").stdout
    assert "no answers of grasp" in headwater(*words, "--method", "grasp").stderr


def test_appended_documents_get_rows_of_every_method(work: Path, tmp_path: Path):
    first, more = (
        write_corpus(tmp_path / "a.jsonl", sentences(10)),
        write_corpus(tmp_path / "b.jsonl", sentences(5, seed=7)),
    )
    done(
        "ingest", first, "--store", tmp_path / "S", "--model", work / "model", "--method", "grasp", "--method", "repsim"
    )
    save_model(tmp_path / "early", seed=4)
    done("ingest", first, "--store", tmp_path / "S", "--method", "repsim@early", "--base", tmp_path / "early")
    result = done("ingest", first, more, "--store", tmp_path / "S", "--append")
    assert "rows of repsim@early for 10 of 15 examples" in result.stderr and "headwater add" in result.stderr
    store = hw.open(tmp_path / "S", progress=False)
    assert store.methods == ["grasp", "repsim", "repsim@early"] and store.scores(
        "river stone", method="grasp"
    ).shape == (1, 15)
    done("add", tmp_path / "S", "repsim@early")
    assert store.complete


def test_quotas_of_everything_add_up_to_the_count(work: Path, tmp_path: Path):
    halves = ["--quota", "source=a.jsonl:0.5", "--quota", "source=b.jsonl:0.5"]
    done("select", work / "S", "--queries", work / "pair.jsonl", "--count", 7, *halves, "-o", tmp_path / "seven.jsonl")
    sources = [json.loads(line)["source"] for line in (tmp_path / "seven.jsonl").read_text().splitlines()]
    assert sorted(sources.count(name) for name in ("a.jsonl", "b.jsonl")) == [3, 4]


def test_an_answer_has_one_end_of_the_ranking(work: Path):
    result = headwater("attribute", work / "S", *PAIR, "--top", 2, "--bottom", 2)
    assert result.exit_code == 2 and "--top and --bottom are two ends" in result.stderr
