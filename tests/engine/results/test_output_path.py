"""No command writes over what it reads, nor inside a store; and two runs with one output name do not mix."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from headwater.engine.results.output_path import refuse_output
from headwater.engine.runtime.output_files import whole_file
from headwater.store.errors import SettingsError, StoreMismatch
from headwater.store.feature_store import FeatureStore
from headwater.store.files import write_file
from running import done, headwater
from small import save_model, sentences, tree, write_corpus


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("made")
    save_model(made / "model")
    write_corpus(made / "corpus.jsonl", sentences(6))
    write_corpus(made / "queries.jsonl", sentences(3, 9))
    words = ["--store", made / "S", "--model", made / "model", "--method", "repsim"]
    done("ingest", made / "corpus.jsonl", *words)
    return made


@pytest.fixture
def site(made: Path, tmp_path: Path) -> Path:
    for name in ("S", "model"):
        shutil.copytree(made / name, tmp_path / name)
    for name in ("corpus.jsonl", "queries.jsonl"):
        shutil.copy(made / name, tmp_path / name)
    (tmp_path / "who.csv").write_text("id,who\n" + "".join(f"corpus.jsonl:{row},x\n" for row in range(6)))
    np.save(tmp_path / "masks.npy", np.eye(6, dtype=np.int8))
    (tmp_path / "link.jsonl").symlink_to("queries.jsonl")
    os.link(tmp_path / "queries.jsonl", tmp_path / "hard.jsonl")
    (tmp_path / "labels.json").write_text("[]")
    return tmp_path


WRONG = [
    ("attribute {S} {q} -o {0}/queries.jsonl", "input"),
    ("attribute {S} {q} -o {0}/link.jsonl", "input"),
    ("attribute {S} {q} -o {0}/hard.jsonl", "input"),
    ("attribute {S} {q} -o {0}/S/../queries.jsonl", "input"),
    ("attribute {S} {q} --by who --columns {0}/who.csv -o {0}/who.csv", "input"),
    ("attribute {S} --query hello --minus {0}/queries.jsonl -o {0}/queries.jsonl", "input"),
    ("attribute {S} {q} -o {0}/S/answers.jsonl", "inside the store"),
    ("attribute {S} {q} -o {0}/S/shards/0/new/answers.jsonl", "inside the store"),
    ("attribute {S} {q} --all-scores {0}/S/scores.zarr", "inside the store"),
    ("value {S} {q} -o {0}/queries.jsonl", "input"),
    ("value {S} {q} -o {0}/S/values.csv", "inside the store"),
    ("self-influence {S} --method repsim -o {0}/S/values.csv", "inside the store"),
    ("predict {S} {q} --subsets {0}/masks.npy -o {0}/masks.npy", "input"),
    ("predict {S} {q} --subsets {0}/masks.npy -o {0}/S/u.npy", "inside the store"),
    ("select {S} {q} --count 2 -o {0}/queries.jsonl", "input"),
    ("select {S} {q} --count 2 -o {0}/S/chosen.jsonl", "inside the store"),
    ("evaluate retrieval --results {0}/queries.jsonl --labels {0}/labels.json -o {0}/labels.json", "input"),
    ("evaluate retrieval --results {0}/queries.jsonl --match x --plot {0}/S/plot.png", "inside the store"),
    ("ground-truth {0}/corpus.jsonl --queries {0}/queries.jsonl --model-config {0}/model -o {0}/model", "input"),
    (
        "ground-truth {0}/corpus.jsonl --queries {0}/queries.jsonl --model-config {0}/model -o {0}/S/t",
        "inside the store",
    ),
    (
        "ground-truth {0}/corpus.jsonl --queries {0}/queries.jsonl --model-config {0}/model --masks {0}/masks.npy -o {0}",
        "input",
    ),
    ("demo --workdir {0}/S/demo", "inside a store"),
    ("ingest {0}/corpus.jsonl --model {0}/model --method repsim --store {0}/S/T", "inside the store"),
]


@pytest.mark.parametrize(("command", "reason"), WRONG)
def test_no_input_is_written_over_and_nothing_into_a_store(site: Path, command: str, reason: str) -> None:
    before = tree(site)
    words = command.format(site, S=f"{site}/S", q=f"--queries {site}/queries.jsonl --method repsim").split()
    refused = headwater(*words)
    assert refused.exit_code == 1 and refused.stderr.count("\n") <= 2, refused.output
    assert reason in refused.stderr and tree(site) == before


def test_the_corpus_of_a_store_and_files_of_lists_and_globs_are_inputs(made: Path, tmp_path: Path) -> None:
    write_corpus(tmp_path / "a.jsonl", ["x"])
    for inputs in ([f"{tmp_path}/b.jsonl,{tmp_path}/a.jsonl"], [f"{tmp_path}/*.jsonl"], [str(tmp_path)]):
        with pytest.raises(SettingsError, match="input"):
            refuse_output(str(tmp_path / "a.jsonl"), inputs)
        refuse_output(str(tmp_path / "new.jsonl"), inputs)
    with pytest.raises(SettingsError, match="input"):
        refuse_output(str(made / "corpus.jsonl"), [], str(made / "S"))
    with pytest.raises(StoreMismatch, match="inside the store"):
        FeatureStore.create(made / "S" / "deep" / "er", {}, "test")
    assert not (made / "S" / "deep").exists()


def test_an_output_may_be_replaced(site: Path) -> None:
    words = ["attribute", site / "S", "--queries", site / "queries.jsonl", "--method", "repsim", "-o", site / "o.jsonl"]
    done(*words)
    first = (site / "o.jsonl").read_bytes()
    done(*words)
    assert (site / "o.jsonl").read_bytes() == first and not list(site.glob(".*"))


def test_two_writers_of_one_name_do_not_mix(tmp_path: Path) -> None:
    with whole_file(tmp_path / "o.txt") as first, first.open("w") as slow:
        slow.write("first " * 10)
        with whole_file(tmp_path / "o.txt") as second:
            assert second != first
            second.write_text("second")
        slow.flush()
        assert first.read_text() == "first " * 10 and (tmp_path / "o.txt").read_text() == "second"
    assert (tmp_path / "o.txt").read_text() == "first " * 10
    assert [entry.name for entry in tmp_path.iterdir()] == ["o.txt"]


WRITER = """
import sys, time
from pathlib import Path
from headwater.engine.runtime.output_files import whole_file
with whole_file(Path(sys.argv[1])) as hidden:
    hidden.write_text("torn")
    print("open", flush=True)
    time.sleep(60)
"""


def test_what_a_killed_writer_left_is_removed_by_the_next_and_not_before(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path / "o.txt")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout and process.stdout.readline() == "open\n"
    for alive in (True, False):
        with whole_file(tmp_path / "o.txt") as hidden:
            hidden.write_text("whole")
        assert len(list(tmp_path.glob(".o.txt.*.new"))) == alive
        if alive:
            process.send_signal(signal.SIGKILL)
            process.wait()
    process.stdout.close()
    assert [entry.name for entry in tmp_path.iterdir()] == ["o.txt"]


STORE_WRITER = """
import sys
from pathlib import Path
from headwater.store.files import write_file
for turn in range(150):
    write_file(Path(sys.argv[1]), [sys.argv[2].encode() * 4096] * int(sys.argv[3]))
"""


def test_files_of_a_store_are_written_in_turn(tmp_path: Path) -> None:
    """Two processes write one name, of two lengths: every state that is seen is whole."""
    path = tmp_path / "zarr.json"
    write_file(path, [b"a" * 4096])
    writers = [
        subprocess.Popen([sys.executable, "-c", STORE_WRITER, str(path), letter, str(count)])
        for letter, count in (("b", 1), ("c", 300))
    ]
    seen = set()
    while any(writer.poll() is None for writer in writers):
        content = path.read_bytes()
        seen.add((content[:1], len(content), len(set(content))))
        time.sleep(0.001)
    assert [writer.returncode for writer in writers] == [0, 0]
    assert seen <= {(b"a", 4096, 1), (b"b", 4096, 1), (b"c", 300 * 4096, 1)} and len(seen) > 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["zarr.json"]


def test_two_runs_of_a_command_with_one_output_name(site: Path) -> None:
    """Both end well, and the file is one of the two answers, whole."""
    words = ["attribute", site / "S", "--queries", site / "queries.jsonl", "--method", "repsim", "-o", site / "o.jsonl"]
    code = "import sys; from headwater.cli import main; main(sys.argv[1:])"
    runs = [
        subprocess.Popen([sys.executable, "-c", code, *map(str, words), "--top", str(top)], stderr=subprocess.DEVNULL)
        for top in (2, 5)
    ]
    assert [run.wait() for run in runs] == [0, 0]
    assert len([json.loads(line) for line in (site / "o.jsonl").read_text().splitlines()]) in (6, 15)
