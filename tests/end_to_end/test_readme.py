"""The README is true: its commands run, what it shows first is reproduced, what it names exists."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.shell_completion import get_completion_class
from documents import DOCUMENTS, GUIDES, ROOT, blocks, commands, fill, run, run_python
from headwater.cli import main

README = ROOT / "README.md"
TEXT = README.read_text("utf-8")


def inline_commands() -> list[str]:
    """Complete command lines in the README's table; `…` stands for options that are left out."""
    return [line for line in re.findall(r"`(headwater [^`]+)`", TEXT) if "COMMAND" not in line]


def test_its_commands_run_and_find_what_words_do_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shares = {}
    for line in commands(README):
        output = run(line)
        if "evaluate retrieval" in line:
            name = line.partition("trigger/")[2].partition(".")[0]
            shares[name] = float(re.findall(r"^precision@10 +([\d.]+)", output, re.M)[0])
    shown = {
        name: float(re.findall(rf"^\| .*{name}.* \| ([\d.]+) \|", TEXT, re.M)[0]) for name in ("BM25", "RISE", "LoGra")
    }
    assert shares["bm25"] == pytest.approx(shown["BM25"], abs=0.006)  # word search is the same on every machine
    assert shares["rise"] == pytest.approx(shown["RISE"], abs=0.15)  # a training's last bits differ by processor
    assert shares["logra"] == pytest.approx(shown["LoGra"], abs=0.15)


def test_its_python_does_five_jobs_in_eight_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    fill(tmp_path)
    masks = np.random.default_rng(0).random((12, 60)) < 0.5  # of the 60 texts of corpus.jsonl
    np.save("masks.npy", masks)
    np.save("losses.npy", np.random.default_rng(1).normal(size=(12, 4)))
    capsys.readouterr()
    run_python(README)
    printed = capsys.readouterr().out
    assert printed.startswith("['") and "LDS" in printed
    (code,) = blocks(README, "python")
    assert len(code.splitlines()) <= 8
    assert re.findall(r"^(?:import|from) .*", code, re.M) == ["import headwater as hw"]
    assert not re.search(r"headwater\.(engine|store|plugins)", code)


def test_it_fits_two_screens() -> None:
    assert len(TEXT) <= 9_500


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_that_it_names_is_there(shell: str) -> None:
    assert "_HEADWATER_COMPLETE=bash_source headwater" in TEXT and "zsh_source" in TEXT and "fish_source" in TEXT
    kind = get_completion_class(shell)
    assert kind is not None
    completion = kind(main, {}, "headwater", "_HEADWATER_COMPLETE")
    assert f"_HEADWATER_COMPLETE={shell}_complete" in completion.source()
    assert {item.value for item in completion.get_completions([], "self")} == {"self-influence"}
    assert "bm25" in {item.value for item in completion.get_completions(["attribute", "S", "--method"], "b")}


@pytest.mark.parametrize("line", inline_commands())
def test_commands_in_its_table_have_these_options(line: str) -> None:
    command = main
    words = line.split()[1:]
    while words and hasattr(command, "commands"):
        assert words[0] in command.commands, line
        command = command.commands[words.pop(0)]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("-")} <= known


def test_complete_commands_of_its_table_run_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    fill(tmp_path)
    shutil.copy("questions.jsonl", "task.jsonl")
    Path("my_module.py").write_text(Path("my_method.py").read_text().replace("class MeanState", "class MyMethod"))
    elsewhere = ("headwater demo", "headwater ground-truth")  # minutes: .ci/run, and the guides' test
    lines = [line for line in inline_commands() if "…" not in line and not line.startswith(elsewhere)]
    assert len(lines) >= 18
    for line in lines:
        if line.startswith("headwater info answers.parquet"):
            run("headwater attribute S --queries questions.jsonl -o answers.parquet")
        if line.startswith("headwater fit"):
            line += " --set stride.subsets 30 --set stride.updates 4"
        run(line)
    assert Path("chosen.jsonl").read_text().count("\n") == 6


def test_every_command_is_in_its_table() -> None:
    assert set(main.commands) <= {line.split()[1] for line in inline_commands()}


def test_every_guide_is_linked() -> None:
    assert all(f"(examples/guides/{guide.name})" in TEXT for guide in GUIDES)


@pytest.mark.parametrize("document", [*DOCUMENTS, ROOT / "examples/benchmarks/README.md"], ids=lambda path: path.stem)
def test_links_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text("utf-8"))
    assert [link for link in links if not (document.parent / link).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_links_to_headings_lead_to_one(document: Path) -> None:
    for link, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", document.read_text("utf-8")):
        target = document.parent / link if link else document
        headings = re.findall(r"^#+ (.*)", target.read_text("utf-8"), re.M)
        assert anchor in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}, (
            link,
            anchor,
        )


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_inline_commands_of_all_documents_exist(document: Path) -> None:
    names = re.findall(r"`headwater ([a-z-]+)", document.read_text("utf-8"))
    assert [name for name in names if name not in main.commands] == []


def test_every_document_with_commands_is_run() -> None:
    shown = {path for path in ROOT.glob("*.md") if commands(path)} | {path for path in GUIDES if commands(path)}
    assert shown <= {README, *GUIDES}


def test_ci_runs_the_commands_shown() -> None:
    script = (ROOT / ".ci/run").read_text()
    assert "make test" in script
    assert "headwater demo --short" in script
    assert "make demo" in commands(README)
