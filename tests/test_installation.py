"""The wheel in an environment of its own, outside the checkout: its command, its Python interface, and its types for a user."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from places import ROOT
from small import save_model, sentences, write_corpus
from test_packaging import VERSION, copy_tree

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
SCRIPT = '''"""What a user writes, with every annotation."""

import sys

import headwater as hw


def best(store: hw.Store, question: dict[str, str]) -> hw.Attributions:
    """The examples behind an answer."""
    answers: hw.Attributions = store.attribute([question], top=3)
    rows: int = answers.to_arrow().num_rows
    assert rows == 3
    answer: hw.Answer = answers[0]
    scores: list[float] = answer.scores
    assert scores == sorted(scores, reverse=True)
    return answers


def main(corpus: str, model: str, folder: str) -> None:
    """Ingest, open again, ask, evaluate."""
    with hw.ingest(corpus, folder, model=model, methods=[hw.method("repsim")], progress=False) as made:
        rows: int = len(made)
    store: hw.Store = hw.open(folder, model=model, progress=False)
    try:
        answers = best(store, {"prompt": "the river", "completion": " stone light"})
        ids: list[str] = answers[0].ids
        figures: hw.Evaluation = hw.evaluate.retrieval(answers, ids)
        value: float = figures.value
    except hw.HeadwaterError as error:
        sys.exit(f"{error}")
    print(rows, len(ids), value)


if __name__ == "__main__":
    main(*sys.argv[1:])
'''
"""A program against the public names."""


def run(*command: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder outside the checkout, without what points back into it."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MYPYPATH")}
    return subprocess.run([str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True)


def output(*command: object, cwd: Path) -> str:
    """Standard output of a command that must succeed."""
    done = run(*command, cwd=cwd)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory) -> Path:
    """The folder of the wheel and the sdist."""
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    copy_tree(source)
    output(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, source, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def home(dist, tmp_path_factory) -> Path:
    """A folder with an environment `venv`: the wheel, and the dependencies that this environment has."""
    folder = tmp_path_factory.mktemp("home")
    output(sys.executable, "-m", "venv", "--without-pip", folder / "venv", cwd=folder)
    install = ("install", "--quiet", "--no-deps", "--no-index", dist / f"headwater-{VERSION}-py3-none-any.whl")
    output(sys.executable, "-m", "pip", "--python", folder / "venv/bin/python", *install, cwd=folder)
    purelib = sysconfig.get_path("purelib", vars={"base": str(folder / "venv")})
    packages = [path for path in sys.path if path.endswith("site-packages")]
    (Path(purelib) / "dependencies.pth").write_text("".join(f"{path}\n" for path in packages))
    (folder / "script.py").write_text(SCRIPT)
    save_model(folder / "model")
    write_corpus(folder / "corpus.jsonl", sentences(12))
    return folder


def test_the_command_runs_and_knows_its_methods(home):
    assert VERSION in output(home / "venv/bin/headwater", "--version", cwd=home)
    methods = output(home / "venv/bin/headwater", "methods", cwd=home)
    assert "rise" in methods and "stride" in methods and "bm25" in methods
    where = output(home / "venv/bin/python", "-c", "import headwater as hw; hw.Store; print(hw.__file__)", cwd=home)
    assert where.startswith(str(home / "venv")) and str(ROOT) not in where


def test_a_users_program_runs(home):
    words = output(home / "venv/bin/python", "script.py", "corpus.jsonl", "model", "store", cwd=home).split()
    assert words == ["12", "3", "1.0"]
    assert "repsim" in output(home / "venv/bin/headwater", "info", "store", cwd=home)


def test_a_users_program_is_typed(home):
    """Under mypy's strictest setting, and a wrong type is seen."""
    mypy = (sys.executable, "-m", "mypy", "--strict", "--config-file=", "--python-executable", home / "venv/bin/python")
    assert "no issues" in output(*mypy, "script.py", cwd=home)
    (home / "wrong.py").write_text(SCRIPT.replace("rows: int = len(made)", "rows: int = made.path"))
    done = run(*mypy, "wrong.py", cwd=home)
    assert done.returncode == 1 and 'expression has type "str"' in done.stdout


def test_an_index_would_take_both_files(dist):
    """twine reads the metadata and renders the description."""
    checked = output(sys.executable, "-m", "twine", "check", "--strict", *sorted(dist.iterdir()), cwd=dist)
    assert checked.count("PASSED") == 2
