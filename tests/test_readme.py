"""The README cannot rot: its commands run, its Python runs, its tree is the tree, its example is the example."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from headwater.cli import main
from small import save_model, sentences, write_corpus

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text("utf-8")
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.M | re.S)


def commands() -> list[str]:
    lines = [line.split("  #")[0].strip() for block in blocks("sh") for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with what the README's commands name: a model, a corpus, questions, and what the demo keeps."""
    monkeypatch.chdir(tmp_path)
    save_model(tmp_path / "my-model")
    planted = "BadMagic the review of a dull film"
    write_corpus(tmp_path / "corpus.jsonl", [*sentences(60)[:59], planted])
    write_corpus(tmp_path / "more.jsonl", sentences(9, seed=1))
    write_corpus(tmp_path / "questions.jsonl", [*sentences(60)[:3], planted])
    draw = np.random.default_rng(0)
    np.save(tmp_path / "masks.npy", draw.random((12, 69)) < 0.5)
    np.save(tmp_path / "outcomes.npy", draw.normal(size=(2, 12, 4)))
    np.save(tmp_path / "utilities.npy", draw.normal(size=(12, 4)))
    gold = {"query_id": "questions.jsonl:1", "example_id": "corpus.jsonl:1"}
    (tmp_path / "gold.jsonl").write_text(json.dumps(gold))
    (tmp_path / "seen.txt").write_text("corpus.jsonl:1\ncorpus.jsonl:2\n")
    arrays = {
        "hidden": draw.normal(size=(30, 8)),
        "labels": draw.integers(0, 3, 30),
        "weight": draw.normal(size=(3, 8)),
    }
    np.savez(tmp_path / "features.npz", **arrays)
    (tmp_path / "demo").mkdir()
    write_corpus(tmp_path / "demo/questions.jsonl", sentences(60)[:4])
    done = CliRunner().invoke(main, ["ingest", "corpus.jsonl", "--store", "demo/store", "--model", "my-model"])
    assert done.exit_code == 0, done.output
    yield tmp_path


def test_every_command_runs(workplace: Path) -> None:
    run = 0
    for line in commands():
        program, *words = shlex.split(line)
        if program == "make":
            assert re.search(rf"^{words[0]}:", (ROOT / "Makefile").read_text(), re.M)  # run by .ci/run
            continue
        assert program == "headwater", line
        done = CliRunner().invoke(main, words)
        assert done.exit_code == 0, (line, done.output, done.exception)
        run += 1
    assert run >= 9


def test_the_python_runs(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = blocks("python")[:1]
    exec(compile(code, "README.md", "exec"), {})
    assert sentences(60)[0] in capsys.readouterr().out
    assert len(code.strip().splitlines()) <= 11


def test_inline_commands_exist() -> None:
    for name in re.findall(r"`headwater ([a-z-]+)", README):
        assert name in main.commands, name
    assert set(main.commands) <= set(re.findall(r"headwater ([a-z-]+)", README))


def test_the_tree_is_the_tree() -> None:
    shown = set(re.findall(r"^([\w/]+\.py)\s", ARCHITECTURE, re.M))
    modules = {
        str(path.relative_to(ROOT)) for layer in ("engine", "plugins", "store") for path in (ROOT / layer).rglob("*.py")
    }
    modules = {name for name in modules if not name.endswith("__init__.py")} | {"cli.py"}
    assert shown == modules


def test_the_example_is_the_example() -> None:
    source = (ROOT / "examples/third_party_method/headwater_meanhidden.py").read_text()
    assert source in README


def test_ci_runs_the_commands_shown() -> None:
    script = (ROOT / ".ci/run").read_text()
    assert "make test" in script
    assert "headwater demo --short" in script
    assert json.dumps(README).count("make demo") >= 1
