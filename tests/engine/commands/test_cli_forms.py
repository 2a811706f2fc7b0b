"""`compress`, `attribute --scan`, `--certify` and rows ingested in other precisions, by the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from headwater.cli import main
from small import save_model, sentences, write_corpus


def run(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def ok(*words: object) -> Result:
    done = run(*words)
    assert done.exit_code == 0, done.output
    return done


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 150 sentences in a folder with its model, and queries that are among them."""
    folder = tmp_path_factory.mktemp("forms")
    save_model(folder / "model")
    write_corpus(folder / "c.jsonl", sentences(150))
    write_corpus(folder / "q.jsonl", sentences(150)[40:44])
    ok("ingest", folder / "c.jsonl", "--store", folder / "s", "--model", folder / "model", "--set", "rise.tau", 1.0)
    for words in (["int8"], ["sign", "--bits", 2048]):
        output = ok("compress", folder / "s", "--precision", *words).stderr
        assert "150 of 150 rows of rise as" in output
    return folder


def answers(place: Path, *words: object) -> list[dict]:
    done = ok("attribute", place / "s", "--queries", place / "q.jsonl", "--top", 5, "--json", *words)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_certified_answer_is_the_stored_rows_own(place: Path) -> None:
    plain = answers(place)
    assert answers(place, "--certify") == plain == answers(place, "--scan", "int8", "--certify")
    assert len(plain) == 20 and all(row["exact"] for row in plain)


def test_two_stages_say_that_they_are_not_exact(place: Path) -> None:
    plain = answers(place)
    words = ["attribute", place / "s", "--queries", place / "q.jsonl", "--top", 5]
    for form, candidates in (("int8", 40), ("sign2048", 60)):
        found = answers(place, "--scan", form, "--candidates", candidates)
        assert not any(row["exact"] for row in found)
        assert [row["example_id"] for row in found if row["rank"] == 1] == [
            row["example_id"] for row in plain if row["rank"] == 1
        ]
        scores = {(row["query_id"], row["example_id"]): row["score"] for row in plain}
        both = [row for row in found if (row["query_id"], row["example_id"]) in scores]
        assert all(row["score"] == scores[row["query_id"], row["example_id"]] for row in both)
        assert (
            "approximate: the examples were chosen by scores of compressed rows, which are estimates; expected recall"
            in ok(*words, "--scan", form, "--candidates", 40).stderr
        )
    assert answers(place, "--scan", "sign2048") == plain  # more candidates than rows
    assert "not exact" not in ok(*words, "--scan", "sign2048").stderr


def test_info_and_plan_know_the_forms(place: Path) -> None:
    facts = json.loads(ok("info", place / "s", "--json").stdout)
    assert facts["complete"] and facts["methods"]["rise"]["precisions"]["sign2048"]["bytes_per_example"] == 256 + 8
    assert "sign2048: 150 rows of 264B" in ok("info", place / "s").stdout
    asked = ["plan", "attribute", place / "s", "--queries", place / "q.jsonl"]
    assert "candidates' stored rows" in ok(*asked, "--scan", "sign2048").stdout
    assert "candidates of workers" in ok(*asked, "--certify").stdout
    assert "reads 3.38MB in about" in ok(*asked).stdout  # 150 rows of (320 + 32)·32 float16 numbers: the head is exact
    facts = json.loads(ok(*asked, "--json", "--certify", "--memory", "1GB").stdout)
    assert facts["total"] == sum(facts["parts"].values()) <= facts["budget"] == 10**9
    assert facts["forecast"]["bytes"] > 150 * 22_500 and facts["forecast"]["seconds"] > 0 and facts["block_rows"] > 0
    ok("verify", place / "s")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--scan", "int4"], r"has no int4 copy of rise \(its copies: int8, sign2048\); headwater compress makes one"),
        (["--scan", "sign2048", "--certify"], "--certify works with --scan int8 only"),
        (["--certify", "--candidates", "5"], "--candidates works with --scan PRECISION only"),
        (["--scan", "int8", "--certify", "--candidates", "5"], "chooses the number of candidates itself"),
    ],
)
def test_what_cannot_be_searched_is_one_line(place: Path, words: list[str], message: str) -> None:
    done = run("attribute", place / "s", "--queries", place / "q.jsonl", *words)
    assert done.exit_code == 1 and len(done.stderr.splitlines()) <= 2
    import re

    assert re.search(message, done.stderr)


def test_a_form_that_lags_behind_is_named(place: Path, tmp_path: Path) -> None:
    from shutil import copytree

    copytree(place / "s", tmp_path / "s")
    write_corpus(tmp_path / "more.jsonl", ["something else entirely"])
    ok("ingest", tmp_path / "more.jsonl", "--store", tmp_path / "s", "--model", place / "model", "--append")
    asked = ["attribute", tmp_path / "s", "--queries", place / "q.jsonl", "--certify"]
    done = run(*asked)
    assert done.exit_code == 1 and "has 150 of 151 rows\nhint: run headwater compress again" in done.stderr
    ok("compress", tmp_path / "s", "--precision", "int8")
    ok(*asked)


@pytest.mark.parametrize("precision", ["bf16", "int8", "sign", "float32"])
def test_rows_can_be_ingested_in_any_precision(place: Path, tmp_path: Path, precision: str) -> None:
    options = ["--set", "rise.tau", 1.0, "--set", "rise.precision", precision, "--set", "rise.bits", 4096]
    store = tmp_path / "s"
    ok("ingest", place / "c.jsonl", "--store", store, "--model", place / "model", *options)
    ok("ingest", place / "c.jsonl", "--store", store, "--model", place / "model")  # settings stay with the store
    done = ok("attribute", store, "--queries", place / "q.jsonl", "--top", 1, "--json")
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["line"] for row in found] == [41, 42, 43, 44]
    assert all(abs(row["score"] - 1) < (0.1 if precision == "sign" else 0.02) for row in found)
    assert all(row["exact"] == (precision != "sign") for row in found)
    ok("value", store, "--queries", place / "q.jsonl", "-o", tmp_path / "v.csv")
    ok("verify", store)
    differs = run(
        "ingest", place / "c.jsonl", "--store", store, "--model", place / "model", "--set", "rise.precision", "auto"
    )
    assert (
        differs.exit_code == 1 and f"rise.precision is '{precision}' in the store, 'auto' in this run" in differs.stderr
    )


def test_every_score_is_a_zarr_array(place: Path, tmp_path: Path) -> None:
    import numpy as np
    import zarr

    asked = ["attribute", place / "s", "--queries", place / "q.jsonl"]
    ok(*asked, "--all-scores", tmp_path / "all.zarr")
    group = zarr.open_group(str(tmp_path / "all.zarr"), mode="r")
    scores = group["scores"][:]
    plain = answers(place, "--top", 150)
    assert scores.shape == (150, 4) and len(plain) == 600
    queries = group.attrs["queries"]
    assert all(scores[row["row"], queries.index(row["query_id"])] == np.float32(row["score"]) for row in plain)
    for words, message in (
        (["--all-scores", tmp_path / "all.zarr"], "all.zarr exists\nhint: give another path"),
        (["--all-scores", tmp_path / "all.npy"], "written as a Zarr group"),
        (["--all-scores", tmp_path / "b.zarr", "--certify"], "leave out --scan and --certify"),
    ):
        done = run(*asked, *words)
        assert done.exit_code == 1 and message in done.stderr and len(done.stderr.splitlines()) <= 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["all.zarr"]


def test_a_precision_that_is_none_is_one_line(place: Path, tmp_path: Path) -> None:
    for options, message in (
        (["rise.precision", "int4"], "method rise: unknown precision 'int4'\nhint: choose from auto, float32"),
        (
            ["rise.bits", 100, "--set", "rise.precision", "sign"],
            "method rise: the number of sign bits must be a multiple of 128",
        ),
    ):
        done = run(
            "ingest", place / "c.jsonl", "--store", tmp_path / "s", "--model", place / "model", "--set", *options
        )
        assert done.exit_code == 1 and message in done.stderr and not (tmp_path / "s").exists()
