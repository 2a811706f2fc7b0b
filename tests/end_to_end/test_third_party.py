"""An outside package, installed by pip and found by name: the example in `examples/third_party_method`, from end to end."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from click.testing import Result
from places import ROOT
from running import headwater as run

EXAMPLE = ROOT / "examples/third_party_method"
CORPUS = [
    "the river runs down to the sea",
    "one two three four five",
    "a dull film, a dull review",
    "the sea at night",
] * 4


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The environment in which the package is installed, without network, into a folder of its own."""
    source, target = tmp_path_factory.mktemp("source") / "package", tmp_path_factory.mktemp("site")
    shutil.copytree(EXAMPLE, source, ignore=shutil.ignore_patterns("*.egg-info", "build", "__pycache__"))
    pip = [sys.executable, "-m", "pip", "install", "--no-build-isolation", "--no-deps", "--no-index", "--quiet",
           "--disable-pip-version-check", "--target", str(target), str(source)]  # fmt: skip
    done = subprocess.run(pip, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {**os.environ, "PYTHONPATH": str(target), "HF_HUB_OFFLINE": "1"}


@contextmanager
def on_path(folder: str) -> Iterator[None]:
    """What is installed in a folder can be imported, as if pip had put it beside headwater; forgotten afterwards."""
    sys.path.append(folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
        sys.modules.pop("headwater_meanhidden", None)


def headwater(installed, *arguments: object) -> Result:
    """Run the command in this process, where the package is installed."""
    with on_path(installed["PYTHONPATH"]):
        return run(*arguments)


def succeeded(done: Result) -> str:
    """Its standard output, if it ended well."""
    assert done.exit_code == 0, (done.output, done.exception)
    return done.stdout


def test_the_example_is_short():
    files = [EXAMPLE / name for name in ("pyproject.toml", "headwater_meanhidden.py", "test_meanhidden.py")]
    assert sum(len(file.read_text().splitlines()) for file in files) < 100


def test_it_is_listed(installed, tmp_path):
    command = [sys.executable, "-m", "headwater", "methods", "--json"]  # a process of its own, as a user's
    done = subprocess.run(command, cwd=tmp_path, env=installed, capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    found = {line["name"]: line for line in lines}
    assert found["meanhidden"]["distribution"] == "headwater-meanhidden 1.0"
    assert found["meanhidden"]["about"].startswith("Mean hidden states") and not found["meanhidden"]["fault"]
    assert found["rise"]["distribution"].startswith("headwater ")


@pytest.fixture(scope="module")
def store(installed, model_folder, tmp_path_factory):
    """A store with ours and theirs, from one forward pass."""
    folder = tmp_path_factory.mktemp("job")
    corpus = folder / "corpus.jsonl"
    corpus.write_text(
        "".join(json.dumps({"id": str(i), "text": f"{i} {text}"}) + "\n" for i, text in enumerate(CORPUS))
    )
    succeeded(
        headwater(installed, "ingest", corpus, "--store", folder / "S", "--model", model_folder("Llama"), "--method", "rise",
                  "--method", "meanhidden", "--set", "meanhidden.layer", 1, "--set", "rise.kh", 16)
    )  # fmt: skip
    return folder / "S"


def test_a_store_holds_its_rows_beside_ours(installed, store):
    record = json.loads((store / "zarr.json").read_text())["attributes"]["headwater"]
    facts, entries = record["groups"], record["shards"]["0"]
    assert {"methods/rise", "methods/meanhidden"} <= set(facts)
    assert facts["methods/meanhidden"]["settings"] == {"layer": 1, "precision": "auto", "bits": 8192}
    assert [entries[f"methods/{name}"]["rows"] for name in ("meanhidden", "rise")] == [len(CORPUS)] * 2
    assert all(entry["complete"] for entry in entries.values())


@pytest.mark.parametrize("method", ["meanhidden", "rise"])
def test_a_query_finds_its_own_example(installed, store, tmp_path, method):
    asked = tmp_path / "queries.jsonl"
    asked.write_text(json.dumps({"id": "q", "text": f"5 {CORPUS[5]}"}) + "\n")
    output = headwater(installed, "attribute", store, "--method", method, "--queries", asked, "--top", 3, "--json")
    rows = [json.loads(line) for line in succeeded(output).splitlines()]
    assert [row["rank"] for row in rows] == [1, 2, 3]
    assert (rows[0]["completion"], rows[0]["row"], rows[0]["method"]) == (f"5 {CORPUS[5]}", 5, method)
    assert rows[0]["score"] == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize(
    ("where", "setting", "message"),
    [
        ("S", "layer", "meanhidden.layer is 1 in the store, 0 in this run"),
        ("T", "depth", "method meanhidden: no setting depth; the settings are layer"),
    ],
)
def test_its_settings_are_compared_and_checked(installed, store, where, setting, message):
    options = ["--store", store.parent / where, "--method", "meanhidden", "--set", f"meanhidden.{setting}", 0]
    done = headwater(installed, "ingest", store.parent / "corpus.jsonl", *options)
    assert done.exit_code == 1 and message in done.stderr and len(done.stderr.splitlines()) <= 2


def test_without_the_package_the_store_says_who_is_missing(store, tmp_path):
    asked = tmp_path / "queries.jsonl"
    asked.write_text('{"text": "the sea"}\n')
    output = run("attribute", store, "--method", "meanhidden", "--queries", asked)
    assert output.exit_code == 1 and output.stderr.startswith("error: no method meanhidden; installed: ")


@pytest.mark.slow
def test_its_own_tests_pass(installed, tmp_path):
    shutil.copy(EXAMPLE / "test_meanhidden.py", tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "test_meanhidden.py"],
        cwd=tmp_path, env=installed, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
