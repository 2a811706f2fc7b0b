"""`methods NAME`, `check module:Class` and the shell's completion."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from headwater.engine.interface.method_description import TYPICAL, description
from headwater.engine.interface.registry import list_methods, load
from places import ROOT
from running import done, headwater

OURS = [line.name for line in list_methods() if line.distribution.startswith("headwater ")]


@pytest.mark.parametrize("name", OURS)
def test_a_method_says_when_to_use_it_what_it_needs_and_its_settings(name: str) -> None:
    facts, method = description(name), load(name)()
    assert facts["use"].startswith("Use it ") and facts["use"].endswith(".") and facts["about"].endswith(".")
    assert {one["name"]: one["default"] for one in facts["settings"]} == method.settings()
    assert all(len(one["about"]) > 10 for one in facts["settings"]) and facts["needs"]
    output = done("methods", name).stdout
    assert output.startswith(f"{name}  (headwater ") and max(map(len, output.splitlines())) <= 130


def test_needs_and_bytes_are_those_of_the_class() -> None:
    assert any("backward pass" in need for need in description("logra")["needs"])
    assert description("rise")["needs"][0] == "a forward pass alone"
    assert any("fit of corpus statistics" in need for need in description("headkfac")["needs"])
    assert description("rise")["bytes_per_example"] == 2 * 128 * (128 + 64)
    assert description("repsim")["bytes_per_example"] == 2 * TYPICAL.hidden
    assert description("bm25")["bytes_per_example"] is None is description("stride")["bytes_per_example"]
    assert json.loads(done("methods", "rise", "--json").stdout) == description("rise")


def test_an_unknown_method_names_the_closest() -> None:
    assert "hint: did you mean trak?" in headwater("methods", "trakk").stderr


GOOD = (ROOT / "examples/third_party_method/headwater_meanhidden.py").read_text(encoding="utf-8")


def check(folder: Path, target: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-c", "from headwater.cli import main; main()", "check", target]
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=120)


def test_check_prints_a_line_for_each_check(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(GOOD)
    ran = check(tmp_path, "mine:MeanHidden")
    assert ran.returncode == 0 and "mine:MeanHidden conforms" in ran.stderr, ran.stderr
    lines = ran.stdout.splitlines()
    assert len(lines) > 25 and all(line.startswith(("ok ", "- ")) for line in lines)
    assert "ok      rows are each examples own" in lines


def test_check_names_what_fails(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(GOOD + "\n    def scratch(self, model, positions):\n        return 7\n")
    ran = check(tmp_path, "mine:MeanHidden")
    failed = [line for line in ran.stdout.splitlines() if line.startswith("FAILED")]
    assert ran.returncode == 1 and "checks failed" in ran.stderr
    assert any("scratch grows with positions: scratch says 7 bytes" in line for line in failed)


def test_check_refuses_what_is_no_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "odd_module.py").write_text("class Odd: ...\n")
    for target, message in (("odd_module", "is not MODULE:CLASS"), ("odd_module:Odd", "is not a method"),
                         ("none_such:X", "cannot be imported: ModuleNotFoundError")):  # fmt: skip
        refused = headwater("check", target)
        assert refused.exit_code == 1 and message in refused.stderr and "Traceback" not in refused.stderr


def completed(line: str) -> list[str]:
    """What the shell offers at the end of a line."""
    words = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - (not line.endswith(" ")))}
    environment = {**os.environ, **words, "_HEADWATER_COMPLETE": "bash_complete"}
    script = "from headwater.cli import main; main(prog_name='headwater')"
    output = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    return [entry.partition(",")[2] for entry in output.stdout.splitlines()]


def test_the_shell_completes_commands_options_and_methods() -> None:
    assert completed("headwater attr") == ["attribute"]
    assert completed("headwater attribute S --method r") == ["rapidin", "repsim", "rise"]
    assert completed("headwater methods tra") == ["trackstar", "trak"]
    assert "--prompt-template" in completed("headwater ingest --pro")
    environment = {**os.environ, "_HEADWATER_COMPLETE": "bash_source"}
    script = "from headwater.cli import main; main(prog_name='headwater')"
    output = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert "_headwater_completion" in output.stdout
