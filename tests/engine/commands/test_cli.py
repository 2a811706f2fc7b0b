"""The command line: what it prints, where, with which exit code; every bad input is one line and loses nothing."""

from __future__ import annotations

import csv
import json
import re
import resource
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner, Result
from headwater.cli import main
from old_format import make_old
from small import save_model, sentences, tree, write_corpus

SMALL = ["--set", "rise.kr", "12", "--set", "rise.kh", "8", "--set", "rise.kg", "4"]


def call(*words: Any) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model") / "llama")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus") / "corpus.jsonl", sentences(150))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, model: Path, corpus: Path) -> Path:
    folder = tmp_path_factory.mktemp("store") / "S"
    done = call("ingest", corpus, "--store", folder, "--model", model, *SMALL)
    assert done.exit_code == 0, done.stderr
    assert f"{folder}: 150 examples, 150 read in this run" in done.stderr
    assert done.stdout == ""
    return folder


@pytest.fixture(scope="module")
def queries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("queries") / "q.jsonl", [sentences(150)[i] for i in (3, 77, 149)])


def test_an_example_finds_itself(store: Path, queries: Path) -> None:
    output = call("attribute", store, "--queries", queries, "--top", 4, "--json")
    rows = [json.loads(line) for line in output.stdout.splitlines()]
    assert [row["rank"] for row in rows] == [1, 2, 3, 4] * 3
    assert [row["row"] for row in rows if row["rank"] == 1] == [3, 77, 149]
    assert rows[0]["completion"] == sentences(150)[3]
    assert rows[0]["example_id"] == "corpus.jsonl:4"
    assert rows[0]["score"] == pytest.approx(1, abs=1e-3)


def test_the_table_is_for_people(store: Path, queries: Path) -> None:
    output = call("attribute", store, "--queries", queries, "--top", 2)
    assert re.search(
        r"q\.jsonl:1  3 \w+ .*\n +rank +score +example +completion\n +1 +1\.0000 +corpus\.jsonl:4 +3 ", output.stdout
    )


def test_files_agree_with_each_other(store: Path, queries: Path, tmp_path: Path) -> None:
    for name in ("a.jsonl", "a.csv", "a.parquet"):
        done = call("attribute", store, "--queries", queries, "--top", 5, "-o", tmp_path / name)
        assert (done.exit_code, done.stdout) == (0, "")
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    table = pq.read_table(tmp_path / "a.parquet").to_pylist()
    with (tmp_path / "a.csv").open(newline="") as file:
        cells = list(csv.DictReader(file))
    assert len(lines) == len(table) == len(cells) == 15
    for line, row, cell in zip(lines, table, cells, strict=True):
        assert (
            (line["row"], line["completion"])
            == (row["row"], row["completion"])
            == (int(cell["row"]), cell["completion"])
        )
        assert line["score"] == pytest.approx(row["score"])


def test_value_is_the_mean_of_the_scores(store: Path, queries: Path, tmp_path: Path) -> None:
    call("attribute", store, "--queries", queries, "--top", 150, "-o", tmp_path / "a.parquet")
    done = call("value", store, "--queries", queries, "-o", tmp_path / "v.parquet")
    assert done.exit_code == 0, done.stderr
    mean: dict[int, float] = {}
    for row in pq.read_table(tmp_path / "a.parquet").to_pylist():
        mean[row["row"]] = mean.get(row["row"], 0) + row["score"] / 3
    values = pq.read_table(tmp_path / "v.parquet").to_pylist()
    assert [row["row"] for row in values] == list(range(150))
    assert [row["score"] for row in values] == pytest.approx([mean[i] for i in range(150)], abs=1e-5)
    best = max(mean, key=lambda row: mean[row])
    printed = call("value", store, "--queries", queries, "--top", 1).stdout
    assert f"corpus.jsonl:{best + 1}" in printed


def test_info_verify_plan_methods(store: Path, queries: Path, corpus: Path, model: Path, tmp_path: Path) -> None:
    facts = json.loads(call("info", store, "--json").stdout)
    assert (facts["examples"], facts["complete"]) == (150, True)
    assert facts["methods"]["rise"]["bytes_per_example"] == 8 * 16 * 2
    assert "150 examples, complete" in call("info", store).stdout
    assert call("verify", store).exit_code == 0
    output = call("plan", "attribute", store, "--queries", queries)
    assert re.search(r"total +[0-9.]+MB", output.stdout)
    output = call("plan", "ingest", corpus, "--store", tmp_path / "new", "--model", model, "--memory", "4GB")
    assert "budget 4GB" in output.stdout
    assert not (tmp_path / "new").exists()
    assert "rise" in call("methods").stdout
    assert json.loads(call("methods", "--json").stdout.splitlines()[0])["fault"] == ""


def test_verify_names_what_is_damaged(store: Path, tmp_path: Path) -> None:
    copy = tmp_path / "S"
    shutil.copytree(store, copy)
    chunk = copy / "shards/0/methods/rise/columns/signature/c/0/0"
    chunk.write_bytes(chunk.read_bytes()[:-9] + b"\x01" + chunk.read_bytes()[-8:])
    done = call("verify", copy)
    assert done.exit_code == 1
    assert done.stdout == "shards/0/methods/rise/columns/signature chunk 0 (rows 0 to 149) differs from its checksum\n"


def test_a_store_of_an_old_format_answers_and_is_upgraded(
    queries: Path, corpus: Path, model: Path, tmp_path: Path
) -> None:
    old = tmp_path / "old"
    ingest = ("ingest", corpus, "--store", old, "--model", model, "--set", "rise.kh", 8, "--set", "rise.kr", 16)
    assert call(*ingest, "--no-tokens").exit_code == 0
    assert call("compress", old, "--precision", "int8").exit_code == 0
    ask = [("attribute", old, "--queries", queries, "--top", 9, "--json", *more) for more in ((), ("--scan", "int8"))]
    new = [call(*words).stdout for words in ask]
    make_old(old)
    older = [re.sub(r'"store": "\w+"', "", call(*words).stdout) for words in ask]  # the root's digest alone differs
    assert older == [re.sub(r'"store": "\w+"', "", text) for text in new] and new[0]
    more = tmp_path / "more.jsonl"
    more.write_text(json.dumps({"text": "one more text, for the end"}) + "\n")
    append = ("ingest", corpus, more, "--store", old, "--model", model, "--append")
    for words in (append, (*ingest[:6], "--method", "repsim"), ("compress", old, "--precision", "bf16"),
                  ("fit", old, "--method", "stride")):  # fmt: skip
        refused = call(*words)
        assert refused.exit_code == 1
        assert refused.stderr.strip().endswith(
            f"error: {old} has format 2, which is only read\nhint: run headwater upgrade {old} to make it format 3"
        )
    done = call("upgrade", old)
    assert (done.exit_code, done.stdout) == (0, "") and f"{old}: format 2 is now 3, " in done.stderr
    upgraded = [re.sub(r'"store": "\w+"', "", call(*words).stdout) for words in ask]
    assert upgraded == older and call("verify", old).exit_code == 0
    assert "has format 3 already: nothing to do" in call("upgrade", old).stderr
    grown = call(*append)
    assert grown.exit_code == 0, grown.stderr
    assert json.loads(call("info", old, "--json").stdout)["examples"] == 151


def bad_json(folder: Path) -> None:
    (folder / "c.jsonl").write_text('{"text": "a b c"}\n{"text": \n')


def no_field(folder: Path) -> None:
    (folder / "c.jsonl").write_text('{"title": "a", "body": "b"}\n')


def bad_utf8(folder: Path) -> None:
    (folder / "c.jsonl").write_bytes(b'{"text": "a b c"}\n{"text": "a \xff b"}\n')


def too_long(folder: Path) -> None:
    (folder / "c.jsonl").write_text(json.dumps({"prompt": "stone " * 200, "completion": "river"}) + "\n")


def empty_text(folder: Path) -> None:
    (folder / "c.jsonl").write_text('{"text": "a b c"}\n{"text": "  "}\n')


def empty_file(folder: Path) -> None:
    (folder / "c.jsonl").write_text("")


def blank_file(folder: Path) -> None:
    (folder / "c.jsonl").write_text("\n\n")


def nothing(folder: Path) -> None:
    """No file at all."""


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (nothing, r"c\.jsonl"),
        (empty_file, r"c\.jsonl: is empty"),
        (blank_file, r"no example in .*c\.jsonl"),
        (bad_json, r"c\.jsonl:2: .*JSON"),
        (no_field, r"c\.jsonl:1: no text field; the record has title, body"),
        (bad_utf8, r"c\.jsonl:2: invalid UTF-8 at byte offset 12"),
        (
            too_long,
            r"c\.jsonl:1: prompt and completion are \d+ tokens, but an example has at most 128 tokens \(the model's",
        ),
        (empty_text, r"c\.jsonl:2: empty text"),
    ],
)
def test_bad_corpora(spoil: Callable[[Path], None], message: str, model: Path, tmp_path: Path) -> None:
    spoil(tmp_path)
    refused(message, "ingest", tmp_path / "c.jsonl", "--store", tmp_path / "S", "--model", model, *SMALL)


def refused(message: str, *words: Any) -> None:
    """The command fails with one line, which says so, and no traceback."""
    done = call(*words)
    assert done.exit_code == 1, (done.stdout, done.stderr, done.exception)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.stderr
    assert re.search(message, done.stderr), done.stderr
    assert done.stdout == ""


def without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")


def no_causal_lm(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["architectures"] = ["LlamaForSequenceClassification"]
    (folder / "config.json").write_text(json.dumps(config))


def no_folder(folder: Path) -> None:
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without_weights, r"has no weights"),
        (pickled, r"pytorch_model\.bin, a pickle"),
        (no_causal_lm, r"is a LlamaForSequenceClassification; headwater supports causal language models only"),
        (no_folder, r"m: no such folder"),
    ],
)
def test_bad_models(
    spoil: Callable[[Path], None],
    message: str,
    model: Path,
    corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    shutil.copytree(model, tmp_path / "m")
    spoil(tmp_path / "m")
    refused(message, "ingest", corpus, "--store", tmp_path / "S", "--model", tmp_path / "m")
    assert not (tmp_path / "S").exists()


def test_bad_names_and_settings(store: Path, model: Path, corpus: Path, queries: Path, tmp_path: Path) -> None:
    new = ("ingest", corpus, "--store", tmp_path / "S", "--model", model)
    refused(r"no method rice; installed: bm25, .*\nhint: did you mean rise\?", *new, "--method", "rice")
    refused(r"method rise: no setting colour; the settings are kr, kh", *new, "--set", "rise.colour", "1")
    refused(r"method rise: setting tau must be float", *new, "--set", "rise.tau", "warm")
    refused(r"no device tpu", *new, "--device", "tpu")
    refused(r"'much' is not an amount of memory", *new, "--memory", "much")
    refused(r"a corpus of texts needs a model", "ingest", corpus, "--store", tmp_path / "S")
    refused(
        r"no rows of method nothing \(it has rows of: rise\)",
        "attribute",
        store,
        "--queries",
        queries,
        "--method",
        "nothing",
    )
    refused(r"is not a headwater store", "attribute", tmp_path, "--queries", queries)
    refused(r"is not a headwater store", "info", tmp_path / "absent")
    refused(r"results can only be written as", "attribute", store, "--queries", queries, "-o", tmp_path / "a.xls")
    assert call(*new, "--set", "rice.tau", "1").exit_code == 2
    assert call("ingest").exit_code == 2
    assert not (tmp_path / "S").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA here")
def test_cuda_where_there_is_none(store: Path, model: Path, corpus: Path, queries: Path, tmp_path: Path) -> None:
    message = r"device cuda is not available: torch finds no CUDA device"
    refused(message, "ingest", corpus, "--store", tmp_path / "S", "--model", model, "--device", "cuda")
    refused(message, "attribute", store, "--queries", queries, "--device", "cuda")


def test_a_budget_too_small_names_one_that_works(
    store: Path, model: Path, corpus: Path, queries: Path, tmp_path: Path
) -> None:
    for words in (
        ("ingest", corpus, "--store", tmp_path / "S", "--model", model, *SMALL),
        ("attribute", store, "--queries", queries),
    ):
        done = call(*words, "--memory", "1MB")
        assert done.exit_code == 1
        found = re.search(r"the plan needs .*, --memory allows 1MB; the largest part is .* \(.*\); "
                          r"the smallest budget that works is (\S+)\n"
                          r"hint: give --memory \1 or more$", done.stderr.strip())  # fmt: skip
        assert found, done.stderr
        assert call(*words, "--memory", found[1]).exit_code == 0


def test_another_model_is_refused(store: Path, corpus: Path, queries: Path, tmp_path: Path) -> None:
    other = save_model(tmp_path / "other", seed=5)
    before = tree(store)
    refused(r"model is '\w+' in the store, '\w+' in this run$", "ingest", corpus, "--store", store, "--model", other)
    refused(r"does not match this run: model is", "attribute", store, "--queries", queries, "--model", other)
    assert tree(store) == before


def test_bad_queries(store: Path, tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    refused(r"q\.jsonl", "attribute", store, "--queries", path)
    path.write_text(json.dumps({"text": "stone " * 300}) + "\n")
    refused(r"q\.jsonl:1: the query is longer than the model's context of 128", "attribute", store, "--queries", path)
    path.write_text("{\n")
    refused(r"q\.jsonl:1: ", "attribute", store, "--queries", path)


def test_every_command_has_help_with_an_example() -> None:
    for name, command in main.commands.items():
        output = call(name, "--help")
        assert output.exit_code == 0
        assert command.help, name
    for name in ("ingest", "attribute", "value"):
        assert f"headwater {name} " in call(name, "--help").stdout


def test_values_are_printed_as_json(store: Path, queries: Path) -> None:
    output = call("value", store, "--queries", queries, "--top", 3, "--json")
    assert [json.loads(line)["rank"] for line in output.stdout.splitlines()] == [1, 2, 3]


def test_nothing_in_a_corpus_moves_the_terminals_cursor(model: Path, tmp_path: Path) -> None:
    evil = "\x1b]0;owned\x07\x1b[2J\nq"
    rows = [{"id": evil, "text": f"the river {evil}"}, {"id": "b", "text": "the sea"}]
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + f'{{"{evil[:9]}')
    runs = [
        call("ingest", tmp_path / "c.jsonl", "--store", tmp_path / "S", "--model", model, "--on-error", "skip", *SMALL)
    ]
    (tmp_path / "q.jsonl").write_text(json.dumps(rows[0]) + "\n")
    runs.append(call("attribute", tmp_path / "S", "--queries", tmp_path / "q.jsonl"))
    runs.append(call("attribute", f"{tmp_path}/\x1b[2J", "--queries", tmp_path / "q.jsonl"))
    assert [done.exit_code for done in runs] == [0, 0, 1]
    assert all(c.isprintable() or c == "\n" for done in runs for c in done.stdout + done.stderr)


def test_results_cannot_be_a_folder(store: Path, queries: Path, tmp_path: Path) -> None:
    (tmp_path / "out.csv").mkdir()
    done = call("attribute", store, "--queries", queries, "-o", tmp_path / "out.csv")
    assert done.exit_code == 1 and "is a folder\nhint: give the path of a file for the results" in done.stderr


def test_results_on_a_full_disk_are_one_line(store: Path, queries: Path, tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    try:
        done = {suffix: call("attribute", store, "--queries", queries, "--top", 100, "-o", tmp_path / f"a.{suffix}")
                for suffix in ("jsonl", "csv", "parquet")}  # fmt: skip
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    for suffix, result in done.items():
        assert result.exit_code == 1 and result.stderr.count("error: ") == 1
        assert re.search(rf"a\.{suffix} cannot be written: .*File too large", result.stderr)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", ["Infinity", "NaN", "-Infinity"])
def test_settings_are_finite(model: Path, corpus: Path, tmp_path: Path, value: str) -> None:
    done = call("ingest", corpus, "--store", tmp_path / "S", "--model", model, "--set", "rise.lambda_gh", value)
    assert done.exit_code == 1 and "setting lambda_gh must be float" in done.stderr and not (tmp_path / "S").exists()


def test_a_second_file_that_cannot_be_read_is_one_line(model: Path, corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "z.parquet").write_bytes(b"PAR1 and nothing of it")
    done = call("ingest", corpus, tmp_path / "z.parquet", "--store", tmp_path / "S", "--model", model, *SMALL)
    assert done.exit_code == 1 and done.stderr.count("\nerror: ") + done.stderr.startswith("error: ") == 1
    assert "z.parquet" in done.stderr
