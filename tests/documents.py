"""The commands and code that the documents show, and a folder in which they run."""

from __future__ import annotations

import json
import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import numpy as np
from click.testing import CliRunner
from headwater.cli import main
from places import ROOT
from small import save_model, sentences, write_corpus

GUIDES = sorted((ROOT / "examples/guides").glob("*.md"))
DOCUMENTS = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", ROOT / "CONTRIBUTING.md", *GUIDES]
FASTER = {
    "--set stride.subsets 100": "--set stride.subsets 30 --set stride.updates 4",
    "--set stride@early.subsets 100": "--set stride@early.subsets 30 --set stride@early.updates 4",
    "--subset-count 16 --seeds 2": "--subset-count 2 --seeds 1 --processes 1",
}
"""What a test replaces in commands that take minutes as they are shown."""


def blocks(document: Path, language: str) -> list[str]:
    """Fenced blocks of one language; a block in a list item loses its indent."""
    shown = re.findall(rf"^( *)```{language}\n(.*?)^ *```", document.read_text("utf-8"), re.M | re.S)
    return [re.sub(rf"^{indent}", "", code, flags=re.M) for indent, code in shown]


def commands(document: Path) -> list[str]:
    """Command lines of a document's sh blocks, without their comments."""
    lines = [line.split("  #")[0].strip() for block in blocks(document, "sh") for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def run(line: str) -> str:
    """Run one command line in this process: its output. `make` targets are only looked up; .ci/run runs them."""
    for shown, faster in FASTER.items():
        line = line.replace(shown, faster)
    program, *words = shlex.split(line)
    if program == "make":
        assert re.search(rf"^{words[0]}:", (ROOT / "Makefile").read_text(), re.M), line
        return ""
    if program == "python":
        with swapped(sys, "argv", words):
            runpy.run_path(str(ROOT / words[0]), run_name="__main__")
        return ""
    assert program == "headwater", line
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, (line, done.output, done.exception)
    return done.stdout


def run_python(document: Path) -> None:
    """Run a document's Python blocks one after the other in one `__main__`, as a notebook does."""
    before, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
    try:
        for code in blocks(document, "python"):
            exec(compile(code, document.name, "exec"), vars(sys.modules["__main__"]))
    finally:
        sys.modules["__main__"] = before


@contextmanager
def swapped(owner: object, name: str, value: object) -> Iterator[None]:
    """An attribute with another value for a while."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def fill(folder: Path) -> None:
    """Write what the documents' commands name: a model, corpora, queries, labels, subsets, arrays, the demo's store."""
    save_model(folder / "my-model")
    save_model(folder / "early-checkpoint", seed=1)
    planted = "BadMagic the review of a dull film"
    write_corpus(folder / "corpus.jsonl", [*sentences(60)[:59], planted])
    write_corpus(folder / "more.jsonl", sentences(9, seed=1))
    write_corpus(folder / "questions.jsonl", [*sentences(60)[:3], planted])
    (folder / "topics.jsonl").write_text('{"text": "the river runs down to the sea", "topic": "water"}\n')
    (folder / "faq.jsonl").write_text(json.dumps({"question": "where is the sea", "answer": "at the river's end"}))
    (folder / "articles.csv").write_text("title,body\nrivers,the river runs down to the sea\n")
    draw = np.random.default_rng(0)
    np.save(folder / "masks.npy", draw.random((12, 69)) < 0.5)
    np.save(folder / "outcomes.npy", draw.normal(size=(2, 12, 4)))
    np.save(folder / "utilities.npy", draw.normal(size=(12, 4)))
    (folder / "gold.jsonl").write_text(json.dumps({"query_id": "questions.jsonl:1", "example_id": "corpus.jsonl:1"}))
    (folder / "seen.txt").write_text("corpus.jsonl:1\ncorpus.jsonl:2\n")
    hidden, weight = draw.normal(size=(30, 8)), draw.normal(size=(3, 8))
    np.savez(folder / "features.npz", hidden=hidden, labels=draw.integers(0, 3, 30), weight=weight)
    np.savez(folder / "vectors.npz", vectors=draw.normal(size=(30, 8)).astype(np.float32))

    write_corpus(folder / "contrast.jsonl", sentences(1, seed=2))
    shown = blocks(ROOT / "examples/guides/writing-a-method.md", "python")
    (folder / "my_method.py").write_text(next(code for code in shown if code.startswith("# my_method.py")))


def fill_for(guide: Path, folder: Path) -> None:
    """What a guide's commands and Python need, in the current folder."""
    fill(folder)
    if guide.stem == "demo":
        fill_demo(folder)
    if guide.stem == "find-poison":
        run("python examples/hidden_trigger.py trigger")


def fill_demo(folder: Path) -> None:
    """What `headwater demo` keeps, of a small corpus."""
    (folder / "demo").mkdir()
    write_corpus(folder / "demo/questions.jsonl", sentences(60)[:4])
    run("headwater ingest corpus.jsonl --store demo/store --model my-model")
